"""A sweep as a step of a chain, whose trials nobody runs: what ends it, and what the same call does then."""

from types import SimpleNamespace

import pytest

from pipelines import sweep_loss_weights
from pipelines.sweep_loss_weights import STEP, plan_of
from pipelines.sweep_trial import Trainee
from tpo_core.config.load import load_recipe
from tpo_core.errors import RunFailedError, TpoError
from tpo_core.execution.runner import run_steps
from tpo_core.execution.steps import Step
from tpo_core.tune import loss_weights
from tpo_core.tune.loss_weights import follow, kept
from tpo_core.tune.rounds import Round

METRICS = {"region/miou": 0.4, "moment/miou": 0.3, "mask/j": 0.2, "qa/accuracy": 0.9}


class Runs:
    """What MLflow would hear."""

    heard: list[str]

    def __init__(self, *about):
        pass

    def begin(self):
        self.heard.append("begin")

    def fail(self):
        self.heard.append("fail")

    def finish(self, params, metrics, files, note, tags):
        self.heard.append("finish")


def carried_out(self, order):
    """Trains nothing; steps make it better."""
    metrics = {**METRICS, "region/miou": 0.4 + order.step / 1000}
    return Round.of(order, metrics=metrics, failed=None, began_s=1.0, ended_s=2.0, training_s=0.5, measuring_s=0.2,
                    workers=1)  # fmt: skip


@pytest.fixture
def made(tmp_path, monkeypatch):
    """Runs the sweep of the quick start with these changes, as often as asked; what MLflow and the user are told. The
    trials, and which of them failed, are those of `grid`."""
    plan_changes = [f"work_uri={tmp_path}", "sweep.trials=4"]
    monkeypatch.setattr(sweep_loss_weights, "SweepRuns", Runs)
    monkeypatch.setattr(Runs, "heard", [], raising=False)
    monkeypatch.setattr(Trainee, "__call__", carried_out)
    monkeypatch.setattr(Trainee, "record", lambda self, one, values: recorded.append((one.trial, one.step)))
    monkeypatch.setattr(sweep_loss_weights, "run_references", in_this_process)
    recorded = []

    class Made:
        grid = None
        lines = []
        records = recorded

        def run(self, *changes):
            plan = plan_of(load_recipe("quickstart", [*plan_changes, *changes]))
            monkeypatch.setattr(loss_weights, "tuner", lambda sweep, echo: self.fit(sweep))
            before = [Step(name, lambda ctx: {}, {}) for name in ("preprocess", "task_assignment")]
            steps = [*before, Step(STEP, plan.run, {}, ("preprocess", "task_assignment"))]
            return run_steps(steps, str(tmp_path), echo=self.lines.append)[STEP]

        def fit(self, sweep):
            """The trials come to the end, but for those that fail."""
            for trial in self.grid:
                order = sweep_loss_weights.Order(trial=trial, weights=dict.fromkeys(sweep.config.space, 1.5), step=120)
                if sweep.book.find(order) is None:
                    sweep.book.add(carried_out(None, order))
            return SimpleNamespace(fit=lambda: self.grid)

    return Made()


def in_this_process(chains, book, carry_out, side_by_side, driver):
    for chain in chains:
        follow(carry_out, book, chain)
    return {chain[0].trial: kept(book, chain) for chain in chains}


class Grid(list):
    """Tune's ResultGrid, of trials by name."""

    def __init__(self, *trials, errors=()):
        super().__init__(trials)
        self.errors = errors

    def __getitem__(self, place):
        return SimpleNamespace(metrics={"trial_id": list(self)[place]})


def test_a_sweep_with_trials_that_failed_is_not_finished_and_tries_them_again(made):
    made.grid = Grid("a", "b", "c", errors=[RuntimeError("node gone")])
    with pytest.raises(RunFailedError, match=r"^1 of 3 trials failed, the same command tries them again: .*node gone"):
        made.run()
    assert Runs.heard == ["begin", "fail"]
    made.grid = Grid("a", "b", "c")
    result = made.run()
    assert [line.split()[0] for line in made.lines if f"  {STEP}  " in line] == ["RUN", "FAIL", "RESUME", "DONE"]
    assert result.result["trials"] == 3
    assert Runs.heard == ["begin", "fail", "begin", "finish"]


def test_references_are_measured_at_all_rungs_like_trials(made):
    made.grid = Grid("a", "b")
    found = made.run("sweep.baselines=[uncertainty]")
    wanted = [("base", 0), *((name, step) for name in ("unit", "uncertainty") for step in (30, 120))]
    assert made.records == wanted
    assert {name: one["step"] for name, one in found.result["references"].items()} == {
        "base": 0, "unit": 120, "uncertainty": 120,
    }  # fmt: skip


def test_a_mistake_of_the_user_ends_the_run_of_the_sweep_as_failed(made, monkeypatch):
    monkeypatch.delitem(METRICS, "mask/j")
    made.grid = Grid("a")
    with pytest.raises(TpoError, match=r"part val has no metric 'mask/j' \(sweep\)"):
        made.run()
    assert Runs.heard == ["begin", "fail"]
