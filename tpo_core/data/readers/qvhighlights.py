"""QVHighlights: JSON lines with the windows of a query and the saliency of 2-second clips.

Format: https://github.com/jayleicn/moment_detr. Times are seconds inside a 150-second clip that is named
`<youtube id>_<start>_<end>` after its place in the source video; ids hold underscores, so it is split from the right.
Saliency counts clips of 2 s from the start of the clip, three annotators each; clips not listed score 0.
Rows of the official test split carry no labels: they become samples without targets, flagged "unlabelled".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._moments import seconds, sentence
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill, read_lines
from tpo_core.data.sample import UNLABELLED, Clip, Media, Saliency, Sample, Target

NAME = "qvhighlights"
CLIP_LEN_S = 2.0
_VID = re.compile(r"(?P<source>.+)_(?P<start>\d+(?:\.\d+)?)_(?P<end>\d+(?:\.\d+)?)")


def _media(vid: str, duration_s: float, split: str, options: Mapping[str, str]) -> Media:
    if options["clips"] == "cut":
        return Media(fill(options["video"], name=vid, split=split), "video", duration_s=duration_s)
    named = _VID.fullmatch(vid)
    if named is None:
        raise ValueError(f"vid {vid!r} is not <youtube id>_<start>_<end>")
    start = float(named["start"])
    clip = Clip(start, min(float(named["end"]), start + duration_s))
    return Media(fill(options["video"], name=named["source"], split=split), "video", clip_s=clip)


def _saliency(row: dict[str, Any], query: str) -> tuple[Target, ...]:
    scores = row.get("saliency_scores")
    if scores is None:
        return ()
    ids = row["relevant_clip_ids"]
    if len(ids) != len(scores):
        raise ValueError(f"{len(ids)} clip ids but {len(scores)} saliency scores")
    saliency = Saliency(CLIP_LEN_S, tuple(map(int, ids)), tuple(tuple(map(int, votes)) for votes in scores))
    return (Target("saliency", label=query, saliency=saliency),)


def _sample(row: dict[str, Any], number: int, labels: LabelFile, options: Mapping[str, str]) -> Sample:
    query, vid = sentence(row["query"]), row["vid"]
    spans = [seconds(window) for window in row.get("relevant_windows") or ()]
    targets = [Target("span", label=query, group=0, set_rule="all_of", span_s=span) for span in spans]
    targets += _saliency(row, query)
    task = "highlight" if any(target.saliency for target in targets) else "span"
    raw = {"query": row["query"], "vid": vid, "duration": row["duration"]}
    named = _VID.fullmatch(vid)
    if named:
        raw |= {"youtube_id": named["source"], "clip_in_source_s": [float(named["start"]), float(named["end"])]}
    media = _media(vid, float(row["duration"]), labels.split, options)
    flags = () if spans else (UNLABELLED,)
    return labels.grounded(task, query, str(row["qid"]), number, media, targets, raw=raw, flags=flags)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source = below(options["labels"], f"highlight_{split}_release.jsonl")
    labels = LabelFile(NAME, split, source, NAME)

    def build(line: str, number: int) -> Iterator[Sample]:
        if line.strip():
            yield _sample(json.loads(line), number, labels, options)

    yield from mapped(read_lines(root, source, NAME), source, build)


READER = Reader(
    name=NAME,
    summary="QVHighlights: windows and saliency of a query, in seconds of a cut clip",
    layout="highlight_{split}_release.jsonl, videos/<vid>.mp4",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "video": Option("videos/{name}.mp4", "path of a video below the root; {name} is the vid, or the YouTube id"),
        "clips": Option("cut", "cut: a file is the clip; source: a file is the whole source video", ("cut", "source")),
    },
)
