"""Whether a challenger may be promoted: pure comparisons of what two models were measured at.

The rule of a gate, all of whose parts must hold:

- value >= min_value, and value <= max_value;
- without worst_drop: value >= reference - max_drop;
- with worst_drop, of the 95 % interval of the paired difference over samples: its upper end >= -max_drop, and its lower
  end >= -worst_drop. So a model that is no worse than max_drop allows is refused for a drop in at most 2.5 % of the
  evaluations one could have drawn, and one that is worse by more than worst_drop passes in at most 2.5 %, however few
  samples there are: noise does neither. Between the two drops either answer is right. Too few samples to exclude
  worst_drop refuse, and the reason says how many would do: about 3.7 / worst_drop where no sample differs.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tpo_core.config.schema import GateConfig
from tpo_core.tracking.paired import Difference, difference

TAIL = 0.025  # beyond each end of the interval
SIGMAS = 1.96  # of the normal law, to that tail
ROUNDING = 1e-6  # by which an IoU may leave 0 to 1


@dataclass(frozen=True)
class Measured:
    """What a model was measured at. samples: for metrics that are means over samples, the value of each of these."""

    metrics: Mapping[str, float]
    samples: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class GateResult:
    """One gate. value, reference: None where there is no such number; reason: why it holds or fails, for people.

    low, high: the 95 % interval of value - reference over samples, where it was asked for.
    """

    metric: str
    value: float | None
    reference: float | None
    ok: bool
    reason: str
    low: float | None = None
    high: float | None = None


def check(gates: Iterable[GateConfig], challenger: Measured, reference: Measured | None) -> list[GateResult]:
    """One result a gate, in order, by the rule above.

    `reference` None means that there is nothing to compare with: then the absolute bounds decide alone. A metric that
    is missing or not finite, in the challenger or in a reference that is given, fails.
    """
    return [_check(gate, challenger, reference) for gate in gates]


def _check(gate: GateConfig, challenger: Measured, reference: Measured | None) -> GateResult:
    value, value_problem = _number(challenger.metrics, gate.metric)
    if gate.max_value is not None:
        return _ceiling(gate, value, value_problem)
    other, other_problem = (None, None) if reference is None else _number(reference.metrics, gate.metric)
    if value is None:
        return GateResult(gate.metric, value, other, False, f"challenger: {value_problem}")
    if other_problem is not None:
        return GateResult(gate.metric, value, other, False, f"{gate.against}: {other_problem}")
    if gate.min_value is not None and value < gate.min_value:
        short = f"below the floor {gate.min_value:g} by {gate.min_value - value:.4f}"
        return GateResult(gate.metric, value, other, False, short)
    if other is None or reference is None:
        return GateResult(gate.metric, value, other, True, "nothing to compare with")
    if gate.worst_drop is not None:
        return _paired(gate, value, other, challenger, reference)
    floor = other - gate.max_drop
    ok = value >= floor
    reason = f"at least {floor:.4f}" if ok else f"below {floor:.4f} by {floor - value:.4f}"
    return GateResult(gate.metric, value, other, ok, reason)


def _ceiling(gate: GateConfig, value: float | None, problem: str | None) -> GateResult:
    assert gate.max_value is not None
    if value is None:
        return GateResult(gate.metric, value, None, False, f"challenger: {problem}")
    ok = value <= gate.max_value
    over = f"above the ceiling {gate.max_value:g} by {value - gate.max_value:.4f}"
    return GateResult(gate.metric, value, None, ok, f"at most {gate.max_value:g}" if ok else over)


def _paired(gate: GateConfig, value: float, other: float, challenger: Measured, reference: Measured) -> GateResult:
    mine, theirs = challenger.samples.get(gate.metric), reference.samples.get(gate.metric)
    if not mine or not theirs:
        whose = "the challenger" if not mine else f"the {gate.against}"
        lost = f"no values by sample of {whose}: measure and register it again, or leave out worst_drop"
        return GateResult(gate.metric, value, other, False, lost)
    for whose, samples in (("challenger", mine), (gate.against, theirs)):
        if odd := [key for key, one in samples.items() if not -ROUNDING <= one <= 1 + ROUNDING]:
            told = f"{whose}: {len(odd)} of {len(samples)} samples are not from 0 to 1, {odd[0]} is {samples[odd[0]]}"
            return GateResult(gate.metric, value, other, False, f"{told}: measure and register it again")
    found = difference(mine, theirs)
    if found is None:
        asked = f"the {gate.against} answered other samples: measure and register both on one evaluation"
        return GateResult(gate.metric, value, other, False, asked)
    ok, reason = _verdict(gate, found)
    return GateResult(gate.metric, value, other, ok, reason, found.low, found.high)


def _verdict(gate: GateConfig, found: Difference) -> tuple[bool, str]:
    assert gate.worst_drop is not None
    if found.samples < gate.min_samples:
        return False, f"{found.samples} samples, fewer than the {gate.min_samples} that are asked for"
    interval = f"{found.mean:+.4f} [{found.low:+.4f}, {found.high:+.4f}] over {found.samples} samples"
    if found.high < -gate.max_drop:
        return False, f"dropped by more than {gate.max_drop:g} allows, by {-gate.max_drop - found.high:.4f}: {interval}"
    if found.low >= -gate.worst_drop:
        return True, f"no drop beyond {gate.worst_drop:g}: {interval}"
    short = f"cannot exclude a drop of {gate.worst_drop:g}, by {-gate.worst_drop - found.low:.4f}: {interval}"
    return False, short + _more_samples(found, gate.worst_drop)


def _more_samples(found: Difference, worst_drop: float) -> str:
    """How many samples would do if mean and spread stayed: what was seen reaches down by SIGMAS x spread / root of the
    count, and what was not by -log(TAIL) / count, which is all of it where no sample differs."""
    room, unseen, seen = found.mean + worst_drop, -math.log(TAIL), SIGMAS * found.spread
    if room <= 0:
        return ""
    root = (seen + math.sqrt(seen**2 + 4 * room * unseen)) / (2 * room)
    return f"; about {max(math.ceil(root**2), found.samples + 1)} samples would"


def _number(metrics: Mapping[str, float], name: str) -> tuple[float | None, str | None]:
    """The metric, or None and what is wrong with it."""
    if name not in metrics:
        return None, "not measured"
    return (metrics[name], None) if math.isfinite(metrics[name]) else (None, f"is {metrics[name]}")
