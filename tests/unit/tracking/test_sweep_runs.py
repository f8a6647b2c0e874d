"""A sweep in MLflow: one parent, a child a trial, both found again by a later launch."""

from types import SimpleNamespace

import pytest

from tpo_core.tracking.server import NOTE, TAKEN, MlflowException, connect, experiment_id, telling
from tpo_core.tracking.sweep import SweepRuns, TrialRun

EXPERIMENT = "sweep tests"


@pytest.fixture
def named(mlflow_uri):
    """Runs by name; the database is there before anything has a deadline."""
    experiment_id(connect(mlflow_uri), EXPERIMENT, mlflow_uri)

    def find(name):
        client = connect(mlflow_uri)
        return client.search_runs([experiment_id(client, EXPERIMENT, mlflow_uri)], f"run_name = '{name}'")

    return find


def trial_of(runs, name, note="a trial"):
    return TrialRun(runs, name, {"lm": 0.6, "region": 4.0}, note)


def test_trials_lie_below_their_sweep_and_go_on_in_the_same_run(mlflow_uri, named, tmp_path):
    runs = SweepRuns(mlflow_uri, EXPERIMENT, "sweep one", "f" * 64)
    for step, status in ((4, "FINISHED"), (16, "FAILED")):
        tracker = trial_of(runs, "a", f"after step {step}")()
        tracker.log_metrics({"score": step / 10}, step=step)
        assert tracker.close(status) is None
    picture = tmp_path / "pareto.png"
    picture.write_bytes(b"png")
    told = {"sweep": {"trials": 1}}, {"idle_share": 0.25}, [picture], "the winner is `a`", {"winner": "a"}
    assert runs.finish(*told) is None

    (parent,), (trial,) = named("sweep one"), named("a: lm 0.6, region 4")
    assert trial.data.tags["mlflow.parentRunId"] == parent.info.run_id
    points = connect(mlflow_uri).get_metric_history(trial.info.run_id, "score")
    assert [(point.step, point.value) for point in points] == [(4, 0.4), (16, 1.6)]
    assert (trial.info.status, parent.info.status) == ("FAILED", "FINISHED")
    assert trial.data.tags.items() >= {"weight/lm": "0.6", "weight/region": "4", NOTE: "after step 16"}.items()
    assert parent.data.tags.items() >= {"winner": "a", NOTE: "the winner is `a`"}.items()
    assert parent.data.metrics == {"idle_share": 0.25}
    assert parent.data.params == {"sweep.trials": "1"}
    files = connect(mlflow_uri).list_artifacts(parent.info.run_id, "sweep")
    assert [entry.path for entry in files] == ["sweep/pareto.png"]


def test_another_sweep_has_runs_of_its_own(mlflow_uri, named):
    for fingerprint in ("a" * 64, "b" * 64):
        trial_of(SweepRuns(mlflow_uri, EXPERIMENT, "sweep two", fingerprint), "b")().close("FINISHED")
    assert len(named("sweep two")) == len(named("b: lm 0.6, region 4")) == 2


def test_trials_that_begin_side_by_side_share_their_sweep(mlflow_uri, named):
    runs = SweepRuns(mlflow_uri, EXPERIMENT, "sweep three", "c" * 64)
    runs.begin()
    begun = [trial_of(runs, f"c{number}")(close_deadline_s=60) for number in range(3)]
    assert [tracker.close() for tracker in begun] == [None] * 3
    (parent,) = named("sweep three")
    children = [run for number in range(3) for run in named(f"c{number}: lm 0.6, region 4")]
    assert [run.data.tags["mlflow.parentRunId"] for run in children] == [parent.info.run_id] * 3


def test_a_sweep_that_failed_says_so_until_it_goes_on(mlflow_uri, named):
    runs = SweepRuns(mlflow_uri, EXPERIMENT, "sweep four", "d" * 64)
    runs.begin()
    assert runs.fail() is None
    assert [run.info.status for run in named("sweep four")] == ["FAILED"]
    runs.begin()
    assert [run.info.status for run in named("sweep four")] == ["RUNNING"]


def test_a_base_has_no_weights_to_be_named_by(mlflow_uri, named):
    TrialRun(SweepRuns(mlflow_uri, EXPERIMENT, "sweep five", "e" * 64), "base", {}, "what was before")().close()
    assert len(named("base")) == 1


class Late:
    """A client whose experiment another process makes between its look and its own attempt. there: that one's id."""

    def __init__(self, code=TAKEN, there="7"):
        self.code, self.there, self.looks = code, there, 0

    def get_experiment_by_name(self, name):
        self.looks += 1
        return None if self.looks == 1 or self.there is None else SimpleNamespace(experiment_id=self.there)

    def create_experiment(self, name, **more):
        error = MlflowException("taken")
        error.error_code = self.code
        raise error


def test_an_experiment_that_another_process_has_just_made_is_looked_up():
    assert experiment_id(Late(), "tpo", "sqlite:////x/mlflow.db") == "7"
    assert experiment_id(telling(Late(), "sqlite:////x/mlflow.db"), "tpo", "sqlite:////x/mlflow.db") == "7"


@pytest.mark.parametrize("client", [Late(there=None), Late(code="PERMISSION_DENIED")])
def test_any_other_refusal_is_passed_on(client):
    with pytest.raises(MlflowException):
        experiment_id(client, "tpo", "sqlite:////x/mlflow.db")
