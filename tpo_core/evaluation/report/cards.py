"""What the page shows of one answer: frames, a time line of moments, the words, the score."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from tpo_core.evaluation.report.entries import Row
from tpo_core.evaluation.report.footage import Footage, FootageOf
from tpo_core.evaluation.report.pictures import Shown, seconds, shown_frames

MOST_CHARS = 600
MOST_SPANS, MOST_SCORES = 20, 4
DRAWN = ("region", "moment", "mask", "track")  # tasks whose truth is seen and need not be told


@dataclass(frozen=True)
class Bar:
    """A moment on the time line, in percent of it."""

    left: float
    width: float


@dataclass(frozen=True)
class Lane:
    """Moments of one kind ("truth" or "prediction"), and their times in words."""

    kind: str
    bars: list[Bar]
    told: str


@dataclass(frozen=True)
class Card:
    """One answer. `truth` is empty where it is drawn; `missing` says why there are no frames, empty if there are."""

    sample_id: str
    scores: str
    question: str
    answer: str
    truth: str
    failure: str
    frames: list[Shown]
    missing: str
    lanes: list[Lane]
    duration_s: float


def make_card(entry: str, row: Row, footage_of: FootageOf | None) -> Card:
    """The card of a row of an entry. footage_of raises KeyError for a sample that it does not have."""
    found, missing = _footage(entry, row.sample_id, footage_of)
    frames = [] if found is None else shown_frames(row, found)
    lanes, duration_s = time_line(row, found)
    return Card(
        sample_id=cut(row.sample_id),
        scores="  ".join(f"{name} {_score(value)}" for name, value in islice(row.scores.items(), MOST_SCORES)),
        question=cut(row.request),
        answer=cut(row.answer),
        truth="" if row.task in DRAWN else cut(_words(row.truth)),
        failure=row.failure or "",
        frames=frames,
        missing=missing,
        lanes=lanes,
        duration_s=duration_s,
    )


def _footage(entry: str, sample_id: str, footage_of: FootageOf | None) -> tuple[Footage | None, str]:
    if footage_of is None:
        return None, ""
    try:
        return footage_of(entry, sample_id), ""
    except KeyError:
        return None, "no frames: the data at hand have no such sample"


def time_line(row: Row, footage: Footage | None) -> tuple[list[Lane], float]:
    """True and predicted moments, and the end of the line in seconds: that of the media, or of the last moment. No line
    for a row that is not about moments."""
    if row.task == "moment":
        true, found = as_spans(row.truth), as_spans(row.prediction)
    elif row.task == "grounded_choice":
        true, found = as_spans(_part(row.truth, "spans_s")), as_spans(_part(row.prediction, "span_s"))
    else:
        return [], 0.0
    ends = [float(spans[:, 1].max()) for spans in (true, found) if len(spans)]
    duration_s = footage.duration_s if footage is not None and footage.duration_s else max(ends, default=0.0)
    if duration_s <= 0:
        return [], 0.0
    return [_lane("truth", true, duration_s), _lane("prediction", found, duration_s)], duration_s


def _lane(kind: str, spans_k2: np.ndarray, duration_s: float) -> Lane:
    placed = np.clip(spans_k2 / duration_s, 0.0, 1.0) * 100
    bars = [Bar(round(float(start), 2), round(max(float(end - start), 0.5), 2)) for start, end in placed]
    told = ", ".join(f"{seconds(start, duration_s)} to {seconds(end, duration_s)} s" for start, end in spans_k2[:3])
    return Lane(kind, bars, told or "none")


def as_spans(value: Any) -> np.ndarray:
    """(k, 2) seconds, start before end; (0, 2) for null, and without what is no moment. At most MOST_SPANS."""
    try:
        spans = np.asarray([] if value is None else value, np.float64)
    except (TypeError, ValueError):
        return np.empty((0, 2))
    if spans.ndim not in (1, 2) or spans.shape[-1] < 2:
        return np.empty((0, 2))
    spans = spans.reshape(-1, spans.shape[-1])[:, :2]
    return spans[np.isfinite(spans).all(axis=1) & (spans[:, 0] <= spans[:, 1])][:MOST_SPANS]


def _part(value: Any, name: str) -> Any:
    """A part of a truth or prediction that has several."""
    return value.get(name) if isinstance(value, dict) else None


def _words(value: Any) -> str:
    value = value.get("answer") if isinstance(value, dict) else value
    return "" if value is None else str(value)


def _score(value: float | None) -> str:
    return "n/a" if value is None or not math.isfinite(value) else f"{value:.2f}"


def cut(text: str) -> str:
    """Text of at most MOST_CHARS, which says how much more there was."""
    more = len(text) - MOST_CHARS
    return text if more <= 0 else f"{text[:MOST_CHARS].rstrip()} ... ({more:,} more characters)"
