"""Whether a challenger may be promoted: pure comparisons of numbers, higher being better."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tpo_core.config.schema import GateConfig


@dataclass(frozen=True)
class GateResult:
    """One gate. value, reference: None where there is no such number; reason: why it holds or fails, for people."""

    metric: str
    value: float | None
    reference: float | None
    ok: bool
    reason: str


def check(
    gates: Iterable[GateConfig], challenger: Mapping[str, float], reference: Mapping[str, float] | None
) -> list[GateResult]:
    """One result a gate, in order. A gate holds if value >= min_value and value >= reference - max_drop.

    `reference` None means that there is nothing to compare with: then min_value alone decides. A metric that is missing
    or not finite, in the challenger or in a reference that is given, fails.
    """
    return [_check(gate, challenger, reference) for gate in gates]


def _check(gate: GateConfig, challenger: Mapping[str, float], reference: Mapping[str, float] | None) -> GateResult:
    value, value_problem = _number(challenger, gate.metric)
    other, other_problem = (None, None) if reference is None else _number(reference, gate.metric)
    if value is None:
        return GateResult(gate.metric, value, other, False, f"challenger: {value_problem}")
    if other_problem is not None:
        return GateResult(gate.metric, value, other, False, f"{gate.against}: {other_problem}")
    if gate.min_value is not None and value < gate.min_value:
        return GateResult(gate.metric, value, other, False, f"below the floor {gate.min_value:g}")
    if other is None:
        return GateResult(gate.metric, value, other, True, "nothing to compare with")
    floor = other - gate.max_drop
    ok = value >= floor
    return GateResult(gate.metric, value, other, ok, f"{'at least' if ok else 'below'} {floor:.4f}")


def _number(metrics: Mapping[str, float], name: str) -> tuple[float | None, str | None]:
    """The metric, or None and what is wrong with it."""
    if name not in metrics:
        return None, "not measured"
    return (metrics[name], None) if math.isfinite(metrics[name]) else (None, f"is {metrics[name]}")
