"""One sample with its frames: what a model is trained and measured on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tpo_core.data.sample import Sample, answer_targets, kind_of
from tpo_core.data.shards import ShardSet


@dataclass(frozen=True)
class Change:
    """What augmentation did to all frames of an example alike: factors of brightness and contrast, and whether left
    and right are exchanged."""

    brightness: float = 1.0
    contrast: float = 1.0
    flip: bool = False


UNCHANGED = Change()


@dataclass(frozen=True)
class Example:
    """One sample with its frames. `frames_THWC` uint8 RGB at stored size, `times_s` (T,) float64 on the sample's
    timeline, `frame_index` (T,) int64 numbers of these frames in the original; `width`, `height` (pixels) and
    `duration_s` (of the timeline) describe the original. A sample without media has T = 0. The labels of `sample` are
    those of the frames as they are here; `change` tells how these differ from the stored ones. `features_SD` float16:
    the stored vectors of the clips that its media was cut into, if there are any. `answer_prefix`: what an answer that
    is asked for begins with; the model goes on from there, and its answer is what it adds. `draw`: seed of what a head
    draws at random for the sample when it is trained on, of 63 bits."""

    sample: Sample
    frames_THWC: np.ndarray
    times_s: np.ndarray
    frame_index: np.ndarray
    width: int
    height: int
    duration_s: float
    change: Change = UNCHANGED
    features_SD: np.ndarray | None = None
    answer_prefix: str = ""
    draw: int = 0


def load_example(shards: ShardSet, sample: Sample, draw: int = 0) -> Example:
    """The sample with the stored frames of its (first) media; a box on one frame of a video, with that frame alone."""
    if not sample.media:
        empty = np.zeros((0, 1, 1, 3), np.uint8)
        return Example(sample, empty, np.zeros(0), np.zeros(0, np.int64), 1, 1, 0.0, draw=draw)
    row = shards.media(sample.media[0].uri)
    only = np.arange(len(row.frame_index))
    asked = [target.frame for target in answer_targets(sample) if target.frame is not None]
    if kind_of(sample) == "region" and asked:
        only = np.flatnonzero(row.frame_index == asked[0])
        assert len(only), f"{sample.sample_id}: frame {asked[0]} is not stored"
    times_s, index = row.times_s[only], row.frame_index[only]
    frames_THWC, features_SD = row.frames_THWC(only), row.features_SD
    size = row.width, row.height, row.duration_s
    return Example(sample, frames_THWC, times_s, index, *size, features_SD=features_SD, draw=draw)
