"""A phase that fails says why, closes what it opened, and is gone on with; what is not finite is not hidden."""

import json
import shutil

import pytest
import torch

from tests.unit.train.checkpoints.made import comparable
from tests.unit.train.in_process import Sink, build_not_finite, phase_job, run_phase_in_process
from tests.unit.train.stub import build_stub
from tpo_core.errors import TpoError
from tpo_core.train.loop import DivergedError
from tpo_core.train.recorder import read_history


def test_a_phase_that_diverges_leaves_what_it_knows_and_can_be_gone_on_with(tmp_path):
    """In the last two steps: the last row was of step 9, the last checkpoint of step 8."""
    calm, job, sink = phase_job(tmp_path / "calm"), phase_job(tmp_path / "out", max_skipped_steps=1), Sink()
    run_phase_in_process(calm)
    with pytest.raises(DivergedError, match=r"step 11: total nan"):
        run_phase_in_process(job, build_not_finite(10, 11), sink)
    assert sink.closed == ["FAILED"]
    last = read_history(job.history)[-1]
    assert (last["step"], last["skipped"]) == (11, 2)
    assert last["total"] > 0  # of step 10
    assert sink.steps == [3, 6, 9, 11]
    [line] = [line for line in job.notes.read_text().splitlines() if line.startswith("failed: ")]
    assert line.startswith("failed: step 11: total nan")
    assert "lower the learning rates" in line

    resumed = run_phase_in_process(job)
    assert resumed.closed == ["FINISHED"]
    assert "resuming at step 8" in job.notes.read_text()
    assert comparable(read_history(job.history)) == comparable(read_history(calm.history))


def test_a_row_of_a_window_that_goes_on_is_not_kept_twice(tmp_path):
    """The attempt failed right at its checkpoint: what it logged of steps 4 to 8 is part of the row of step 9."""
    calm, job = phase_job(tmp_path / "calm", log_every_steps=9), phase_job(tmp_path / "out", log_every_steps=9)
    run_phase_in_process(calm)
    with pytest.raises(RuntimeError, match="no such batch"):
        run_phase_in_process(job, build_failing_at(8))
    assert [row["step"] for row in read_history(job.history)] == [8]
    run_phase_in_process(job)
    assert [row["step"] for row in read_history(job.history)] == [9, 12]
    assert comparable(read_history(job.history)) == comparable(read_history(calm.history))


def build_failing_at(number):
    def build(job, strategy):
        model, batches = build_stub(job, strategy)
        inner = batches.step

        def step(at):
            if at == number:
                raise RuntimeError("no such batch")
            return inner(at)

        batches.step = step
        return model, batches

    return build


def test_a_mistake_found_before_the_first_step_is_noted_and_closes_the_sink(tmp_path):
    def build(job, strategy):
        raise TpoError("the base model is not there: give another one")

    job, sink = phase_job(tmp_path), Sink()
    with pytest.raises(TpoError):
        run_phase_in_process(job, build, sink)
    assert sink.closed == ["FAILED"]
    assert job.notes.read_text() == "failed: the base model is not there: give another one\n"


def test_a_sink_is_closed_though_the_disk_takes_no_note(tmp_path):
    job, sink = phase_job(tmp_path), Sink()
    job.notes.mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        run_phase_in_process(job, sink=sink)
    assert sink.closed == ["FAILED"]


def test_a_phase_whose_output_was_lost_is_finished_from_its_last_checkpoint(tmp_path):
    job = phase_job(tmp_path / "out", checkpoint_uri=str(tmp_path / "safe"))
    run_phase_in_process(job)
    before, weights = json.loads(job.summary.read_text()), torch.load(job.model / "weights.pt")
    shutil.rmtree(job.output)
    run_phase_in_process(job)
    assert json.loads(job.summary.read_text()) == before
    assert all(torch.equal(weights[name], tensor) for name, tensor in torch.load(job.model / "weights.pt").items())


@pytest.mark.parametrize("lost", [False, True])
def test_the_summary_has_the_last_finite_losses_where_the_last_steps_were_skipped(tmp_path, lost):
    job = phase_job(tmp_path / "out", checkpoint_uri=str(tmp_path / "safe"), keep_best=1)
    run_phase_in_process(job, build_not_finite(9, 10, 11))
    rows = read_history(job.history)
    assert "total" not in rows[-1]
    if lost:
        shutil.rmtree(job.output)
        run_phase_in_process(job)
    summary = json.loads(job.summary.read_text())
    assert summary["final"]["total"] == rows[-2]["total"]
    assert (summary["steps"], summary["skipped"]) == (12, 3)


def test_a_phase_without_any_finite_loss_has_diverged(tmp_path):
    job = phase_job(tmp_path, max_skipped_steps=12)
    with pytest.raises(DivergedError, match="none of the 12 steps had a finite loss: lower the learning rates"):
        run_phase_in_process(job, build_not_finite(*range(12)))
    assert not job.summary.exists()
