"""Draws held-out predictions beside the truth: one PNG an answer, and one sheet of them all."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tpo_core.evaluation.canvas import (
    INK,
    MUTED,
    PANEL,
    PREDICTION,
    RULE,
    SCALE,
    TRUTH,
    Canvas,
    Picture,
    text_width,
)

CARD_WH = (1200, 680)
MARGIN, GAP = 36, 14
BIG, MEDIUM, SMALL = 27.0, 21.0, 18.0
SHEET_CARDS, SHEET_COLUMNS, SHEET_GAP = 12, 3, 18
SHEET_CARD_WH = (720, 408)
TRACK_FRAMES, FILM_FRAMES = 4, 6
LANE_LABELS = 116  # width of the column in front of the time bars


@dataclass(frozen=True)
class GalleryItem:
    """One answer to draw.

    kind: "region", "moment", "mask" or "track". frames_THWC: uint8, any size; times_s: (T,) seconds. size_wh: of the
    original media, the unit of boxes. truth and prediction by kind, prediction None where the model called no head:
    region (4,) xyxy pixels; moment (k, 2) seconds; mask (T, H, W) bool; track (T, 4) xyxy pixels, NaN where absent.
    """

    kind: str
    title: str
    question: str
    answer_text: str
    frames_THWC: np.ndarray
    times_s: np.ndarray
    size_wh: tuple[int, int]
    truth: np.ndarray
    prediction: np.ndarray | None
    score: str


def gallery(items: Sequence[GalleryItem], out_dir: Path) -> list[Path]:
    """Writes `01_region.png`, ... and `gallery.png`, a sheet of the first twelve. Returns all paths, the sheet last."""
    if not items:
        return []
    out_dir.mkdir(parents=True, exist_ok=True)
    paths, cards = [], []
    for number, item in enumerate(items, start=1):
        cards.append(card(item))
        paths.append(out_dir / f"{number:02d}_{item.kind}.png")
        cards[-1].save(paths[-1])
    sheet(cards[:SHEET_CARDS]).save(out_dir / "gallery.png")
    return [*paths, out_dir / "gallery.png"]


def card(item: GalleryItem) -> Image.Image:
    """The picture of one answer, CARD_WH pixels."""
    canvas = Canvas(*CARD_WH)
    {"region": _region, "moment": _moment, "mask": _frames, "track": _frames}[item.kind](canvas, item)
    return canvas.finish()


def sheet(cards: Sequence[Image.Image]) -> Image.Image:
    """Cards in rows of three, on grey."""
    (width, height), gap = SHEET_CARD_WH, SHEET_GAP
    columns = min(SHEET_COLUMNS, len(cards))
    rows = -(-len(cards) // columns)
    page = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), RULE)
    for number, one in enumerate(cards):
        row, column = divmod(number, columns)
        small = one.resize(SHEET_CARD_WH, Image.Resampling.LANCZOS)
        page.paste(small, (gap + column * (width + gap), gap + row * (height + gap)))
    return page


def _region(canvas: Canvas, item: GalleryItem) -> None:
    """The frame on the left, words on the right."""
    top, side = MARGIN, canvas.height - 2 * MARGIN
    canvas.rectangle((MARGIN, top, MARGIN + side, top + side), fill=PANEL)
    width, height = fit(item.size_wh, side, side)
    picture = Picture(item.frames_THWC[0], width, height, item.size_wh)
    picture.box(item.truth, TRUTH, 3.5)
    if item.prediction is not None:
        picture.box(item.prediction, PREDICTION, 3.5)
    canvas.paste(picture.image, MARGIN + (side - width) / 2, top + (side - height) / 2)
    x = MARGIN + side + MARGIN
    width = canvas.width - MARGIN - x
    _chip(canvas, x, top, item.kind)
    y = canvas.paragraph(x, top + 60, item.question, BIG, width, 7)
    y = canvas.paragraph(x, y + 14, item.answer_text or "(no answer)", MEDIUM, width, 6, MUTED)
    canvas.line(x, canvas.height - MARGIN - 82, x + width, canvas.height - MARGIN - 82, RULE)
    canvas.paragraph(x, canvas.height - MARGIN - 68, item.score, MEDIUM, width, 1)
    canvas.legend(x, canvas.height - MARGIN - 12, _legend(item, "", ""), SMALL)


def _header(canvas: Canvas, item: GalleryItem) -> float:
    """Kind, score, question and answer over the whole width; returns the y below."""
    width = canvas.width - 2 * MARGIN
    _chip(canvas, MARGIN, MARGIN, item.kind)
    canvas.text(canvas.width - MARGIN, MARGIN + 17, item.score, MEDIUM, INK, "rm")
    y = canvas.paragraph(MARGIN, MARGIN + 52, item.question, BIG, width, 2)
    return canvas.paragraph(MARGIN, y + 6, item.answer_text or "(no answer)", MEDIUM, width, 2, MUTED) + 18


def _moment(canvas: Canvas, item: GalleryItem) -> None:
    """A film strip on a time axis, the true moments and the predicted one below it."""
    top = _header(canvas, item)
    left, right = MARGIN + LANE_LABELS, canvas.width - MARGIN
    found = np.empty((0, 2)) if item.prediction is None else np.asarray(item.prediction, np.float64).reshape(-1, 2)
    true = np.asarray(item.truth, np.float64).reshape(-1, 2)
    duration_s = _duration_s(item.times_s, np.concatenate([true, found]))
    lane, axis = 30, 34
    bottom = canvas.height - MARGIN - 42
    room = bottom - axis - 2 * (lane + 8) - 12 - top
    slot = (right - left) / FILM_FRAMES
    width, height = fit(item.size_wh, slot - 4, room)
    y = top + 0.75 * (room - height)
    for number in range(FILM_FRAMES):
        middle_s = (number + 0.5) / FILM_FRAMES * duration_s
        frame = item.frames_THWC[int(np.argmin(np.abs(item.times_s - middle_s)))]
        picture = Picture(frame, width, height, item.size_wh)
        canvas.paste(picture.image, left + number * slot + (slot - width) / 2, y)
    y = bottom - axis - 2 * (lane + 8)
    for name, spans, colour in (("truth", true, TRUTH), ("prediction", found, PREDICTION)):
        canvas.text(MARGIN, y + lane / 2, name, SMALL, INK, "lm")
        canvas.rectangle((left, y, right, y + lane), fill=PANEL, round_=5)
        for start, end in np.clip(spans / duration_s, 0, 1) * (right - left) + left:
            canvas.rectangle((start, y, max(end, start + 3), y + lane), fill=colour, round_=5)
        y += lane + 8
    time_axis(canvas, left, right, y + 2, duration_s)
    canvas.legend(MARGIN, canvas.height - MARGIN - 8, _legend(item, _spans_text(true), _spans_text(found)), SMALL)


def _frames(canvas: Canvas, item: GalleryItem) -> None:
    """Four frames with masks or boxes."""
    top = _header(canvas, item)
    bottom = canvas.height - MARGIN - 68
    slot = (canvas.width - 2 * MARGIN + GAP) / TRACK_FRAMES
    width, height = fit(item.size_wh, slot - GAP, bottom - top)
    shown = _frames_to_show(item)
    start = MARGIN + (TRACK_FRAMES - len(shown)) * slot / 2
    y = top + (bottom - top - height) / 2
    for number, index in enumerate(shown):
        picture = Picture(item.frames_THWC[index], width, height, item.size_wh)
        if item.kind == "mask":
            if item.prediction is not None:
                picture.fill(item.prediction[index], PREDICTION, 0.45)
                picture.contour(item.prediction[index], PREDICTION, 2.0)
            picture.contour(item.truth[index], TRUTH, 2.0)
        else:
            for boxes, colour in ((item.truth, TRUTH), (item.prediction, PREDICTION)):
                if boxes is not None and not np.isnan(boxes[index]).any():
                    picture.box(boxes[index], colour, 2.5)
        x = start + number * slot + (slot - GAP - width) / 2
        canvas.paste(picture.image, x, y)
        canvas.text(x + width / 2, y + height + 16, f"{item.times_s[index]:.2f} s", SMALL, MUTED, "mm")
    canvas.legend(MARGIN, canvas.height - MARGIN - 8, _legend(item, "", ""), SMALL)


def _chip(canvas: Canvas, x: float, y: float, kind: str) -> None:
    width = text_width(kind, MEDIUM) + 32
    canvas.rectangle((x, y, x + width, y + 34), fill=INK, round_=17)
    canvas.text(x + width / 2, y + 16, kind, MEDIUM, (255, 255, 255), "mm")


def _legend(item: GalleryItem, truth_text: str, found_text: str) -> list[tuple[tuple[int, int, int], str]]:
    found = "no prediction: the model called no head" if item.prediction is None else f"prediction {found_text}"
    return [(TRUTH, f"truth {truth_text}".rstrip()), (PREDICTION, found.rstrip())]


def time_axis(canvas: Canvas, left: float, right: float, y: float, duration_s: float) -> None:
    """Ticks at round seconds, five to ten of them."""
    step_s = next(s for s in _round_steps() if duration_s / s <= 10)
    canvas.line(left, y, right, y, MUTED)
    for number in range(int(duration_s / step_s + 1e-9) + 1):
        x = left + number * step_s / duration_s * (right - left)
        canvas.line(x, y, x, y + 6, MUTED)
        canvas.text(x, y + 18, f"{number * step_s:g}", SMALL - 2, MUTED, "mm")
    canvas.text(MARGIN, y + 18, "seconds", SMALL - 2, MUTED, "lm")


def _round_steps() -> list[float]:
    return [base * 10.0**power for power in range(-2, 6) for base in (1, 2, 5)]


def _duration_s(times_s: np.ndarray, spans_s: np.ndarray) -> float:
    """End of the axis: frames lie at the middle of equal intervals, so the last one ends as long after its frame as the
    first begins before; never before the end of a moment."""
    return max(float(times_s[-1] + times_s[0]), float(np.max(spans_s, initial=0.0)), 1e-3)


def _spans_text(spans_s: np.ndarray) -> str:
    return ", ".join(f"{start:.1f} to {end:.1f} s" for start, end in spans_s[:3])


def _frames_to_show(item: GalleryItem) -> list[int]:
    """Up to four frame numbers at equal distances, of those where the truth is there if there are enough."""
    truth = np.asarray(item.truth)
    present = truth.any(axis=(1, 2)) if item.kind == "mask" else ~np.isnan(truth).any(axis=1)
    numbers = np.flatnonzero(present) if present.sum() >= TRACK_FRAMES else np.arange(len(truth))
    count = min(TRACK_FRAMES, len(numbers))
    return [int(numbers[i]) for i in np.linspace(0, len(numbers) - 1, count).round().astype(int)]


def fit(size_wh: tuple[int, int], width: float, height: float) -> tuple[float, float]:
    """The largest size of this shape within width x height, in whole pixels of the drawing."""
    factor = min(width / size_wh[0], height / size_wh[1])
    return round(size_wh[0] * factor * SCALE) / SCALE, round(size_wh[1] * factor * SCALE) / SCALE
