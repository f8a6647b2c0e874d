"""Reads boxes, moments and masks out of the text of an answer: what a model without heads has to be measured by.

The forms are those that `tpo_core/models/wording.py` teaches: moments as `0.38 to 0.88 seconds`; boxes as
`[x0, y0, x1, y1]`, fractions where a number has a decimal point, else hundredths, whose cells are taken at their
middles. A mask is the filled box, which moves on straight lines between the frames that the text names; a frame whose
nearest named one says `none` is empty. What cannot be read is no answer.
"""

import re
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch

from tpo_core.data.example import Example
from tpo_core.evaluation.truth import HEAD_OF
from tpo_core.heads.base import BoxPrediction, MaskPrediction, Prediction, SpanPrediction
from tpo_core.models.tpo import Answer
from tpo_core.models.wording import ABSENT, CELLS

_NUMBER = r"\d+(?:\.\d+)?"
_BOX = re.compile(r"\[\s*" + r"\s*,\s*".join([f"({_NUMBER})"] * 4) + r"\s*\]")
_BOX_OR_NONE = re.compile(rf"{_BOX.pattern}|\b{ABSENT}\b")
_SPAN = re.compile(rf"({_NUMBER}) to ({_NUMBER})(?= and {_NUMBER} to | ?s(?:ec(?:ond)?s?)?\b)")


def with_spoken(task: str, example: Example, answer: Answer, heads: Collection[str]) -> Answer:
    """The answer with what its text says in coordinates, as if a head had been called for it.

    heads: of the model; what one of these is for is not read, a missed call stays a miss. A box, a track or a moment in
    an answer to plain conversation counts as a call too, and so is a false activation.
    """
    wanted = [HEAD_OF[task]] if task in HEAD_OF else ["mask", "temporal"]
    found: list[tuple[str, Prediction]] = []
    for head in wanted:
        prediction = None if head in heads else READERS[head](answer.text, example)
        if prediction is not None:
            found.append((head, prediction))
    spoken = [head for head, _ in found if head not in answer.activated]
    return replace(answer, found=[*answer.found, *found], activated=[*answer.activated, *spoken])


def read_box(text: str, example: Example) -> BoxPrediction | None:
    """The first box of a text, in pixels of the original."""
    boxes = boxes_in(text)
    return BoxPrediction(torch.from_numpy(boxes[0] * _scale(example))) if len(boxes) else None


def read_moment(text: str, example: Example) -> SpanPrediction | None:
    """The moments of a text in seconds, in its order; those that are none (`0.9 to 0.3`) are left out."""
    spans = [(float(start), float(end)) for start, end in _SPAN.findall(text)]
    spans = [(start, end) for start, end in spans if start < end]
    return SpanPrediction(torch.tensor(spans), torch.ones(len(spans))) if spans else None


def read_mask(text: str, example: Example) -> MaskPrediction | None:
    """The boxes of a text on all stored frames, and as masks; None where it names none."""
    named = [_fractions(match.groups()) for match in _BOX_OR_NONE.finditer(text)]
    named_K4 = np.array([np.full(4, np.nan) if box is None else box for box in named]).reshape(-1, 4)
    if np.isnan(named_K4).all():
        return None
    n_frames = len(example.frame_index)
    boxes_T4 = between(named_K4, n_frames) * _scale(example)
    masks_THW = np.zeros((n_frames, example.height, example.width), bool)
    for place, box in enumerate(boxes_T4):
        if not np.isnan(box).any():
            x0, y0, x1, y1 = box.round().astype(int)
            masks_THW[place, y0:y1, x0:x1] = True
    there_T = torch.from_numpy(~np.isnan(boxes_T4[:, 0])).float()
    return MaskPrediction(torch.from_numpy(masks_THW), torch.from_numpy(boxes_T4), there_T)


READERS = {"region": read_box, "temporal": read_moment, "mask": read_mask}


def boxes_in(text: str) -> np.ndarray:
    """(k, 4) xyxy fractions of the boxes of a text, in its order; those without an area are left out."""
    boxes = [_fractions(match.groups()) for match in _BOX.finditer(text)]
    return np.array([box for box in boxes if box is not None]).reshape(-1, 4)


def between(named_K4: np.ndarray, n_frames: int) -> np.ndarray:
    """Boxes (n_frames, 4) from those on K frames at equal distances, nan where absent, as named_K4 has it.

    On a frame the box is interpolated between the named ones around it; it is absent where the nearest named one is.
    """
    named = np.linspace(0, n_frames - 1, len(named_K4)).round()
    frames = np.arange(n_frames)
    there = ~np.isnan(named_K4).any(axis=1)
    boxes = np.stack([np.interp(frames, named[there], side[there]) for side in named_K4.T], axis=1)
    nearest = np.abs(frames[:, None] - named).argmin(axis=1)
    boxes[~there[nearest]] = np.nan
    return boxes


def _fractions(numbers: tuple[str | None, ...]) -> np.ndarray | None:
    """Four numbers of a text as xyxy fractions; None for `none` and for what has no area."""
    values = [
        float(number) if "." in number else (float(number) + 0.5) / CELLS for number in numbers if number is not None
    ]
    box = np.clip(values, 0.0, 1.0)
    return box if len(box) == 4 and box[0] < box[2] and box[1] < box[3] else None


def _scale(example: Example) -> np.ndarray:
    return np.array([example.width, example.height] * 2, np.float64)
