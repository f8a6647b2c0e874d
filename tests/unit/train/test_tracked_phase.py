"""A phase whose tracking server is away trains as if there were none, and loses no number."""

import json
from functools import partial

import pytest
import torch

from tests.unit.tracking.test_tracker import BlackHole
from tests.unit.train.in_process import build_not_finite
from tests.unit.train.stub import build_stub, stub_recipe
from tests.unit.train.test_stop import AskedAt
from tpo_core.tracking.publish import Publisher
from tpo_core.tracking.server import connect, find_run
from tpo_core.train.job import PhaseJob
from tpo_core.train.loop import DivergedError
from tpo_core.train.phase import ALONE, run_rank
from tpo_core.train.recorder import read_history


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the phase in this process, tracked at a URI."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")

    def once(uri, deadline_s=0.05, build=build_stub, outside=ALONE):
        recipe = stub_recipe()
        recipe = recipe.model_copy(update={"tracking": recipe.tracking.model_copy(update={"uri": uri})})
        phase = recipe.stages["vision_task"].phases[0]
        job = PhaseJob(
            recipe=recipe, stage_name="vision_task", phase=phase, shards_uri="", init_uri="", output=tmp_path / "out"
        )
        sink = partial(Publisher(recipe, "unused").phase_sink(job.name, "f-phase"), close_deadline_s=deadline_s)
        run_rank(job, build=build, device=torch.device("cpu"), open_sink=sink, report=lambda row: None, outside=outside)
        return job

    return once


def run_at(client):
    return find_run(client, client.get_experiment_by_name("tpo").experiment_id, "tpo_phase", "f-phase")


def tracked(uri, key):
    client = connect(uri)
    return sorted((point.step, point.value) for point in client.get_metric_history(run_at(client), key))


def test_a_server_that_was_away_has_everything_once_after_the_same_command_again(run, tmp_path):
    job = run("http://127.0.0.1:9")
    rows = read_history(job.history)
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert "has not taken everything: 5 records lost; all is in history.jsonl" in job.notes.read_text()
    live = f"sqlite:///{tmp_path}/mlflow.db"
    for _ in range(2):
        job.summary.unlink()  # as of a phase that was killed at its very end
        run(live, deadline_s=60)
        assert tracked(live, "total") == [(row["step"], row["total"]) for row in rows]
        assert tracked(live, "memory_bytes") == [(row["step"], row["memory_bytes"]) for row in rows]


def test_a_phase_that_fails_or_stops_says_so_and_goes_on_in_the_same_run(run, tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client, found = connect(uri), []

    def status():
        found.append(run_at(client))
        return client.get_run(found[-1]).info.status

    with pytest.raises(DivergedError):
        run(uri, 60, build_not_finite(*range(2, 12)))
    assert status() == "FAILED"
    run(uri, 60, outside=AskedAt(2))
    assert status() == "KILLED"
    run(uri, 60)
    assert status() == "FINISHED"
    assert len(set(found)) == 1


def test_a_server_that_never_answers_holds_up_no_step(run):
    """It has been asked once and has not answered when the phase is finished."""
    hole = BlackHole()
    job = run(hole.uri)
    assert json.loads(job.summary.read_text())["steps"] == 12
    assert hole.asked.wait(30)
    assert len(hole.held) == 1
    assert "5 records lost" in job.notes.read_text()
    hole.close()
