"""watched(steps, phases): the steps of a chain, each of which tells Prometheus that it runs.

The gauges live in the driver, so they say what the chain is at even while no worker of a phase lives to say more.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Any

from ray.util.metrics import Gauge

from tpo_core.execution.steps import Step, StepContext

STEP, PHASE = "tpo_chain_step_running", "tpo_chain_phase_running"


def watched(steps: Sequence[Step], phases: Collection[str]) -> list[Step]:
    """The same steps. While one runs, `tpo_chain_step_running{step}` is 1, and `tpo_chain_phase_running{phase}` too if
    it is one of `phases`, which log rows (tpo_core.train.prometheus); 0 before and after. Needs a Ray that is
    initialised when a step runs."""
    return [replace(step, fn=_told(step, step.name in phases)) for step in steps]


def _told(step: Step, is_phase: bool) -> Callable[[StepContext], dict[str, Any]]:
    def run(ctx: StepContext) -> dict[str, Any]:
        gauges = [(Gauge(STEP, "whether a step of the chain runs", ("step",)), {"step": step.name})]
        if is_phase:
            gauges.append((Gauge(PHASE, "whether a phase runs, or waits for nodes", ("phase",)), {"phase": step.name}))
        _set(gauges, 1)
        try:
            return step.fn(ctx)
        finally:
            _set(gauges, 0)

    return run


def _set(gauges: Sequence[tuple[Gauge, dict[str, str]]], value: float) -> None:
    for gauge, tags in gauges:
        gauge.set(value, tags)
