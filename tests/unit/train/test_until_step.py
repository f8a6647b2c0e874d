"""A phase that is trained rung by rung, and one that begins at a checkpoint of another."""

import json
import shutil

import pytest
import torch

from tests.unit.train.checkpoints.made import comparable
from tests.unit.train.in_process import phase_job, run_phase_in_process
from tpo_core.errors import TpoError
from tpo_core.train.checkpoints.fork import fork
from tpo_core.train.checkpoints.manifest import Manifest, folder_name
from tpo_core.train.job import PhaseJob
from tpo_core.train.recorder import read_history


def until(job, step, **changes):
    return PhaseJob(**{**vars(job), "until_step": step, **changes})


def weights(job):
    return torch.load(job.model / "weights.pt")


def same(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


def reweighted(job, **loss_weights):
    stage = job.stage.model_copy(update={"loss_weights": {**job.stage.loss_weights, **loss_weights}})
    return job.recipe.model_copy(update={"stages": {"vision_task": stage}})


def test_rung_by_rung_comes_to_what_one_run_comes_to(tmp_path):
    straight, rungs = phase_job(tmp_path / "a"), phase_job(tmp_path / "b")
    run_phase_in_process(straight)
    assert straight.finished
    for step in (3, 6):
        assert not until(rungs, step).finished
        run_phase_in_process(until(rungs, step))
        assert until(rungs, step).finished
        assert json.loads(rungs.summary.read_text())["steps"] == step
        assert not rungs.finished
    early = weights(rungs)
    run_phase_in_process(rungs)
    assert rungs.finished
    assert same(weights(straight), weights(rungs))
    assert not same(early, weights(rungs))
    rows = [comparable(read_history(job.history)) for job in (straight, rungs)]
    assert [{**row, "steps": 12} for row in rows[0]] == [{**row, "steps": 12} for row in rows[1]]


def test_an_end_behind_that_of_the_phase_is_the_end_of_the_phase(tmp_path):
    job = until(phase_job(tmp_path), 99)
    run_phase_in_process(job)
    assert json.loads(job.summary.read_text())["steps"] == 12


def test_a_fork_goes_on_from_the_checkpoint_of_another_under_its_own_weights(tmp_path):
    source = until(phase_job(tmp_path / "a"), 4)
    run_phase_in_process(source)
    other = reweighted(source, region=5.0)
    forked = PhaseJob(**{**vars(source), "recipe": other, "output": tmp_path / "b", "until_step": None})
    fork(source.checkpoints, 4, forked.checkpoints, forked.identity)
    at_start = Manifest.read(f"{forked.checkpoints}/{folder_name(4)}")
    assert at_start.run == forked.identity != source.identity
    run_phase_in_process(forked)
    assert "resuming at step 4" in forked.notes.read_text()

    alone = PhaseJob(**{**vars(forked), "output": tmp_path / "c"})
    run_phase_in_process(alone)
    assert not same(weights(forked), weights(alone)), "the first four steps had other weights"

    same_weights = PhaseJob(**{**vars(source), "output": tmp_path / "d", "until_step": None})
    fork(source.checkpoints, 4, same_weights.checkpoints, same_weights.identity)
    run_phase_in_process(same_weights)
    straight = PhaseJob(**{**vars(source), "output": tmp_path / "e", "until_step": None})
    run_phase_in_process(straight)
    assert same(weights(same_weights), weights(straight))


def test_without_a_fork_a_checkpoint_of_other_weights_is_refused(tmp_path):
    source = until(phase_job(tmp_path / "a"), 4)
    run_phase_in_process(source)
    shutil.copytree(tmp_path / "a" / "checkpoints", tmp_path / "b" / "checkpoints")
    other = PhaseJob(**{**vars(source), "recipe": reweighted(source, region=5.0), "output": tmp_path / "b"})
    with pytest.raises(TpoError, match=r"is of another run \(.*loss_weights\.region 1\.0 -> 5\.0"):
        run_phase_in_process(other)


def test_there_must_be_a_checkpoint_to_fork_from(tmp_path):
    with pytest.raises(FileNotFoundError):
        fork(str(tmp_path / "none"), 4, str(tmp_path / "b"), {})
