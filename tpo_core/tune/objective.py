"""What a trial is worth: tasks against the run with unit weights, and no worse at talking than the base."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

LEAST_UNIT = 0.01  # a metric at which the unit-weight run is lower counts as this there: no division by nothing
# More than so many times what the unit-weight run got counts as that many. A metric in [0, 1] that this run brings to
# a fifth never comes there, and one that it leaves near nothing still earns five times its share, but not thirty.
MOST_RATIO = 5.0
FAILED = -2.0  # below what any shortfall of a metric in [0, 1] gives

Metrics = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Objective:
    """metrics: names, higher is better. unit: what the run with all searched weights at 1 got, at its end. qa: name of
    the metric of general ability; qa_floor: the least of it that a winner may have."""

    metrics: tuple[str, ...]
    unit: Metrics
    qa: str
    qa_floor: float

    def score(self, measured: Metrics) -> float:
        """The mean of the metrics, each divided by that of the unit-weight run, MOST_RATIO at most; 1 is as good as
        that one."""
        ratios = [min(measured[name] / max(self.unit[name], LEAST_UNIT), MOST_RATIO) for name in self.metrics]
        return sum(ratios) / len(ratios)

    def is_complete(self, measured: Metrics) -> bool:
        """Whether all that counts was measured, as numbers: nothing is where training failed."""
        return all(math.isfinite(measured.get(name, math.nan)) for name in (*self.metrics, self.qa))

    def keeps_qa(self, measured: Metrics) -> bool:
        """Whether the constraint holds."""
        return measured[self.qa] >= self.qa_floor

    def value(self, measured: Metrics) -> float:
        """What search and scheduler maximise: the score where the constraint holds, else how far it is broken, below
        zero, so that every trial that keeps it is above all that do not. FAILED for one that is not complete."""
        if not self.is_complete(measured):
            return FAILED
        return self.score(measured) if self.keeps_qa(measured) else measured[self.qa] - self.qa_floor

    def values(self, measured: Metrics) -> dict[str, float]:
        """value, score and qa, as trials report them."""
        score, qa = (self.score(measured), measured[self.qa]) if self.is_complete(measured) else (0.0, 0.0)
        return {"objective": self.value(measured), "score": score, "qa": qa}


def front(points: Sequence[tuple[float, float]]) -> list[int]:
    """The places of the points that no other one beats in both numbers, in order of the first number."""
    best = [
        place
        for place, (x, y) in enumerate(points)
        if not any(u >= x and v >= y and (u, v) != (x, y) for u, v in points)
    ]
    return sorted(best, key=lambda place: points[place])
