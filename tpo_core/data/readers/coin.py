"""COIN: a JSON database of instructional videos with the steps that they show, as timed captions.

Format: https://github.com/coin-dataset/annotations. Seconds of the whole video. `start` and `end` are the part of the
video that was annotated, NOT a step; they are kept in the raw values. The id of a step is a string, though the official
description says int. One file holds all subsets; that description calls the second one `validation`, the file
`testing`: either name reads both. Official downloads lie in folders by recipe number (`116/<YouTube id>.mp4`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._moments import dense_caption, mapped_subset, positive, seconds, sentence
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject
from tpo_core.data.readers.files import below, fill, stream_pairs
from tpo_core.data.sample import Media, Sample, Target

NAME = "coin"
SAME = ("testing", "validation")


def _step(step: dict[str, Any]) -> Target:
    return Target("span", label=sentence(step["label"]), object_id=str(step["id"]), span_s=seconds(step["segment"]))


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source = below(options["labels"], "COIN.json")
    labels = LabelFile(NAME, split, source, NAME)

    def build(pair: tuple[str, dict[str, Any]], row: int) -> Iterator[Sample | Reject]:
        name, video = pair
        path = fill(options["video"], name=name, split=split, recipe=str(video["recipe_type"]))
        media = Media(path, "video", duration_s=positive(video["duration"], "duration"))
        raw = {"class": video["class"], "roi_s": [video["start"], video["end"]]}
        return dense_caption(labels, name, row, media, video["annotation"], _step, raw=raw)

    subsets = (split, *(name for name in SAME if split in SAME and name != split))
    yield from mapped_subset(stream_pairs(root, source, NAME, "database"), subsets, labels, build)


READER = Reader(
    name=NAME,
    summary="COIN: the steps of an instructional video, with their times",
    layout="COIN.json (subsets training, testing), videos/<recipe>/<YouTube id>.mp4",
    default_split="training",
    parse=_parse,
    options={
        "labels": LABELS,
        "video": Option("videos/{recipe}/{name}.mp4", "path of a video below the root; {recipe} is the recipe number"),
    },
)
