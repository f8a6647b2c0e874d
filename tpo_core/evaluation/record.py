"""What a model gave to one request, as it is kept: a line of JSON, in the units of the media."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from tpo_core.data import rle
from tpo_core.data.sample import Box, Rle


@dataclass(frozen=True)
class Record:
    """The answer to the request `key`: its text, the heads that it called, and what the first call of the right head
    gave. box: xyxy pixels. windows: (start_s, end_s, score), best first. Both are what the model said, be it a NaN or
    an end before its start: the metric rejects and counts that. clips: (start_s, end_s, saliency) in order, of a model
    whose head tells highlights, none where it was not called; None of any other model. boxes and masks: by number of
    the frame in the original, None where the object is not seen; of other frames the answer says nothing. seconds: what
    the request took in its batch. failure: why there is no answer, in one line; None where there is one."""

    key: str
    text: str = ""
    activated: tuple[str, ...] = ()
    box: Box | None = None
    windows: tuple[tuple[float, float, float], ...] = ()
    clips: tuple[tuple[float, float, float], ...] | None = None
    boxes: dict[int, Box | None] | None = None
    masks: dict[int, Rle | None] | None = None
    seconds: float = 0.0
    failure: str | None = None

    def line(self) -> str:
        """One line of JSON; a float that is not finite is written as Python does."""
        masks = None
        if self.masks is not None:
            masks = {frame: mask and [mask.h, mask.w, mask.counts.decode()] for frame, mask in self.masks.items()}
        return json.dumps({**vars(self), "masks": masks})

    @classmethod
    def of_line(cls, line: str) -> Record:
        """The inverse of `line`. ValueError, KeyError or TypeError for anything else."""
        row: dict[str, Any] = json.loads(line)
        for name in ("activated", "windows", "clips"):
            if row[name] is not None:
                row[name] = tuple(tuple(item) if isinstance(item, list) else item for item in row[name])
        row["box"] = row["box"] and tuple(row["box"])
        if row["boxes"] is not None:
            row["boxes"] = {int(frame): box and tuple(box) for frame, box in row["boxes"].items()}
        if row["masks"] is not None:
            row["masks"] = {
                int(frame): mask and Rle(mask[0], mask[1], mask[2].encode()) for frame, mask in row["masks"].items()
            }
        return cls(**row)


def said_box(box_4: np.ndarray) -> Box:
    """xyxy, as the model said it."""
    left, top, right, bottom = (float(value) for value in box_4)
    return left, top, right, bottom


def plain_box(box_4: np.ndarray) -> Box | None:
    """xyxy of a mask; None for one with nan, or without area, which says that the mask is empty."""
    left, top, right, bottom = (float(value) for value in box_4)
    return (left, top, right, bottom) if right > left and bottom > top else None


def plain_mask(mask_HW: np.ndarray) -> Rle | None:
    """Run lengths; None for an empty mask."""
    return rle.encode(mask_HW) if mask_HW.any() else None


def everywhere(found: dict[int, Any], frames: list[int]) -> dict[int, Any]:
    """What is said of each of `frames`: where the answer says nothing, as of the nearest frame of which it does, the
    earlier of two. Empty if it says nothing at all."""
    known = sorted(found)
    if not known:
        return {}
    edges = [(before + after) / 2 for before, after in itertools.pairwise(known)]
    places = np.searchsorted(edges, frames, side="left")
    return {frame: found[known[place]] for frame, place in zip(frames, places.tolist(), strict=True)}
