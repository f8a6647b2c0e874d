"""YouCook2: a JSON database of cooking videos with the sentences of a recipe, as timed captions.

Format: http://youcook2.eecs.umich.edu. Segments are whole seconds of the whole video. One file holds the subsets
training and validation; sentences of the testing subset are not public. Official downloads lie in folders by subset and
recipe number. By option each sentence is a moment to be found instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._moments import (
    TASK_HELP,
    dense_caption,
    mapped_subset,
    parts,
    positive,
    seconds,
    sentence,
    span_sample,
)
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject
from tpo_core.data.readers.files import below, fill, stream_pairs
from tpo_core.data.sample import Media, Sample, Target

NAME = "youcook2"


def _event(event: dict[str, Any]) -> Target:
    return Target("span", label=sentence(event["sentence"]), span_s=seconds(event["segment"]))


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source = below(options["labels"], options["file"])
    labels = LabelFile(NAME, split, source, NAME)

    def build(pair: tuple[str, dict[str, Any]], row: int) -> Iterator[Sample | Reject]:
        name, video = pair
        path = fill(options["video"], name=name, split=split, recipe=str(video["recipe_type"]))
        media = Media(path, "video", duration_s=positive(video["duration"], "duration"))

        def one(event: dict[str, Any], number: int) -> Iterator[Sample]:
            target = _event(event)
            assert target.label is not None
            yield span_sample(labels, f"{name}-{event['id']}", row, media, target.label, target.span_s)

        if options["task"] == "span":
            return parts(source, row, video["annotations"], one)
        return dense_caption(labels, name, row, media, video["annotations"], _event)

    yield from mapped_subset(stream_pairs(root, source, NAME, "database"), (split,), labels, build)


READER = Reader(
    name=NAME,
    summary="YouCook2: the sentences of a recipe with their times, or the moment of each",
    layout="youcookii_annotations_trainval.json (subsets training, validation), videos/<YouTube id>.mp4",
    default_split="training",
    parse=_parse,
    options={
        "labels": LABELS,
        "file": Option("youcookii_annotations_trainval.json", "name of the annotation file"),
        "video": Option("videos/{name}.mp4", "path of a video below the root; {split} and {recipe} may stand in it"),
        "task": Option("dense_caption", TASK_HELP, ("dense_caption", "span")),
    },
)
