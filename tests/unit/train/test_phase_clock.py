"""The clock of the watchdog runs while ranks compute, and not while storage is waited for."""

from contextlib import contextmanager

import pytest

from tests.unit.train.in_process import phase_job, run_phase_in_process
from tests.unit.train.stub import build_stub
from tests.unit.train.test_stop import until
from tpo_core.storage import uri as uris
from tpo_core.train.checkpoints.checkpointer import Checkpointer
from tpo_core.train.phase import Surroundings
from tpo_core.train.strategies.replicated import Replicated


class Clock(Surroundings):
    """Tells whether it runs."""

    def __init__(self):
        self.runs, self.when, self.stops_in_step = False, {}, False

    @contextmanager
    def timed(self):
        self.runs = True
        try:
            yield
        finally:
            self.runs = False

    @contextmanager
    def untimed(self):
        assert self.runs
        self.runs = False
        try:
            yield
        finally:
            self.runs = True

    def stops(self):
        return self.stops_in_step and "step" in self.when

    def note(self, name, inner):
        """`inner`, which notes whether the clock runs when it is called."""

        def noted(*arguments, **named):
            self.when.setdefault(name, set()).add(self.runs)
            return inner(*arguments, **named)

        return noted


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for name, owner in (("resume", Checkpointer), ("prepare", Replicated), ("weights", Replicated)):
        monkeypatch.setattr(owner, name, clock.note(name, getattr(owner, name)))
    put = uris.put_file

    def held(path, uri):
        """An upload that ends only when the clock was stopped for it."""
        until(lambda: not clock.runs)
        put(path, uri)

    monkeypatch.setattr(uris, "put_file", held)
    return clock


def built(clock):
    def build(job, strategy):
        model, batches = build_stub(job, strategy)
        batches.step = clock.note("step", batches.step)
        model.save_pretrained = clock.note("save_pretrained", model.save_pretrained)
        return model, batches

    return clock.note("build", build)


def test_the_clock_runs_where_ranks_compute_and_not_where_storage_is_waited_for(tmp_path, clock):
    job = phase_job(tmp_path)
    sink = run_phase_in_process(job, built(clock), outside=clock)
    assert sink.closed == ["FINISHED"]
    assert clock.when == {
        "build": {False}, "prepare": {True}, "resume": {False}, "step": {True}, "weights": {True},
        "save_pretrained": {False},
    }  # fmt: skip
    assert "failed" not in job.notes.read_text()


def test_a_rank_that_is_asked_to_stop_may_take_its_time_to_save(tmp_path, clock):
    clock.stops_in_step = True
    job = phase_job(tmp_path)
    run_phase_in_process(job, built(clock), outside=clock)
    assert "asked to stop: saved and left at step 1" in job.notes.read_text()


def test_a_rank_that_fails_may_take_its_time_to_leave(tmp_path, clock):
    """It waits for the checkpoint that is under way."""

    def build(job, strategy):
        model, batches = built(clock)(job, strategy)
        inner = batches.step

        def step(number):
            if number == 4:
                raise KeyError("batch")
            return inner(number)

        batches.step = step
        return model, batches

    job = phase_job(tmp_path)
    with pytest.raises(KeyError, match="batch"):
        run_phase_in_process(job, build, outside=clock)
    assert not clock.runs
