"""What a card of a report is drawn from: a sample, and the stored frames of its media, read one at a time.

A sequence of 2,500 frames takes a GiB as pixels, and a card shows six of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from tpo_core.data.sample import Sample, answer_targets, kind_of
from tpo_core.data.shards import ShardSet


@dataclass(frozen=True)
class Footage:
    """times_s: (T,) seconds on the timeline of the sample. frame_index: (T,) numbers of the frames in the original, to
    which width and height (pixels) and duration_s belong. frame_HWC(i): the i-th of them as uint8 RGB, at any size."""

    sample: Sample
    times_s: np.ndarray
    frame_index: np.ndarray
    width: int
    height: int
    duration_s: float
    frame_HWC: Callable[[int], np.ndarray]


FootageOf = Callable[[str, str], Footage]  # (name of the entry, sample id): ids are unique within an entry alone


def footage(shards: ShardSet, part: str, sample_id: str) -> Footage:
    """A sample of a part; one frame alone where the sample is about that. KeyError when the part has no such sample."""
    table = shards.samples(part)
    sample = table[table.numbers[sample_id]]
    if not sample.media:
        return Footage(
            sample, np.zeros(0), np.zeros(0, np.int64), 1, 1, 0.0, lambda place: np.zeros((1, 1, 3), np.uint8)
        )
    row = shards.media(sample.media[0].uri)
    places = np.arange(len(row.frame_index))
    asked = [target.frame for target in answer_targets(sample) if target.frame is not None]
    if kind_of(sample) == "region" and asked:
        places = np.flatnonzero(row.frame_index == asked[0])
    return Footage(
        sample,
        row.times_s[places],
        row.frame_index[places],
        row.width,
        row.height,
        row.duration_s,
        lambda place: row.frames_THWC(places[[place]])[0],
    )


def of_parts(shards: ShardSet) -> FootageOf:
    """For entries "<part>/<task>" of one shard set. Nothing is read before it is called."""
    return lambda entry, sample_id: footage(shards, entry.split("/", 1)[0], sample_id)


def of_sets(shards_uris: Mapping[str, str], part: str) -> FootageOf:
    """For entries that have a shard set each, by the name of the entry. Nothing is read before it is called."""
    opened = cache(ShardSet.open)
    return lambda entry, sample_id: footage(opened(shards_uris[entry]), part, sample_id)
