"""SIGTERM as a request: in a process, and among the ranks of a phase."""

import errno
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.unit.train.stub import build_stub, stub_recipe
from tpo_core.storage import uri as uris
from tpo_core.train.job import PhaseJob
from tpo_core.train.phase import Surroundings, run_rank
from tpo_core.train.recorder import read_history
from tpo_core.train.sinks import NoSink
from tpo_core.train.stop import TERMINATED, StopRequest

WAIT_S = 20.0


def until(condition):
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end, "in vain"
        time.sleep(0.01)


@pytest.fixture
def before():
    """What SIGTERM did before: notes that it was reached."""
    reached = []
    former = signal.signal(signal.SIGTERM, lambda number, frame: reached.append(number))
    yield reached
    signal.signal(signal.SIGTERM, former)


def test_the_first_signal_asks_and_the_second_is_as_before(before):
    stop = StopRequest()
    stop.listen(WAIT_S, lambda: before.append("deadline"))
    assert not stop.asked
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: stop.asked)
    assert before == []
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: before)
    stop.forget()
    assert before == [signal.SIGTERM]


def test_nothing_is_left_of_a_request_that_was_not_made(before):
    stop = StopRequest()
    stop.listen(WAIT_S, lambda: before.append("deadline"))
    stop.forget()
    os.kill(os.getpid(), signal.SIGTERM)
    until(lambda: before)
    assert before == [signal.SIGTERM]
    assert not stop.asked
    stop.listen(WAIT_S, lambda: None)  # and it may listen again
    stop.forget()


def test_a_deadline_counts_from_the_signal(before):
    stop = StopRequest()
    stop.listen(0.05, lambda: before.append("deadline"))
    stop.ask()  # the wish of another process has no deadline here
    os.kill(os.getpid(), signal.SIGTERM)  # of a machine that told first that it goes: the rank may be saving
    until(lambda: before)
    stop.forget()
    assert before == ["deadline"]


def test_a_worker_that_cannot_leave_in_time_is_ended():
    code = (
        "import os, signal, time; from tpo_core.train import stop; stop.listen_in_worker(0.2);"
        "os.kill(os.getpid(), signal.SIGTERM); assert stop.WORKER.asked; time.sleep(60)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=50, check=False).returncode == TERMINATED == 143


class AskedAt(Surroundings):
    """A request that comes during a step; counts the signs of life."""

    def __init__(self, step):
        self.step, self.steps = step, 0

    def alive(self):
        self.steps += 1

    def stops(self):
        return self.steps == self.step


def run(output, outside, **train):
    recipe = stub_recipe(**train)
    job = PhaseJob(
        recipe=recipe, stage_name="vision_task", phase=recipe.stages["vision_task"].phases[0], shards_uri="none",
        init_uri="none", output=output,
    )  # fmt: skip
    finished = run_rank(
        job, build=build_stub, device=torch.device("cpu"), open_sink=NoSink, report=lambda row: None, outside=outside,
    )  # fmt: skip
    return job, finished


@pytest.mark.parametrize("step", [1, 5, 12])
def test_a_rank_that_is_asked_saves_leaves_and_goes_on_there(tmp_path, step):
    calm, finished = run(tmp_path / "calm", Surroundings())
    assert finished
    job, finished = run(tmp_path / "asked", AskedAt(step))
    assert not finished
    assert not job.summary.exists()
    assert f"asked to stop: saved and left at step {step}" in job.notes.read_text()
    outside = AskedAt(None)
    job, finished = run(tmp_path / "asked", outside)
    assert finished
    assert outside.steps == 12 - step
    assert f"resuming at step {step}" in job.notes.read_text()
    assert [row["step"] for row in read_history(job.history)] == [3, 6, 9, 12]
    weights = torch.load(job.model / "weights.pt")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in torch.load(calm.model / "weights.pt").items())


def test_a_rank_that_is_asked_while_it_loads_takes_no_step(tmp_path):
    outside = AskedAt(0)
    job, finished = run(tmp_path, outside)
    assert not finished
    assert outside.steps == 0
    assert job.notes.read_text().splitlines()[-1] == "asked to stop: left before the first step"
    run(tmp_path, AskedAt(5))
    outside = AskedAt(0)
    _, finished = run(tmp_path, outside)
    assert not finished
    assert outside.steps == 0
    assert job.notes.read_text().splitlines()[-1] == "asked to stop: saved and left at step 5"
    assert run(tmp_path, Surroundings())[1]


def test_a_rank_that_is_asked_does_not_claim_what_could_not_be_saved(tmp_path, monkeypatch):
    put = uris.put_file

    def full_at_five(path, uri):
        if "step-00000005" in uri:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(path, uri)

    monkeypatch.setattr(uris, "put_file", full_at_five)
    job, finished = run(tmp_path, AskedAt(5))
    assert not finished
    last = job.notes.read_text().splitlines()[-1]
    assert last == "asked to stop: left at step 5 without saving it; what stays is the checkpoint of step 4"
