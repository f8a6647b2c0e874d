"""The picture of one reply: frames with the boxes and masks that the model gave, and its moments on a time axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tpo_core.evaluation.canvas import INK, MUTED, PANEL, PREDICTION, Canvas, Picture
from tpo_core.evaluation.gallery import BIG, CARD_WH, GAP, LANE_LABELS, MARGIN, MEDIUM, SMALL, fit, time_axis

COLUMNS = 4
LANE = 26.0
AXIS = 34.0
# Objects beyond the first; far from each other and from PREDICTION for colour-blind readers (Okabe and Ito).
COLOURS = (PREDICTION, (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167))


@dataclass(frozen=True)
class ReplyItem:
    """What is drawn. frames_THWC: uint8, any size; times_s (T,); size_wh: of the original media, the unit of boxes.

    boxes: (4,) xyxy pixels each, drawn on every shown frame of an image and on the first of a video; spans_s: (k, 2);
    masks: (T, H, W) bool each, at any size. duration_s 0 for an image.
    """

    question: str
    text: str
    frames_THWC: np.ndarray
    times_s: np.ndarray
    duration_s: float
    size_wh: tuple[int, int]
    boxes: Sequence[np.ndarray]
    spans_s: np.ndarray
    masks: Sequence[np.ndarray]


def reply_card(item: ReplyItem) -> Image.Image:
    """The picture, CARD_WH pixels."""
    canvas = Canvas(*CARD_WH)
    width = canvas.width - 2 * MARGIN
    y = canvas.paragraph(MARGIN, MARGIN, item.question, BIG, width, 2)
    y = canvas.paragraph(MARGIN, y + 6, item.text or "(no answer)", MEDIUM, width, 3, MUTED) + 14
    bottom = float(canvas.height - MARGIN)
    if len(item.spans_s):
        bottom -= LANE + AXIS + 20
        _moments(canvas, item, bottom + 16)
    if len(item.frames_THWC):
        _frames(canvas, item, y, bottom)
    return canvas.finish()


def _frames(canvas: Canvas, item: ReplyItem, top: float, bottom: float) -> None:
    shown = _shown(item)
    slot = (canvas.width - 2 * MARGIN + GAP) / max(len(shown), 1)
    width, height = fit(item.size_wh, slot - GAP, bottom - top - 28)
    for place, index in enumerate(shown):
        picture = Picture(item.frames_THWC[index], width, height, item.size_wh)
        for masks_THW, colour in zip(item.masks, _colours(item.masks), strict=True):
            picture.fill(masks_THW[index], colour, 0.4)
            picture.contour(masks_THW[index], colour, 2.0)
        for box, colour in zip(item.boxes, _colours(item.boxes), strict=True):
            picture.box(box, colour, 3.0)
        x = MARGIN + place * slot + (slot - GAP - width) / 2
        canvas.paste(picture.image, x, top)
        if item.duration_s:
            canvas.text(x + width / 2, top + height + 14, f"{item.times_s[index]:.1f} s", SMALL, MUTED, "mm")


def _shown(item: ReplyItem) -> list[int]:
    """Frames at equal distances; those inside the first moment where that is all that was found; one for a box."""
    numbers = np.arange(len(item.times_s))
    if len(item.boxes) and not len(item.masks):
        return [int(numbers[len(numbers) // 2])]
    if len(item.spans_s) and not len(item.masks):
        start, end = item.spans_s[0]
        inside = numbers[(item.times_s >= start) & (item.times_s <= end)]
        numbers = inside if len(inside) else numbers
    count = min(COLUMNS, len(numbers))
    return [int(numbers[i]) for i in np.linspace(0, len(numbers) - 1, count).round().astype(int)]


def _colours(found: Sequence[np.ndarray]) -> list[tuple[int, int, int]]:
    return [COLOURS[number % len(COLOURS)] for number in range(len(found))]


def _moments(canvas: Canvas, item: ReplyItem, y: float) -> None:
    left, right = float(MARGIN + LANE_LABELS), float(canvas.width - MARGIN)
    canvas.text(MARGIN, y + LANE / 2, "moment", SMALL, INK, "lm")
    canvas.rectangle((left, y, right, y + LANE), fill=PANEL, round_=5)
    for start, end in np.clip(item.spans_s[:1] / item.duration_s, 0, 1) * (right - left) + left:
        canvas.rectangle((start, y, max(end, start + 3), y + LANE), fill=PREDICTION, round_=5)
    start, end = item.spans_s[0]
    canvas.text(left, y - 11, f"{start:.1f} to {end:.1f} s", SMALL, INK, "lm")
    time_axis(canvas, left, right, y + LANE + 4, item.duration_s)
