"""Frames of an answer with truth and prediction drawn on them, as pictures that live inside a page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from tpo_core.data import rle
from tpo_core.evaluation import truth
from tpo_core.evaluation.canvas import PREDICTION, TRUTH, Picture
from tpo_core.evaluation.report.entries import Row
from tpo_core.evaluation.report.footage import Footage
from tpo_core.evaluation.report.tracks import as_box, as_track

LARGE_PX, SMALL_PX = 480, 240  # long side of a single frame, and of one of several
SEVERAL, FILM = 4, 6
QUALITIES = (85, 70, 50, 30, 10)
MOST_BYTES = 100_000
SHORT_S = 10.0  # media for which tenths of a second are too coarse
FAR = 2.0  # a wild box is cut this many sizes of the image outside of it

Choose = Callable[[Row, Footage], list[int]]
Draw = Callable[[Picture, Row, Footage, int], None]


@dataclass(frozen=True)
class Shown:
    """One frame: `source` is a data URI, `caption` its time, empty for a still."""

    source: str
    caption: str
    width: int
    height: int


def shown_frames(row: Row, footage: Footage) -> list[Shown]:
    """The frames that show what the row is about; none for a sample without media."""
    if not len(footage.frame_index):
        return []
    choose, draw = VIEWS.get(row.task, (_evenly(SEVERAL), _nothing))
    indices = choose(row, footage)
    long_px = LARGE_PX if len(indices) == 1 else SMALL_PX
    return [_frame(footage, index, long_px, draw, row) for index in indices]


def _frame(footage: Footage, index: int, long_px: int, draw: Draw, row: Row) -> Shown:
    size_wh = (footage.width, footage.height)
    factor = long_px / max(size_wh)
    width, height = (max(round(side * factor), 1) for side in size_wh)
    picture = Picture(footage.frame_HWC(index), width, height, size_wh)
    draw(picture, row, footage, index)
    caption = f"{seconds(footage.times_s[index], footage.duration_s)} s" if footage.duration_s else ""
    return Shown(as_uri(picture.image.resize((width, height), Image.Resampling.LANCZOS)), caption, width, height)


def seconds(time_s: float, duration_s: float) -> str:
    """A time as text, with the decimals that media of this duration call for."""
    return f"{time_s:.{2 if duration_s < SHORT_S else 1}f}"


def as_uri(image: Image.Image) -> str:
    """A JPEG of fewer than MOST_BYTES as data URI."""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality, optimize=True, subsampling=0)  # lines keep their colour
        if len(buffer.getvalue()) < MOST_BYTES:
            break
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _nothing(picture: Picture, row: Row, footage: Footage, index: int) -> None:
    """The frame as it is."""


def _draw_box(picture: Picture, row: Row, footage: Footage, index: int) -> None:
    for box, colour in ((as_box(row.truth), TRUTH), (as_box(row.prediction), PREDICTION)):
        _box(picture, box, footage, colour, 4.0)


def _draw_track(picture: Picture, row: Row, footage: Footage, index: int) -> None:
    for track, colour in ((row.truth, TRUTH), (row.prediction, PREDICTION)):
        place = _place(track, footage, index)
        if place is not None:
            _box(picture, as_box(track[place]), footage, colour, 3.0)


def _draw_mask(picture: Picture, row: Row, footage: Footage, index: int) -> None:
    place = _place(row.prediction, footage, index)
    found = None if place is None else as_mask(row.prediction[place])
    if found is not None:
        picture.fill(found, PREDICTION, 0.4)
        picture.contour(found, PREDICTION, 2.0)
    true = true_mask(footage, index)
    if true is not None:
        picture.contour(true, TRUTH, 2.0)


def _box(picture: Picture, box_xyxy: np.ndarray, footage: Footage, colour: tuple[int, int, int], line: float) -> None:
    if np.isfinite(box_xyxy).all():
        size = np.array([footage.width, footage.height] * 2)
        picture.box(np.clip(box_xyxy, -FAR * size, (1 + FAR) * size), colour, line)


def as_mask(value: Any) -> np.ndarray | None:
    """(H, W) bool of a run length as it stands in a row; None for null and for what is none."""
    try:
        return rle.decode(rle.from_coco(value, 0, 0))
    except (TypeError, KeyError, ValueError):
        return None


def true_mask(footage: Footage, index: int) -> np.ndarray | None:
    """(H, W) bool: the union of all parts on a stored frame; None where the object is absent or nothing is known."""
    (parts,) = truth.labels_on(footage.sample, footage.frame_index[[index]])
    masks = [part.rle for part in parts or () if part.rle is not None]
    return rle.decode(rle.union(masks)) if masks else None


def _place(track: Any, footage: Footage, index: int) -> int | None:
    """Where a list with an item a frame holds this one: it has the stored frames, or all of the original."""
    if not isinstance(track, list):
        return None
    if len(track) == len(footage.frame_index):
        return index
    number = int(footage.frame_index[index])
    return number if number < len(track) else None


def _first(row: Row, footage: Footage) -> list[int]:
    return [0]


def _evenly(most: int) -> Choose:
    return lambda row, footage: spread(np.arange(len(footage.frame_index)), most)


def _while_visible(row: Row, footage: Footage) -> list[int]:
    """Of the frames on which the object is there, if they are enough."""
    if row.task == "mask":
        labels = truth.labels_on(footage.sample, footage.frame_index)
        visible = np.array([bool(parts) for parts in labels])
    else:
        true = as_track(row.truth)
        places = [_place(row.truth, footage, index) for index in range(len(footage.frame_index))]
        visible = np.array([place is not None and bool(np.isfinite(true[place]).all()) for place in places])
    numbers = np.flatnonzero(visible) if visible.sum() >= SEVERAL else np.arange(len(visible))
    return spread(numbers, SEVERAL)


def spread(numbers_N: np.ndarray, most: int) -> list[int]:
    """At most `most` of the numbers at equal distances, the first and the last among them."""
    count = min(most, len(numbers_N))
    return [int(numbers_N[i]) for i in np.linspace(0, len(numbers_N) - 1, count).round().astype(int)]


VIEWS: dict[str, tuple[Choose, Draw]] = {
    "region": (_first, _draw_box),
    "moment": (_evenly(FILM), _nothing),
    "mask": (_while_visible, _draw_mask),
    "track": (_while_visible, _draw_track),
}
