import errno
import gzip
import json
import os
from pathlib import Path

import pytest
import torch

from tests.unit.train.checkpoints.made import comparable, steps_at
from tests.unit.train.in_process import phase_job, run_phase_in_process
from tests.unit.train.stub import StubModel, build_stub, stub_recipe
from tpo_core.errors import TpoError
from tpo_core.storage import uri as uris
from tpo_core.train import recorder
from tpo_core.train.job import PhaseJob
from tpo_core.train.phase import checkpoint_due
from tpo_core.train.recorder import read_history


class KilledError(Exception):
    """Stands for a process that dies."""


def test_a_killed_rank_resumes_with_one_history_and_the_same_weights(tmp_path):
    straight, killed = phase_job(tmp_path / "a"), phase_job(tmp_path / "b")
    sink = run_phase_in_process(straight)
    assert sink.steps == [3, 6, 9, 12]
    assert sink.closed == ["FINISHED"]

    def build_dying(job, strategy):
        model, batches = build_stub(job, strategy)
        inner = batches.step

        def step(step):
            if step == 7:  # the last checkpoint is at 4, a row was logged at 6
                raise KilledError
            return inner(step)

        batches.step = step
        return model, batches

    with pytest.raises(KilledError):
        run_phase_in_process(killed, build_dying)
    assert not killed.model.exists()
    with killed.history.open("a") as file:
        file.write('{"step": 7, "cut o')  # the kill came in the middle of a line
    resumed = run_phase_in_process(killed)
    assert resumed.steps == [3, 6, 9, 12]  # what is in the history is sent again: the dead attempt may not have
    assert resumed.checkpoint_steps[0] == 4

    rows = [[json.loads(line) for line in job.history.read_text().splitlines()] for job in (straight, killed)]
    assert comparable(rows[0]) == comparable(rows[1])
    weights = [torch.load(job.model / "weights.pt") for job in (straight, killed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert "resuming at step 4 from step-00000004" in killed.notes.read_text()
    summary = json.loads(killed.summary.read_text())
    assert (summary["steps"], summary["samples"], summary["skipped"]) == (12, 96, 0)
    assert set(summary["final"]) == {"total", "loss/lm", "loss/region", "kind/region", "kind/chat"}
    assert summary["final"] == {name: rows[0][-1][name] for name in summary["final"]}
    assert summary["seconds"] == rows[1][-1]["seconds"]


def test_the_disk_holds_what_a_checkpoint_or_the_summary_builds_on(tmp_path, monkeypatch):
    """A machine without power forgets what was not synced: rows of steps that are not run again, weights."""
    job, synced, told = phase_job(tmp_path), {}, {}
    sync, replace = os.fsync, os.replace

    def noting_sync(handle):
        sync(handle)
        path = Path(os.readlink(f"/proc/self/fd/{handle}"))
        synced[path.relative_to(tmp_path).as_posix()] = path.read_bytes() if path.is_file() else b""

    def noting_replace(source, target):
        told[Path(target).relative_to(tmp_path).as_posix()] = dict(synced)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_sync)
    monkeypatch.setattr(os, "replace", noting_replace)
    run_phase_in_process(job)
    for step, last_row in ((4, 3), (8, 6), (12, 12)):
        rows = told[f"checkpoints/step-{step:08d}/checkpoint.json"]["history.jsonl"].splitlines()
        assert json.loads(rows[-1])["step"] >= last_row
    weights = told["phase.json"]["model.partial/weights.pt"]
    assert weights == (job.model / "weights.pt").read_bytes()
    assert json.loads(job.summary.read_text())["steps"] == 12


def test_a_phase_that_ended_before_its_model_was_written_writes_it_on_resume(tmp_path):
    job = phase_job(tmp_path)
    run_phase_in_process(job)
    first = torch.load(job.model / "weights.pt")
    job.summary.unlink()
    (job.model / "weights.pt").unlink()
    rows, notes = job.history.read_text(), job.notes.read_text()
    sink = run_phase_in_process(job)
    assert job.history.read_text() == rows  # no step was run again
    assert "resuming at step 12" in job.notes.read_text().removeprefix(notes)
    assert sink.steps == [3, 6, 9, 12]
    assert all(torch.equal(first[name], tensor) for name, tensor in torch.load(job.model / "weights.pt").items())


def test_a_phase_that_is_written_again_does_not_count_as_finished_meanwhile(tmp_path, monkeypatch):
    job = phase_job(tmp_path)
    run_phase_in_process(job)

    def full(self, directory, weights):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(StubModel, "save_pretrained", full)
    with pytest.raises(OSError, match="No space left"):
        run_phase_in_process(job)
    assert not job.model.exists()
    assert not job.summary.exists()


def test_checkpoints_go_where_the_recipe_says_below_the_phase_and_the_run(tmp_path):
    job = phase_job(tmp_path / "out", checkpoint_uri=str(tmp_path / "safe"))
    run_phase_in_process(job)
    assert not (job.output / "checkpoints").exists()
    assert steps_at(tmp_path / "safe" / "vision_task.all" / "run") == [8, 12]
    assert phase_job(tmp_path / "out").checkpoints == str(tmp_path / "out" / "checkpoints")
    assert phase_job(tmp_path, checkpoint_uri="s3://b/k").checkpoints == "s3://b/k/vision_task.all/run"


def test_a_relative_place_for_checkpoints_is_the_same_from_everywhere(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert stub_recipe(checkpoint_uri="safe").train.checkpoint_uri == str(tmp_path / "safe")


@pytest.mark.parametrize(("step", "due"), [(1, False), (4, True), (6, False), (10, True), (20, True)])
def test_a_checkpoint_is_due_at_either_interval(step, due):
    train = stub_recipe(checkpoint_every_steps=4, permanent_checkpoint_every_steps=10).train
    assert checkpoint_due(step, train) == due


def test_permanent_and_best_checkpoints_are_kept(tmp_path):
    job = phase_job(tmp_path, permanent_checkpoint_every_steps=5, keep_best=1, checkpoint_every_steps=2)
    run_phase_in_process(job)
    totals = [json.loads(line)["total"] for line in job.history.read_text().splitlines()]  # at 3, 6, 9, 12
    best = 12 if min(totals) == totals[3] else [4, 6, 10][totals.index(min(totals))]  # the first that saw that row
    assert steps_at(job.checkpoints) == sorted({5, 10, 12, best})


def test_a_best_metric_that_no_stage_logs_is_refused():
    with pytest.raises(ValueError, match=r"unknown train\.best_metric 'kind/regions'; did you mean 'kind/region'\?"):
        stub_recipe(best_metric="kind/regions")


def test_a_phase_with_other_hyper_parameters_does_not_go_on_from_its_checkpoints(tmp_path):
    run_phase_in_process(phase_job(tmp_path))
    job = phase_job(tmp_path)
    stage = job.stage.model_copy(update={"weight_decay": 0.5})
    recipe = job.recipe.model_copy(update={"stages": {"vision_task": stage}})
    other = PhaseJob(**{**vars(job), "recipe": recipe})
    with pytest.raises(TpoError, match=r"is of another run \(stages\.vision_task\.weight_decay .* -> 0\.5\)"):
        run_phase_in_process(other)


def test_a_phase_goes_on_without_its_checkpoints_until_too_many_failed(tmp_path, monkeypatch):
    def disk_full(path, uri):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(uris, "put_file", disk_full)
    run_phase_in_process(phase_job(tmp_path / "a", max_failed_checkpoints=3))
    notes = (tmp_path / "a" / "notes.txt").read_text()
    assert [f"the checkpoint of step {step} failed (disk full while" in notes for step in (4, 8, 12)] == [True] * 3
    assert (tmp_path / "a" / "model" / "weights.pt").exists()
    with pytest.raises(TpoError, match="disk full while writing"):
        run_phase_in_process(phase_job(tmp_path / "b", max_failed_checkpoints=1))


def events(job):
    with gzip.open(job.trace) as file:
        return {event["name"] for event in json.load(file)["traceEvents"] if str(event.get("name")).startswith("step ")}


def test_the_steps_that_are_asked_for_are_traced_kept_and_told(tmp_path):
    job = phase_job(tmp_path, profile_steps=[5, 7])
    sink = run_phase_in_process(job)
    assert events(job) == {"step 5", "step 6", "step 7"}
    assert sink.artifacts == [("trace.json.gz", "profile")]
    assert "in trace.json.gz, beside the history" in job.notes.read_text()


def test_a_trace_changes_nothing_and_ends_with_the_phase(tmp_path):
    plain, traced = phase_job(tmp_path / "a"), phase_job(tmp_path / "b", profile_steps=[11, 40])
    for job in (plain, traced):
        run_phase_in_process(job)
    assert events(traced) == {"step 11", "step 12"}
    weights = [torch.load(job.model / "weights.pt") for job in (plain, traced)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert not plain.trace.exists()


def test_a_trace_too_large_for_the_tracking_server_stays_where_it_is(tmp_path, monkeypatch):
    monkeypatch.setattr(recorder, "TRACKED_TRACE_MB", 0)
    job = phase_job(tmp_path, profile_steps=[1, 1])
    assert run_phase_in_process(job).artifacts == []
    assert events(job) == {"step 1"}


def test_a_run_tells_what_it_makes_of_the_peak_that_it_is_told(tmp_path):
    job = phase_job(tmp_path, peak_tflops=1e-6)
    run_phase_in_process(job)
    row = read_history(job.history)[-1]
    assert row["mfu"] == pytest.approx(row["tflops_per_s"] / 1e-6)
