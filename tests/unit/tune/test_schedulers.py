"""What decides at a rung, over trials that nobody runs: nobody waits for one that is gone, and a restored search knows
its rungs."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from tpo_core.config.sweep import SweepConfig
from tpo_core.tune.schedulers import VALUE, Population, scheduler_of

RUNGS = (4, 16)


def scheduler(kind, reported=lambda trial: []):
    about = {"stage": "s", "space": {"region": [0.5, 8.0]}, "metrics": ["region/miou"], "first_rung_steps": 4,
             "trials": 4, "scheduler": kind, "search": "random"}  # fmt: skip
    return scheduler_of(SweepConfig.model_validate(about), RUNGS, reported)


@dataclass(eq=False)
class Trial:
    """As much of Tune's as schedulers look at."""

    trial_id: str
    status: str = "RUNNING"
    config: dict[str, Any] = field(default_factory=lambda: {"region": 1.0})
    evaluated_params: dict[str, Any] = field(default_factory=dict)
    experiment_tag: str = ""
    checkpoint: Any = None
    temporary_state: Any = field(default_factory=lambda: SimpleNamespace(saving_to=None))
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def run_metadata(self):
        manager = SimpleNamespace(checkpoint_config=SimpleNamespace(num_to_keep=None))
        return SimpleNamespace(last_result=self.told, checkpoint_manager=manager)

    def is_finished(self):
        return self.status in ("ERROR", "TERMINATED")


class Controller:
    """Keeps trials as Tune's controller does, which leaves one that failed among the living."""

    search_alg = None

    def __init__(self, population, *trials):
        self.population, self.trials = population, list(trials)
        self.living = set(trials)
        self.saved = []
        for trial in trials:
            population.on_trial_add(self, trial)

    def get_trials(self):
        return self.trials

    def get_live_trials(self):
        return self.living

    def _schedule_trial_save(self, trial, result):
        """That others may begin there. There is no process that could."""
        self.saved.append(trial)

    def report(self, trial, rung, value=1.0):
        decision = self.population.on_trial_result(self, trial, {"training_iteration": rung, VALUE: value})
        if decision in ("PAUSE", "NOOP"):
            trial.status = "PAUSED"

    def fail(self, trial):
        self.population.on_trial_error(self, trial)
        trial.status = "ERROR"

    def end(self, trial):
        self.population.on_trial_complete(self, trial, {})
        trial.status = "TERMINATED"
        self.living.discard(trial)

    def goes_on(self):
        """Trials that would run next, all of them."""
        found = []
        while (trial := self.population.choose_trial_to_run(self)) is not None:
            trial.status = "RUNNING"
            found.append(trial)
        return found


@pytest.fixture
def four():
    return [Trial(name) for name in "abcd"]


@pytest.fixture
def controller(four):
    return Controller(scheduler("pbt"), *four)


def test_those_who_wait_at_a_rung_go_on_when_the_last_to_come_fails(controller, four):
    for trial in four[:3]:
        controller.report(trial, 1)
    assert controller.goes_on() == []
    controller.fail(four[3])
    assert set(controller.goes_on()) == set(four[:3])


def test_those_who_come_later_do_not_wait_for_one_that_has_failed(controller, four):
    controller.fail(four[0])
    for trial in four[1:]:
        controller.report(trial, 1)
    assert set(controller.goes_on()) == set(four[1:])
    for trial in four[1:3]:
        controller.report(trial, 2)
    assert controller.goes_on() == [], "one is still to come"
    controller.report(four[3], 2)
    assert set(controller.goes_on()) == set(four[1:])


def test_nobody_learns_from_one_that_has_failed(controller, four):
    """The last to come was the best at the rung before; when it fails, Tune still calls it running."""
    for rung, coming in ((1, four), (2, four[:3])):
        for trial, value in zip(coming, (0.1, 0.2, 0.3, 9.0), strict=False):
            controller.report(trial, rung, value)
        controller.goes_on()
    controller.saved.clear()
    controller.fail(four[3])
    assert controller.saved == []
    assert set(controller.goes_on()) == set(four[:3])


def test_those_who_wait_go_on_when_the_last_to_come_has_ended(controller, four):
    for trial in four[:3]:
        controller.report(trial, 1)
    controller.end(four[3])
    assert set(controller.goes_on()) == set(four[:3])


def test_a_population_that_was_restored_at_a_later_rung_goes_on_behind_it(controller, four):
    """Ray's count of rungs begins anew then."""
    for trial in four:
        controller.report(trial, 2)
    assert set(controller.goes_on()) == set(four)
    for trial in four[:3]:
        controller.report(trial, 3)
    assert controller.goes_on() == []
    controller.report(four[3], 3)
    assert set(controller.goes_on()) == set(four)


def test_when_all_have_failed_nobody_is_woken(controller, four):
    for trial in four:
        controller.fail(trial)
    assert controller.goes_on() == []
    assert isinstance(controller.population, Population)


def decisions(halving, values, *restored):
    """What it says to new trials that report these values at the first rung."""
    Controller(halving, *restored)
    trials = [Trial(f"new {number}") for number in range(len(values))]
    controller = Controller(halving, *trials)
    return [
        halving.on_trial_result(controller, trial, {"step": RUNGS[0], VALUE: value})
        for trial, value in zip(trials, values, strict=True)
    ]


def test_a_restored_search_measures_newcomers_against_its_rungs():
    earlier = {"a": [(4, 0.9), (16, 1.2)], "b": [(4, 0.5)]}
    restored = [Trial(name, told={"step": rounds[-1][0]}) for name, rounds in earlier.items()]
    assert decisions(scheduler("asha", lambda trial: earlier.get(trial, [])), [0.4], *restored) == ["STOP"]
    assert decisions(scheduler("asha"), [0.4]) == ["CONTINUE"], "the first at a rung always goes on"


def test_a_round_that_was_not_reported_before_the_cut_is_still_decided_about():
    earlier = {"a": [(4, 0.9)], "b": [(4, 0.1)]}
    reported, late = Trial("a", told={"step": 4}), Trial("b")
    halving = scheduler("asha", lambda trial: earlier.get(trial, []))
    controller = Controller(halving, reported, late)
    assert halving.on_trial_result(controller, late, {"step": 4, VALUE: 0.1}) == "STOP"
