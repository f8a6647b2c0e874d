"""What a Ray Train worker adds around a rank of a phase, without Ray."""

import errno
import json
import os
from types import SimpleNamespace

import pytest
import torch

from tests.unit.train.checkpoints.made import steps_at
from tests.unit.train.stub import build_stub, stub_recipe
from tpo_core.config.nodes import NodesConfig
from tpo_core.errors import StorageTroubleError, TpoError
from tpo_core.storage import uri as uris
from tpo_core.train import ray_trainer
from tpo_core.train.exchange import collect, is_delivered, output_here
from tpo_core.train.job import PhaseJob
from tpo_core.train.loop import DivergedError
from tpo_core.train.recorder import read_history
from tpo_core.train.sinks import NoSink


class Desk:
    """Keeps what is told; nobody asks to stop."""

    def __init__(self):
        self.lines, self.error = [], None

    def tell(self, line):
        self.lines.append(line)

    def pass_on(self, stop):
        pass

    def fail(self, error):
        self.error = self.error or error

    def failed(self):
        return self.error


@pytest.fixture
def work(monkeypatch):
    """Runs a job as the only worker of a group."""
    context = SimpleNamespace(get_local_world_size=lambda: 1, get_world_rank=lambda: 0)
    monkeypatch.setattr("ray.train.get_context", lambda: context)
    monkeypatch.setattr("ray.train.torch.get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr("ray.train.report", lambda row: None)
    monkeypatch.setattr(ray_trainer, "drained", lambda: False)
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    desk = Desk()

    def run(job, build=build_stub):
        run.finished = ray_trainer.train_worker(job, NoSink, build, desk)
        return desk.lines

    run.desk = desk
    return run


def job_at(output, exchange=None, **train):
    recipe = stub_recipe(**train)
    return PhaseJob(
        recipe=recipe, stage_name="vision_task", phase=recipe.stages["vision_task"].phases[0], shards_uri="none",
        init_uri="none", output=output, exchange=exchange,
    )  # fmt: skip


def test_a_full_disk_in_a_worker_is_one_line(tmp_path, work):
    def build(job, strategy):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(TpoError, match=rf"^disk full while writing {tmp_path} \(\d+ bytes free on its disk\)"):
        work(job_at(tmp_path), build)


@pytest.mark.parametrize("error", [TpoError("no such model"), DivergedError("lower the rates")])
def test_an_error_that_would_come_again_is_left_at_the_desk_and_nothing_is_tried_again(tmp_path, work, error):
    built = []

    def build(job, strategy):
        built.append(1)
        raise error

    with pytest.raises(type(error)):
        work(job_at(tmp_path), build)
    assert work.desk.error is error
    work(job_at(tmp_path), build)  # Ray starts the group again
    assert work.finished is False
    assert built == [1]


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        StorageTroubleError("s3://b/k: the storage failed 8 times; run again when it has recovered"),
    ],
)
def test_an_error_that_may_pass_is_tried_again(tmp_path, work, error):
    def build(job, strategy):
        raise error

    with pytest.raises(type(error)):
        work(job_at(tmp_path), build)
    assert work.desk.error is None
    work(job_at(tmp_path))
    assert work.finished is True


def test_why_another_rank_than_the_first_fails_is_told(tmp_path, work, monkeypatch):
    def build(job, strategy):
        raise RuntimeError("CUDA error:\nout of memory")

    monkeypatch.setattr(ray_trainer.ray.train.get_context(), "get_world_rank", lambda: 3)
    with pytest.raises(RuntimeError):
        work(job_at(tmp_path), build)
    assert work.desk.lines == ["vision_task.all  rank 3 failed: RuntimeError: CUDA error: out of memory"]


def test_a_node_that_is_drained_is_left_at_the_end_of_the_step_and_not_of_the_row(tmp_path, work, monkeypatch):
    """A row is ten steps by default, and the notice may be of less."""
    told = []

    def build(job, strategy):
        model, batches = build_stub(job, strategy)
        inner = batches.step

        def step(number):
            told.extend(["drained"] if number == 3 else [])
            return inner(number)

        batches.step = step
        return model, batches

    monkeypatch.setattr(ray_trainer, "drained", lambda: bool(told))
    lines = work(job_at(tmp_path), build)
    assert work.finished is False
    assert any("asked to stop: saved and left at step 4" in line for line in lines)


def test_a_worker_tells_what_it_notes_and_what_hung_before_it(tmp_path, work):
    job = job_at(tmp_path)
    job.stacks.mkdir()
    (job.stacks / "rank1-host-7.stacks").write_text("stood here")
    lines = work(job)
    assert lines[0] == f"vision_task.all  a worker hung and was ended; where it was: {job.stacks}/rank1-host-7.txt"
    assert lines[1].startswith("vision_task.all  12 steps of 2 micro-batches")
    assert [line.split()[2] for line in lines if "/12 " in line] == ["3/12", "6/12", "9/12", "12/12"]


class DiesError(Exception):
    """Stands for a machine that is gone."""


def build_dying(job, strategy):
    model, batches = build_stub(job, strategy)
    inner = batches.step

    def step(number):
        if number == 7:
            raise DiesError
        return inner(number)

    batches.step = step
    return model, batches


def test_a_phase_goes_on_on_a_machine_that_has_nothing_of_it(tmp_path, work, bucket, monkeypatch):
    calm = job_at(tmp_path / "calm")
    work(calm)
    driver, exchange = tmp_path / "driver", f"{bucket}/exchange/abc"
    monkeypatch.setenv("TPO_SCRATCH", str(tmp_path / "first machine"))
    with pytest.raises(DiesError):
        work(job_at(driver, exchange), build_dying)
    monkeypatch.setenv("TPO_SCRATCH", str(tmp_path / "second machine"))
    stacks = output_here(exchange).with_name(f"{output_here(exchange).name}.stacks")
    stacks.mkdir(parents=True)
    (stacks / "rank1-host-7.stacks").write_text("stood here")
    lines = work(job_at(driver, exchange))
    assert any("resuming at step 4 " in line for line in lines)
    assert any(line.endswith(f"where it was: {exchange}/stacks/rank1-host-7.txt") for line in lines)
    assert is_delivered(exchange, None)
    driver.mkdir()
    collect(exchange, driver)
    job = job_at(driver)
    losses = [row["total"] for row in read_history(calm.history)]
    assert [row["total"] for row in read_history(job.history)] == losses
    assert json.loads(job.summary.read_text())["steps"] == 12
    assert "resuming at step 4" in job.notes.read_text()
    assert (job.stacks / "rank1-host-7.txt").read_text() == "stood here"
    expected, found = (torch.load(each.model / "weights.pt") for each in (calm, job))
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())


def test_an_outage_of_the_exchange_costs_a_checkpoint_and_not_the_run(tmp_path, work, bucket, monkeypatch):
    """History and notes cannot be kept at step 4: a checkpoint there would say that they are."""
    write, left = uris.write_bytes, [2]

    def down(uri, data):
        if "/kept/" in str(uri) and left[0]:
            left[0] -= 1
            raise TpoError(f"{uri}: the storage failed 8 times; run again when it has recovered")
        write(uri, data)

    monkeypatch.setattr(uris, "write_bytes", down)
    monkeypatch.setenv("TPO_SCRATCH", str(tmp_path / "machine"))
    exchange, seen = f"{bucket}/exchange/outage", []
    job = job_at(tmp_path / "driver", exchange, log_every_steps=1)

    def build(job, strategy):
        model, batches = build_stub(job, strategy)
        inner = batches.step

        def step(number):
            seen.append(steps_at(job.checkpoints))
            return inner(number)

        batches.step = step
        return model, batches

    lines = work(job, build)
    told = [line for line in lines if "failed" in line]
    assert [line.partition(" (")[0] for line in told] == [
        "vision_task.all  the checkpoint of step 4 failed", "vision_task.all  the checkpoint of step 8 failed",
    ]  # fmt: skip
    assert seen[-1] == []
    assert steps_at(job.checkpoints) == [12]
    assert is_delivered(exchange, None)


class Told(NoSink):
    """How a phase ended."""

    def __init__(self):
        self.statuses = []

    def close(self, status):
        self.statuses.append(status)
        return "MLflow has not taken everything: 3 records lost"


def test_the_driver_says_that_a_phase_failed_whose_workers_could_not(tmp_path, monkeypatch):
    def killed(*about):
        raise RuntimeError("workers died more than train.max_failures times")

    sink, lines = Told(), []
    monkeypatch.setattr(ray_trainer, "Desk", lambda: SimpleNamespace(clear=lambda: None))
    monkeypatch.setattr(ray_trainer, "room_for", lambda job, echo: SimpleNamespace(there=lambda: True))
    monkeypatch.setattr(ray_trainer, "fit", killed)
    with pytest.raises(RuntimeError, match="workers died"):
        ray_trainer.run(job_at(tmp_path), lambda: sink, build_stub, lines.append)
    assert sink.statuses == ["FAILED"]
    assert lines == ["vision_task.all  MLflow has not taken everything: 3 records lost"]


@pytest.mark.parametrize(("workers", "start_s"), [(1, "300"), ([1, 2], "10")])
def test_a_run_says_how_long_a_group_may_take_to_be_placed(tmp_path, monkeypatch, workers, start_s):
    monkeypatch.delenv(ray_trainer.START_TIMEOUT, raising=False)
    monkeypatch.setenv("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "7")
    before = dict(os.environ)
    with ray_trainer.environment(job_at(tmp_path, workers=workers)):
        assert os.environ[ray_trainer.START_TIMEOUT] == start_s
        assert os.environ["RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"] == "7"  # what the user has set stays
    assert dict(os.environ) == before


@pytest.mark.parametrize(("group", "added"), [(None, {}), ("gpu", {"node_group_gpu": 0.001})])
def test_a_worker_asks_for_a_node_of_its_group(group, added):
    recipe = stub_recipe(cpus_per_worker=4.0)
    recipe = recipe.model_copy(update={"nodes": NodesConfig(train=group)})
    assert ray_trainer.resources(recipe) == {"CPU": 4.0} | added


@pytest.mark.parametrize(("hang_timeout_s", "least_s"), [(600.0, 1800), (7200.0, 7201), (None, 86_400)])
def test_ranks_wait_for_one_that_hangs_until_the_watchdog_has_found_it(hang_timeout_s, least_s):
    assert ray_trainer.StoppableTorch(25.0, hang_timeout_s).timeout_s >= least_s
