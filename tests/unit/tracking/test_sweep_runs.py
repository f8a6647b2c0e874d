"""A sweep in MLflow: one parent, a child a trial, both found again by a later launch."""

import pytest

from tpo_core.tracking.server import connect, experiment_id
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


def test_trials_lie_below_their_sweep_and_go_on_in_the_same_run(mlflow_uri, named, tmp_path):
    runs = SweepRuns(mlflow_uri, EXPERIMENT, "sweep one", "f" * 64)
    for step, status in ((4, "FINISHED"), (16, "FAILED")):
        tracker = TrialRun(runs, "trial a")()
        tracker.log_metrics({"score": step / 10}, step=step)
        assert tracker.close(status) is None
    picture = tmp_path / "pareto.png"
    picture.write_bytes(b"png")
    assert runs.finish({"sweep": {"trials": 1}}, {"idle_share": 0.25}, [picture]) is None

    (parent,), (trial,) = named("sweep one"), named("trial a")
    assert trial.data.tags["mlflow.parentRunId"] == parent.info.run_id
    points = connect(mlflow_uri).get_metric_history(trial.info.run_id, "score")
    assert [(point.step, point.value) for point in points] == [(4, 0.4), (16, 1.6)]
    assert (trial.info.status, parent.info.status) == ("FAILED", "FINISHED")
    assert parent.data.metrics == {"idle_share": 0.25}
    assert parent.data.params == {"sweep.trials": "1"}
    files = connect(mlflow_uri).list_artifacts(parent.info.run_id, "sweep")
    assert [entry.path for entry in files] == ["sweep/pareto.png"]


def test_another_sweep_has_runs_of_its_own(mlflow_uri, named):
    for fingerprint in ("a" * 64, "b" * 64):
        TrialRun(SweepRuns(mlflow_uri, EXPERIMENT, "sweep two", fingerprint), "trial b")().close("FINISHED")
    assert len(named("sweep two")) == len(named("trial b")) == 2
