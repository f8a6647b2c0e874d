"""What decides after each rung whether a trial goes on: Ray Tune's schedulers, with what they lack when trials fail or
a search is restored."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, PopulationBasedTraining, TrialScheduler

from tpo_core.config.sweep import SweepConfig

VALUE, MODE = "objective", "max"

Reported = Callable[[str], Sequence[tuple[int, float]]]  # by the name of a trial: its rounds, as (step, value)


def scheduler_of(config: SweepConfig, rungs: Sequence[int], reported: Reported) -> TrialScheduler:
    """As the recipe says. reported: picklable; what the book knows of a trial."""
    if config.scheduler == "asha":
        return Halving(
            reported, time_attr="step", metric=VALUE, mode=MODE, max_t=rungs[-1], grace_period=rungs[0],
            reduction_factor=config.reduction_factor,
        )  # fmt: skip
    if config.scheduler == "pbt":
        return Population(
            time_attr="training_iteration", metric=VALUE, mode=MODE, perturbation_interval=1,
            hyperparam_mutations=domains(config), custom_explore_fn=Clip(config.space),
            synch=True,  # all wait at a rung: who comes first there would otherwise find nobody to learn from
        )  # fmt: skip
    return FIFOScheduler()


def domains(config: SweepConfig) -> dict[str, Any]:
    """The space as Tune has it."""
    return {name: tune.loguniform(low, high) for name, (low, high) in config.space.items()}


@dataclass(frozen=True)
class Clip:
    """Keeps weights that PBT has changed within their bounds."""

    space: dict[str, tuple[float, float]]

    def __call__(self, config: dict[str, Any]) -> dict[str, Any]:
        return config | {name: min(max(config[name], low), high) for name, (low, high) in self.space.items()}


class Halving(ASHAScheduler):
    """ASHA that knows, in a search that is restored, what trials had at their rungs: Ray does not save that, and the
    first to come to an empty rung always goes on."""

    def __init__(self, reported: Reported, **how: Any) -> None:
        super().__init__(**how)
        self._reported = reported

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Rounds that it reported before; one that it is still to report is decided about then."""
        super().on_trial_add(tune_controller, trial)
        told = trial.run_metadata.last_result.get("step", 0)
        for step, value in self._reported(trial.trial_id) if told else ():
            if step <= told:
                self._trial_info[trial.trial_id].on_result(trial, step, value)


class Population(PopulationBasedTraining):
    """PBT in which nobody waits at a rung for a trial that is gone.

    Ray's lets the last one that comes to a rung wake the others. It counts a trial that failed as still to come, wakes
    nobody when the last to come fails, and nobody again after a restore, which sets its own count of rungs back.
    """

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """See Ray's; whoever is alive has a next rung to come to."""
        decision = super().on_trial_result(tune_controller, trial, result)
        if self._all_wait(living := tune_controller.get_live_trials()):
            self._next_perturbation_sync = 1 + max(self._trial_state[each].last_train_time for each in living)
        return decision

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Nobody learns from it or waits for it."""
        self._leave(tune_controller, trial)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Nobody waits for it."""
        self._leave(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Nobody waits for it."""
        self._leave(tune_controller, trial)

    def _leave(self, tune_controller: Any, trial: Any) -> None:
        living = tune_controller.get_live_trials()
        living.discard(trial)  # the controller's own set, in which it leaves trials that failed
        self._trial_state[trial].last_score = None  # else it may be among the best or the worst of the rung
        if self._all_wait(living):
            last = max(living, key=lambda each: self._trial_state[each].last_train_time)
            result = self._trial_state[last].last_result
            assert result is not None, "it came to a rung"
            self.on_trial_result(tune_controller, last, result)

    def _all_wait(self, living: set[Any]) -> bool:
        """Whether none of them has a rung to come to before the next exchange."""
        times = [self._trial_state[each].last_train_time for each in living]
        return bool(times) and min(times) >= self._next_perturbation_sync
