"""QVHighlights: JSON lines with the windows of a query and the saliency of 2-second clips.

Format: https://github.com/jayleicn/moment_detr. Times are seconds inside a 150-second clip that is named
`<youtube id>_<start>_<end>` after its place in the source video; ids hold underscores, so it is split from the right.
Rows of the official test split carry no labels: they become samples without targets, flagged "unlabelled".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers.base import LABELS, Option, Reader, Reject, at, grounded_turns, raw_json
from tpo_core.data.readers.files import below, fill, read_lines
from tpo_core.data.sample import UNLABELLED, Clip, Media, Provenance, Saliency, Sample, Target

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


def _sample(row: dict[str, Any], number: int, source: str, split: str, options: Mapping[str, str]) -> Sample:
    query, vid = row["query"].strip(), row["vid"]
    spans = tuple((float(start), float(end)) for start, end in row.get("relevant_windows") or ())
    targets = tuple(Target("span", label=query, group=0, set_rule="all_of", span_s=span) for span in spans)
    targets += _saliency(row, query)
    task = "highlight" if any(target.saliency for target in targets) else "span"
    native_id = str(row["qid"])
    sample_id = f"{NAME}/{split}/{native_id}"
    named = _VID.fullmatch(vid)
    place = (
        {"youtube_id": named["source"], "clip_in_source_s": [float(named["start"]), float(named["end"])]}
        if named
        else {}
    )
    return Sample(
        sample_id=sample_id,
        dataset=NAME,
        split=split,
        task=task,
        media=(_media(vid, float(row["duration"]), split, options),),
        turns=grounded_turns(task, query, sample_id, answers=len(targets)),
        targets=targets,
        provenance=Provenance(
            source_file=source,
            row=number,
            native_id=native_id,
            reader=NAME,
            raw=raw_json(vid=vid, duration=row["duration"], **place),
            flags=() if spans else (UNLABELLED,),
        ),
    )


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source = below(options["labels"], f"highlight_{split}_release.jsonl")
    for number, line in enumerate(read_lines(root, source, NAME)):
        if not line.strip():
            continue
        try:
            item: Sample | Reject = _sample(json.loads(line), number, source, split, options)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            item = Reject(at(source, number), "bad_record", f"{type(error).__name__}: {error}")
        yield item


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
