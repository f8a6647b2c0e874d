"""Video-MME: 900 videos with three multiple-choice questions each.

Format: https://github.com/MME-Benchmarks/Video-MME; the records are a Parquet file, or a JSON list of the same fields.
Options carry their letter ("A. a cat"), the answer is a letter. `videoID` names the file, `video_id` numbers the video;
`duration` is a class (short, medium, long), not a length. Subtitles (`<videoID>.srt`) are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._choices import choice, letter_index, stream_rows, without_letters
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill
from tpo_core.data.sample import Media, Sample

NAME = "video_mme"
ABOUT = ("video_id", "videoID", "duration", "domain", "sub_category", "task_type", "options")


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source = below(options["labels"], fill(options["file"], split=split))
    labels = LabelFile(NAME, split, source, NAME)

    def build(row: dict[str, Any], number: int) -> Iterator[Sample | Reject]:
        media = (Media(fill(options["video"], name=row["videoID"], split=split), "video"),)
        answers = without_letters(row["options"])
        raw = {name: row[name] for name in ABOUT}
        answer = letter_index(row["answer"])
        yield choice(labels, row["question_id"], number, media, row["question"], answers, answer, raw=raw)

    yield from mapped(stream_rows(root, source, NAME), source, build)


READER = Reader(
    name=NAME,
    summary="Video-MME: multiple-choice questions about short, medium and long videos",
    layout="videomme/{split}-00000-of-00001.parquet, data/<videoID>.mp4",
    default_split="test",
    parse=_parse,
    options={
        "labels": LABELS,
        "file": Option("videomme/{split}-00000-of-00001.parquet", "annotation file: .parquet, .json or .jsonl"),
        "video": Option("data/{name}.mp4", "path of a video below the root; {name} is the videoID"),
    },
)
