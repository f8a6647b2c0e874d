"""Ray Train starts, restarts and finishes a phase of the stub model."""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import ray
import torch

from tests.unit.train import stub
from tests.unit.train.stub import build_stub, stub_recipe
from tpo_core.errors import RunFailedError, TpoError
from tpo_core.storage import uri as uris
from tpo_core.train.loop import DivergedError
from tpo_core.train.ray_trainer import run_phase

for module in (stub, sys.modules[__name__]):  # workers cannot import the tests
    ray.cloudpickle.register_pickle_by_value(module)

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def build_dying(flag: Path, at_step: int, job, strategy):
    """The stub, whose last rank dies without a word at `at_step`, once: `flag` remembers."""
    model, batches = build_stub(job, strategy)
    inner = batches.step

    def step(number):
        if number == at_step and strategy.rank == strategy.world - 1 and not flag.exists():
            flag.touch()
            os._exit(1)
        return inner(number)

    batches.step = step
    return model, batches


def build_refusing(job, strategy, error=None, tries: Path | None = None):
    if tries is not None:
        (tries / str(os.getpid())).touch()
    raise error or TpoError("the base model is not there: give another one")


def build_slow(seconds: float, job, strategy):
    """The stub on slow storage: reading the model takes `seconds`, and so does each part of a checkpoint of rank 1, and
    writing the model in the end."""
    time.sleep(seconds)
    model, batches = build_stub(job, strategy)
    put, save = uris.put_file, model.save_pretrained

    def slow_put(path, uri):
        time.sleep(seconds * strategy.rank)
        put(path, uri)

    def slow_save(directory, weights):
        time.sleep(seconds)
        save(directory, weights)

    uris.put_file, model.save_pretrained = slow_put, slow_save  # in the worker's process
    return model, batches


def run(output, *, build=build_stub, echo=print, resume=True, **train):
    recipe = stub_recipe(cpus_per_worker=0.4, **train)
    return run_phase(
        recipe, "vision_task", recipe.stages["vision_task"].phases[0], shards_uri="none", init_uri="none",
        output=output, open_tracker=None, resume=resume, echo=echo, build=build,
    )  # fmt: skip


def weights(output):
    return torch.load(output / "model" / "weights.pt")


def steps(output):
    return [json.loads(line)["step"] for line in (output / "history.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("cluster")
def test_a_killed_worker_changes_nothing_in_the_result(tmp_path):
    calm, disturbed, lines = tmp_path / "calm", tmp_path / "disturbed", []
    result = run(calm, workers=2, echo=lines.append)
    assert (result["steps"], result["samples"]) == (12, 96)
    assert lines[0].startswith("vision_task.all  12 steps of 2 micro-batches (region 4")
    assert "starting at step 0" in lines[2]
    assert [line.split()[2] for line in lines[3:]] == ["3/12", "6/12", "9/12", "12/12"]
    assert not (calm / "checkpoints").exists()
    assert not (calm / "ray").exists()

    flag = tmp_path / "died"
    again = run(disturbed, workers=2, build=partial(build_dying, flag, 7))
    assert flag.exists()
    assert "resuming at step 4" in (disturbed / "notes.txt").read_text()
    assert steps(disturbed) == steps(calm) == [3, 6, 9, 12]
    assert again["final"] == result["final"]
    assert all(torch.equal(tensor, weights(disturbed)[name]) for name, tensor in weights(calm).items())
    assert run(calm, workers=2, build=build_refusing) == result  # finished: nothing is run again


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    "error",
    [TpoError("the base model is not there: give another one"), DivergedError("step 3: total nan; lower the rates")],
)
def test_an_error_that_would_come_again_comes_out_as_it_is_after_one_try(tmp_path, error):
    with pytest.raises(type(error)) as caught:
        run(tmp_path / "out", build=partial(build_refusing, error=error, tries=tmp_path), max_failures=2)
    assert str(caught.value) == str(error)
    assert len(list(tmp_path.glob("[0-9]*"))) == 1


@pytest.mark.usefixtures("cluster")
def test_slow_storage_is_no_hang(tmp_path):
    """Nothing but steps has to end within train.hang_timeout_s."""
    settings = {"workers": 2, "hang_timeout_s": 6, "checkpoint_every_steps": 6, "max_failures": 0}
    assert run(tmp_path, build=partial(build_slow, 9.0), **settings)["steps"] == 12
    assert not (tmp_path / "stacks").exists()


@pytest.mark.usefixtures("cluster")
def test_a_run_that_failed_for_good_is_resumed_by_the_next_call(tmp_path):
    flag = tmp_path / "died"
    with pytest.raises(RunFailedError, match=r"workers died more often than train.max_failures \(0\) allows"):
        run(tmp_path / "out", build=partial(build_dying, flag, 9), max_failures=0)
    assert not (tmp_path / "out" / "phase.json").exists()
    run(tmp_path / "out")
    assert "resuming at step 8" in (tmp_path / "out" / "notes.txt").read_text()
    assert steps(tmp_path / "out") == [3, 6, 9, 12]
