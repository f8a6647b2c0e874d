"""What a model is shown of a sample, and all that is stored of its media, for heads that look at every frame."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tpo_core.data.example import Example, load_example
from tpo_core.data.frames import DecodeRequest, select_frames
from tpo_core.data.sample import Sample, kind_of, prompt_boxes
from tpo_core.data.shards import MediaRow, ShardSet
from tpo_core.evaluation.asking import Ask, Question


@dataclass(frozen=True)
class Shown:
    """One request with what the model sees: `example` holds the frames of the language model, `clip`, of masks and
    tracks, all that are stored. task: as of `truth.HEAD_OF`."""

    ask: Ask
    task: str
    example: Example
    clip: Clip | None = None

    @property
    def sees_a_part(self) -> bool:
        """Whether more frames are stored than the language model sees."""
        return self.clip is not None and len(self.clip) > len(self.example.frame_index)


@dataclass(frozen=True)
class Clip:
    """The stored frames of a media, read one at a time: a sequence of 2,500 frames takes a GiB as pixels.

    Indexed as a tensor (T, 3, h, w) is: `clip[place, None]` is uint8 RGB (1, 3, h, w).
    """

    row: MediaRow

    def __len__(self) -> int:
        return len(self.row.frame_index)

    def __getitem__(self, at: tuple[int, None]) -> Tensor:
        place, _ = at
        return torch.from_numpy(self.row.frames_THWC(np.array([place]))).movedim(3, 1)

    @property
    def size_hw(self) -> tuple[int, int]:
        """Of the original, pixels."""
        return self.row.height, self.row.width

    def place_of(self, frame: int) -> int:
        """The place of a frame (number in the original); 0 where it is not stored, as in training."""
        places = np.flatnonzero(self.row.frame_index == frame)
        return int(places[0]) if len(places) else 0


def shown(shards: ShardSet, ask: Ask, task: str, question: Question, n_frames: int) -> Shown:
    """The frames for a question: of a video of which more than `n_frames` are stored, those at the midpoints of so many
    equal intervals, and the one on which the question gives a box. Regions look at their own frame."""
    sample = question.sample
    row = shards.media(sample.media[0].uri) if sample.media else None
    if row is None or kind_of(sample) == "region" or len(row.frame_index) <= n_frames + 1:
        example = replace(load_example(shards, sample), answer_prefix=question.prefix)
        return Shown(ask, task, example, Clip(row) if row is not None and task in ("mask", "track") else None)
    rows = seen_rows(row, sample, n_frames)
    example = Example(
        sample,
        row.frames_THWC(rows),
        row.times_s[rows],
        row.frame_index[rows],
        row.width,
        row.height,
        row.duration_s,
        features_SD=row.features_SD,
        answer_prefix=question.prefix,
    )
    return Shown(ask, task, example, Clip(row) if task in ("mask", "track") else None)


def seen_rows(row: MediaRow, sample: Sample, n_frames: int) -> np.ndarray:
    """Places of the frames that the language model sees, (T,) int64 ascending."""
    named = [target.frame for target in prompt_boxes(sample) if target.frame is not None]
    also = np.flatnonzero(np.isin(row.frame_index, named)).tolist()
    wanted = DecodeRequest(row.uri, row.kind, 1, n_frames, also_frames=tuple(also))
    return select_frames(row.times_s, row.duration_s, wanted)


def frames_of(sample: Sample) -> list[int]:
    """All frames that the media of a sample has, as numbers."""
    count: Any = sample.media[0].n_frames
    return list(range(count))
