"""MLVU: seven multiple-choice and two generation tasks on long videos.

Format: https://github.com/JUNJIE99/MLVU.

- Split "dev" is the task files that are there (`json/1_plotQA.json` ...); the answer is the text of a candidate.
  Sub-scene captioning and summaries (8, 9) have no candidates: they are chat samples.
- Split "test" is `test_question.json`: up to six options, and no public answers (flag "unlabelled").
- The `question_type` of a record is kept, since it differs from the file's name (2_needle says findNeedle).
- The dev set as lmms-lab publishes it (one file with `video_name`, the options as lines "(A) ..." of the question and a
  letter as answer) is read with the option `file`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from tpo_core.data.readers._choices import choice, letter_index, stream_rows, text_index, unanswered
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill, require
from tpo_core.data.sample import Media, Sample, Turn
from tpo_core.storage.uri import exists, join

NAME = "mlvu"
TASKS = (
    "1_plotQA",
    "2_needle",
    "3_ego",
    "4_count",
    "5_order",
    "6_anomaly_reco",
    "7_topic_reasoning",
    "8_sub_scene",
    "9_summary",
)
_OPTION_LINE = re.compile(r"^\(([A-Z])\)\s*(.*?)\s*$", re.MULTILINE)


def _sources(root: str, split: str, options: Mapping[str, str]) -> list[str]:
    """The annotation files of a split, below the root."""
    folder = options["labels"]
    if options["file"]:
        return [below(folder, fill(options["file"], split=split))]
    if split != "dev":
        return [below(folder, f"{split}_question.json")]
    files = [below(folder, "json", f"{task}.json") for task in TASKS]
    found = [file for file in files if exists(join(root, file))]
    if not found:
        require(root, files[0], NAME)
    return found


def _in_question(text: str) -> tuple[str, tuple[str, ...]]:
    """The question before its option lines, and the options. ValueError when they are not A, B, ... in order."""
    found = list(_OPTION_LINE.finditer(text))
    if not found or [letter_index(match[1]) for match in found] != list(range(len(found))):
        raise ValueError("the question lists no options (A), (B), ...")
    return text[: found[0].start()].rstrip(), tuple(match[2] for match in found)


def _of_task_file(labels: LabelFile, row: dict[str, Any], number: int, media: Media) -> Sample | Reject:
    raw = {"task_type": row["question_type"], **{key: row[key] for key in ("scoring_points",) if key in row}}
    native_id = str(row.get("question_id") or f"{PurePosixPath(labels.source).stem}-{number}")
    if row.get("candidates") is None:
        turns = (Turn("user", row["question"], (0,)), Turn("assistant", row["answer"]))
        return labels.sample("chat", native_id, number, (media,), turns, raw=raw, answer_text=row["answer"])
    candidates = tuple(str(candidate) for candidate in row["candidates"])
    if row.get("answer") is None and labels.split == "test":
        return unanswered(labels, native_id, number, (media,), row["question"], candidates, raw=raw)
    answer = text_index(str(row["answer"]), candidates)
    return choice(labels, native_id, number, (media,), row["question"], candidates, answer, raw=raw)


def _of_one_file(labels: LabelFile, row: dict[str, Any], number: int, media: Media) -> Sample | Reject:
    question, candidates = _in_question(row["question"])
    raw = {"task_type": row["task_type"], "question": row["question"]}
    return choice(labels, str(number), number, (media,), question, candidates, letter_index(row["answer"]), raw=raw)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    for source in _sources(root, split, options):
        labels, task = LabelFile(NAME, split, source, NAME), PurePosixPath(source).stem

        def build(row: dict[str, Any], number: int, labels: LabelFile = labels, task: str = task) -> Iterator[Any]:
            path = row["video_name"] if "video_name" in row else row["video"]
            folder = "" if options["file"] or split != "dev" else task
            duration = row.get("duration")
            uri = below(fill(options["video"], folder=folder, name=path).replace("//", "/"))
            media = Media(uri, "video", duration_s=None if duration is None else float(duration))
            yield (_of_one_file if "video_name" in row else _of_task_file)(labels, row, number, media)

        yield from mapped(stream_rows(root, source, NAME), source, build)


READER = Reader(
    name=NAME,
    summary="MLVU: multiple-choice and open questions about long videos",
    layout="json/<task>.json and video/<task>/<video> (dev), test_question.json and video/<video> (test)",
    default_split="dev",
    parse=_parse,
    options={
        "labels": LABELS,
        "file": Option("", "one annotation file (.json, .jsonl, .parquet) in place of those of the split"),
        "video": Option("video/{folder}/{name}", "path of a video below the root; {folder} is the task, in dev"),
    },
)
