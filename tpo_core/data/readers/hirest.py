"""HiREST: a JSON object of queries, each with videos, the moment that answers the query, and the steps within it.

Format: https://github.com/j-min/HiREST. Seconds are whole numbers on the timeline of the whole video, those of the
steps (`absolute_bounds`) too. Traps: `clip: false` says that the WHOLE video answers the query, and comes with bounds
[0, 0]; it becomes a moment as long as the video, flagged "whole_video". The released test split has its labels
withheld, with bounds [0, 1] and no steps everywhere; such a row is flagged "unlabelled". `relevant: false` rows are no
labels, and videos without steps are no timed captions: they are not read. TimeSuite's copy of the train file is no
valid JSON: take the original.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from tpo_core.data.readers._moments import dense_caption, parts, positive, seconds, sentence, span_sample
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill, stream_pairs
from tpo_core.data.sample import Media, Sample, Target

NAME = "hirest"
WITHHELD = [0, 1]


def _moment(labels: LabelFile, native_id: str, row: int, media: Media, query: str, video: dict[str, Any]) -> Sample:
    bounds, raw = video["bounds"], {"bounds": video["bounds"], "clip": video["clip"]}
    if bounds == WITHHELD and not video["steps"]:
        return span_sample(labels, native_id, row, media, query, None, raw=raw)
    if video["clip"]:
        return span_sample(labels, native_id, row, media, query, seconds(bounds), raw=raw)
    assert media.duration_s is not None
    whole = (0.0, media.duration_s)
    return span_sample(labels, native_id, row, media, query, whole, raw=raw, flags=("whole_video",))


def _step(step: dict[str, Any]) -> Target:
    return Target("span", label=sentence(step["heading"]), span_s=seconds(step["absolute_bounds"]))


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source = below(options["labels"], f"all_data_{split}.json")
    labels = LabelFile(NAME, split, source, NAME)

    def build(pair: tuple[str, dict[str, Any]], row: int) -> Iterator[Sample | Reject]:
        query = sentence(pair[0])

        def one(item: tuple[str, dict[str, Any]], number: int) -> Iterator[Sample | Reject]:
            name, video = PurePosixPath(item[0]).stem, item[1]
            if not video["relevant"]:
                return
            path = fill(options["video"], name=name, split=split)
            media = Media(path, "video", duration_s=positive(video["v_duration"], "v_duration"))
            if options["task"] == "span":
                yield _moment(labels, f"{name}-{row}", row, media, query, video)
            elif video["steps"]:
                raw = {"query": query, "bounds": video["bounds"]}
                yield from dense_caption(labels, f"{name}-{row}-steps", row, media, video["steps"], _step, raw=raw)

        return parts(source, row, pair[1].items(), one)

    yield from mapped(stream_pairs(root, source, NAME), source, build)


READER = Reader(
    name=NAME,
    summary="HiREST: the moment of a how-to query, or its steps with their times",
    layout="all_data_{split}.json (train, val, test), videos/<YouTube id>.mp4",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "video": Option("videos/{name}.mp4", "path of a video below the root; {name} is the YouTube id"),
        "task": Option(
            "span", "span: the moment of a query; dense_caption: the steps of a video", ("span", "dense_caption")
        ),
    },
)
