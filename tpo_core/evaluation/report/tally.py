"""One pass over the rows of an entry: curves over thresholds by dataset, means, failures, and the ranks for a gallery.

A curve is a mean over samples of what each sample gives at every threshold, so a failure counts as a sample with
nothing. These are pictures of the distribution; the official numbers come from the scorer of the benchmark.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tpo_core.evaluation.report.choice import rank
from tpo_core.evaluation.report.entries import Row
from tpo_core.evaluation.report.tracks import boxes_T4, centre_errors
from tpo_core.metrics import boxes

ALL = "all"
MOST_LINES = 6  # datasets with a line of their own, the largest ones
OVERLAPS = np.linspace(0.05, 1.0, 20)
DISTANCES = np.linspace(0.025, 0.5, 20)  # in sizes of the object


@dataclass(frozen=True)
class Line:
    """A curve of `n` samples: shares_K in [0, 1] at the thresholds of its chart. mean: of the plain score, or None."""

    label: str
    n: int
    mean: float | None
    shares_K: np.ndarray


@dataclass(frozen=True)
class Chart:
    """Curves over one threshold, thresholds_K ascending."""

    title: str
    x_label: str
    y_label: str
    thresholds_K: np.ndarray
    lines: list[Line]


@dataclass(frozen=True, eq=False)
class Kind:
    """A chart that a task has. curve(row): the shares of one sample and its plain score, None where not measured."""

    title: str
    x_label: str
    y_label: str
    thresholds_K: np.ndarray
    curve: Callable[[Row], tuple[np.ndarray, float | None] | None]


@dataclass
class Tally:
    """What the rows of an entry add up to. ranks: (rank, sample id, number of the row); unranked without the rank."""

    rows: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    ranks: list[tuple[float, str, int]] = field(default_factory=list)
    unranked: list[tuple[str, int]] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    shares: list[Line] = field(default_factory=list)  # mean scores by dataset, of tasks without a chart


def tally(rows: Iterable[Row]) -> Tally:
    """Goes through the rows once."""
    found = Tally()
    curves: dict[Kind, Groups] = defaultdict(Groups)
    plain = Groups()
    for number, row in enumerate(rows):
        found.rows += 1
        found.failures.update([row.failure] if row.failure else [])
        if (score := rank(row)) is not None:
            found.ranks.append((score, row.sample_id, number))
        else:
            found.unranked.append((row.sample_id, number))
        for kind in KINDS.get(row.task, ()):
            curves[kind].add(row, kind.curve(row))
        if row.task not in KINDS and score is not None:
            plain.add(row, (np.array([score]), score))
    found.charts = [
        Chart(kind.title, kind.x_label, kind.y_label, kind.thresholds_K, groups.lines())
        for kind, groups in curves.items()
        if groups.counts
    ]
    found.shares = plain.lines()
    return found


class Groups:
    """Sums of curves by dataset."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._curves: dict[str, Any] = {}
        self._scores: dict[str, list[float]] = defaultdict(list)

    def add(self, row: Row, measured: tuple[np.ndarray, float | None] | None) -> None:
        """Counts a sample, unless nothing could be measured on it."""
        if measured is None:
            return
        shares_K, score = measured
        dataset = row.sample_id.split("/", 1)[0]
        self.counts[dataset] += 1
        self._curves[dataset] = self._curves.get(dataset, 0.0) + shares_K
        self._scores[dataset] += [] if score is None else [score]

    def lines(self) -> list[Line]:
        """All samples first, then the largest datasets if there are several."""
        if not self.counts:
            return []
        shown = [name for name, _ in self.counts.most_common(MOST_LINES)] if len(self.counts) > 1 else []
        return [self._line(ALL, list(self.counts)), *(self._line(name, [name]) for name in shown)]

    def _line(self, label: str, datasets: list[str]) -> Line:
        n = sum(self.counts[name] for name in datasets)
        scores = [score for name in datasets for score in self._scores[name]]
        mean = float(np.mean(scores)) if scores else None
        return Line(label, n, mean, sum(self._curves[name] for name in datasets) / n)


def _over(name: str) -> Callable[[Row], tuple[np.ndarray, float | None] | None]:
    """The curve of a score in [0, 1]: 1 at the thresholds that it reaches."""

    def curve(row: Row) -> tuple[np.ndarray, float | None] | None:
        score = row.scores.get(name)
        if score is None and row.failure:
            score = 0.0
        if score is None or not math.isfinite(score):
            return None
        return (score >= OVERLAPS - 1e-9).astype(float), score

    return curve


def _success(row: Row) -> tuple[np.ndarray, float | None] | None:
    """Shares of the visible frames whose IoU reaches each threshold; of a track that is not in the row, its score."""
    pair = boxes_T4(row)
    if pair is None:
        return _over("iou")(row)
    found, true = pair
    overlaps = boxes.iou(found, true)
    return (overlaps[:, None] >= OVERLAPS - 1e-9).mean(axis=0), float(overlaps.mean())


def _precision(row: Row) -> tuple[np.ndarray, float | None] | None:
    pair = boxes_T4(row)
    if pair is None:
        return (np.zeros(len(DISTANCES)), None) if row.failure and not row.scores else None
    return (centre_errors(*pair)[:, None] <= DISTANCES + 1e-9).mean(axis=0), None


SHARE = "share of samples"
MOMENTS = (Kind("Recall at 1 over tIoU", "temporal IoU at least", SHARE, OVERLAPS, _over("iou")),)
KINDS: Mapping[str, tuple[Kind, ...]] = {
    "region": (Kind("Accuracy over IoU", "IoU at least", SHARE, OVERLAPS, _over("iou")),),
    "moment": MOMENTS,
    "grounded_choice": MOMENTS,
    "mask": (
        Kind("Masks over J", "J (region similarity) at least", SHARE, OVERLAPS, _over("j")),
        Kind("Masks over F", "F (boundary accuracy) at least", SHARE, OVERLAPS, _over("f")),
    ),
    "track": (
        Kind("Success over IoU", "IoU at least", "share of frames", OVERLAPS, _success),
        Kind("Precision over distance", "centre error at most, in sizes of the object", "share of frames", DISTANCES,
             _precision),
    ),
}  # fmt: skip
