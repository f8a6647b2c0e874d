import json
from contextlib import nullcontext

import pytest

from pipelines import evaluate
from pipelines.report import page_of, track
from tests.unit.evaluation.conftest import FakeModel, make_sample, write_shards
from tests.unit.evaluation.report.test_report_parts import leave_part
from tpo_core.config.schema import TrackingConfig
from tpo_core.data.shards import ShardSet
from tpo_core.evaluation.report.write import Written
from tpo_core.storage import uri as uris
from tpo_core.tracking.server import connect, experiment_id

BASE = {"before TPO": {"test/region/miou": 0.25}}


@pytest.fixture
def shards_uri(tmp_path):
    return str(write_shards(tmp_path / "shards", {"test": [make_sample(task) for task in ("region", "qa")]}))


def test_the_page_on_measured_parts_goes_where_it_is_wanted(tmp_path, shards_uri):
    leave_part(tmp_path / "results", ShardSet.open(shards_uri), FakeModel(), "test")
    written = page_of(tmp_path / "results", shards_uri, "mine", BASE, tmp_path / "page")
    page = (tmp_path / "page" / "report.html").read_text()
    assert written.page == str(tmp_path / "page" / "report.html")
    assert "before TPO" in page
    assert page.count("data:image/jpeg") == 5  # a region, and four frames of a question


def test_results_that_lie_on_other_machines_have_no_page_here(tmp_path, shards_uri):
    (tmp_path / "results" / "test").mkdir(parents=True)
    (tmp_path / "results" / "artifact.json").write_text(json.dumps({}))
    assert page_of(tmp_path / "results", shards_uri, "mine", {}, tmp_path / "page") is None
    assert not (tmp_path / "page").exists()


def test_parts_that_a_command_measures_have_a_page(tmp_path, shards_uri, monkeypatch, capsys):
    def measured(jobs, train, echo, group):
        leave_part(tmp_path / "out", ShardSet.open(shards_uri), FakeModel(), "test")
        return [{"metrics": {"test/region/miou": 1.0}, "baseline": {}}]

    monkeypatch.setattr(evaluate, "connect", lambda recipe: nullcontext())
    monkeypatch.setattr(evaluate, "on_cluster", measured)
    arguments = ["--recipe", "quickstart", "--model", "mine", "--shards", shards_uri, "--output", str(tmp_path / "out")]
    assert evaluate.main([*arguments, f"work_uri={tmp_path}/work"]) == 0
    uri = f"sqlite:///{tmp_path}/work/mlflow/mlflow.db"
    said = f"report  {tmp_path}/out/report.html\nMLflow  {uri}, run quickstart: mine\n"
    assert capsys.readouterr().out.endswith(said)
    client = connect(uri)
    (run,) = client.search_runs([experiment_id(client, "tpo", uri)])
    assert run.data.metrics["test/region/miou"] == 1.0
    assert "quickstart: mine" in (tmp_path / "out" / "report.html").read_text()


def test_a_page_is_tracked_wherever_it_lies(tmp_path, bucket):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    for place in (f"{tmp_path}/report", f"{bucket}/report"):
        written = Written(f"{place}/report.html", f"{place}/report.md", {"lasot/AUC": 66.8})
        uris.write_bytes(written.page, place.encode())
        uris.write_bytes(written.table, b"table")
        assert track(written, TrackingConfig(experiment="tpo"), uri, place, None) is None
    client = connect(uri)
    runs = client.search_runs([experiment_id(client, "tpo", uri)])
    pages = {}
    for run in runs:
        (tmp_path / run.info.run_id).mkdir()
        found = client.download_artifacts(run.info.run_id, "report/report.html", str(tmp_path / run.info.run_id))
        with open(found) as file:
            pages[run.info.run_name] = file.read()
    assert pages == {f"{tmp_path}/report": f"{tmp_path}/report", f"{bucket}/report": f"{bucket}/report"}
