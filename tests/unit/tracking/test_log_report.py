from pathlib import Path

import pytest

from tpo_core.tracking.report import log_report
from tpo_core.tracking.server import connect, experiment_id
from tpo_core.tracking.tracker import MlflowTracker

EXPERIMENT = "report tests"
NUMBERS = {"refcoco/acc@0.5": 0.5, "refcoco/asked": 30.0}


@pytest.fixture
def log(mlflow_uri, tmp_path):
    """Logs a report whose page says `text`."""

    def logged(name, numbers, text="page", parent=None):
        (tmp_path / "report.html").write_text(text)
        (tmp_path / "report.md").write_text("table")
        return log_report(
            mlflow_uri, EXPERIMENT, name,
            page=tmp_path / "report.html", table=tmp_path / "report.md", numbers=numbers, parent=parent,
        )  # fmt: skip

    return logged


@pytest.fixture
def runs(mlflow_uri):
    """The runs of a name."""

    def named(name):
        client = connect(mlflow_uri)
        return client.search_runs([experiment_id(client, EXPERIMENT, mlflow_uri)], f"run_name = '{name}'")

    return named


def points(uri, run, name):
    return [(point.step, point.value) for point in connect(uri).get_metric_history(run.info.run_id, name)]


def test_a_run_holds_page_table_and_numbers(log, runs, mlflow_uri):
    assert log("first", NUMBERS) is None
    (run,) = runs("first")
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"refcoco/acc_at_0.5": 0.5, "refcoco/asked": 30.0}
    assert "mlflow.parentRunId" not in run.data.tags
    files = connect(mlflow_uri).list_artifacts(run.info.run_id, "report")
    assert [file.path for file in files] == ["report/report.html", "report/report.md"]


def test_the_same_again_adds_no_point_and_replaces_the_page(log, runs, mlflow_uri, tmp_path):
    log("again", NUMBERS, "old")
    log("again", NUMBERS, "new")
    (run,) = runs("again")
    assert points(mlflow_uri, run, "refcoco/acc_at_0.5") == [(0, 0.5)]
    page = connect(mlflow_uri).download_artifacts(run.info.run_id, "report/report.html", str(tmp_path))
    assert Path(page).read_text() == "new"


def test_a_number_that_changed_is_the_next_point(log, runs, mlflow_uri):
    log("changed", NUMBERS)
    log("changed", NUMBERS | {"refcoco/acc@0.5": 0.75, "lasot/success": 53.0})
    log("changed", NUMBERS | {"refcoco/acc@0.5": 0.75, "lasot/success": 53.0})
    (run,) = runs("changed")
    assert points(mlflow_uri, run, "refcoco/acc_at_0.5") == [(0, 0.5), (1, 0.75)]
    assert points(mlflow_uri, run, "refcoco/asked") == [(0, 30.0)]
    assert run.data.metrics["lasot/success"] == 53.0


def test_a_report_lies_below_its_parent_and_apart_from_that_of_another(log, runs, mlflow_uri):
    parents = []
    for name in ("a", "b"):
        tracker = MlflowTracker(mlflow_uri, EXPERIMENT, name, close_deadline_s=60)
        parents.append(tracker.wait_run_id())
        tracker.close()
        log("nested 'quoted'", NUMBERS, parent=parents[-1])
        log("nested 'quoted'", NUMBERS, parent=parents[-1])
    client = connect(mlflow_uri)
    every = client.search_runs([experiment_id(client, EXPERIMENT, mlflow_uri)])
    nested = [run for run in every if run.info.run_name == "nested 'quoted'"]
    assert sorted(run.data.tags["mlflow.parentRunId"] for run in nested) == sorted(parents)


def test_a_server_that_is_gone_is_told(monkeypatch, log, tmp_path, caplog):
    monkeypatch.setattr("tpo_core.tracking.report.DEADLINE_S", 0.1)
    monkeypatch.setattr("tpo_core.tracking.report.RUN_DEADLINE_S", 0.1)
    lost = log_report(
        "http://127.0.0.1:9", EXPERIMENT, "nowhere",
        page=tmp_path / "report.html", table=tmp_path / "report.md", numbers=NUMBERS, parent=None,
    )  # fmt: skip
    assert "has not taken everything" in lost
