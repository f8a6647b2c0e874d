"""ActivityNet-Captions: a JSON object of videos, each with its duration, its moments in seconds and their sentences.

Format: https://cs.stanford.edu/people/ranjaykrishna/densevid/. Splits are train, val_1 and val_2; the last two are two
annotations of the SAME videos (grounding papers call them val and test), so never train on one and score on the other.
Sentences have spaces around them, which are taken off. Of train, 4 moments are empty or reversed (rejected) and 29 end
past the video (clipped to the duration in the file). By option a video is one timed caption instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._moments import TASK_HELP, dense_caption, parts, positive, seconds, sentence, span_sample
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill, stream_pairs
from tpo_core.data.sample import Media, Sample, Target

NAME = "activitynet_captions"


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source = below(options["labels"], f"{split}.json")
    labels = LabelFile(NAME, split, source, NAME)

    def build(pair: tuple[str, dict[str, Any]], row: int) -> Iterator[Sample | Reject]:
        name, video = pair
        path = fill(options["video"], name=name, split=split)
        media = Media(path, "video", duration_s=positive(video["duration"], "duration"))
        events = list(zip(video["timestamps"], video["sentences"], strict=True))

        def one(event: tuple[Any, str], number: int) -> Iterator[Sample]:
            query = sentence(event[1])
            raw = {"sentence": event[1]} if event[1] != query else None
            yield span_sample(labels, f"{name}-{number}", row, media, query, seconds(event[0]), raw=raw)

        def target(event: tuple[Any, str]) -> Target:
            return Target("span", label=sentence(event[1]), span_s=seconds(event[0]))

        if options["task"] == "span":
            return parts(source, row, events, one)
        return dense_caption(labels, name, row, media, events, target)

    yield from mapped(stream_pairs(root, source, NAME), source, build)


READER = Reader(
    name=NAME,
    summary="ActivityNet-Captions: moments of a sentence, or timed captions of a video",
    layout="{split}.json (train, val_1, val_2), videos/<video>.mp4",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "video": Option("videos/{name}.mp4", "path of a video below the root; {name} is v_<YouTube id>"),
        "task": Option("span", TASK_HELP, ("span", "dense_caption")),
    },
)
