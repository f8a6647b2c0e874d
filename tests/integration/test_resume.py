"""A phase that was killed and resumed ends as the one that nothing disturbed."""

import json
import random
import uuid

import pytest
import torch

from tests.integration.resume_job import Kill, Setting, attempt, elsewhere, samples
from tests.s3_server import KEYS, Faults, faulty_proxy
from tests.unit.train.checkpoints.made import comparable, debris, steps_at
from tests.unit.train.stub import StubModel
from tpo_core.storage import s3
from tpo_core.train import export as exporting
from tpo_core.train.checkpoints.manifest import step_folders
from tpo_core.train.checkpoints.reader import open_checkpoint

pytestmark = pytest.mark.slow

STEPS = 12
EVERY = 4


def undisturbed(folder, **how):
    setting = Setting(folder / "straight" / "out", **how)
    assert attempt(setting)
    return setting


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    return {world: undisturbed(tmp_path_factory.mktemp(f"straight-{world}"), world=world) for world in (1, 2)}


@pytest.fixture(scope="module")
def without_dropout(tmp_path_factory):
    return undisturbed(tmp_path_factory.mktemp("plain"), dropout=False)


def history(setting):
    return [json.loads(line) for line in setting.job.history.read_text().splitlines()]


def last_state(setting):
    """Trained parameters, moments and buffers after the last step."""
    checkpoint = open_checkpoint(step_folders(setting.job.checkpoints)[STEPS])
    with checkpoint.tensors() as read:
        return {name: read(name).clone() for name in checkpoint.index()}


def require_same(setting, other):
    """Bit-identical weights and moments, the same samples in every step, the same rows of history, and no debris."""
    weights = [torch.load(each.job.model / "weights.pt") for each in (setting, other)]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    states = [last_state(each) for each in (setting, other)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert samples(setting) == samples(other)
    assert sorted(samples(setting)) == list(range(STEPS))
    assert comparable(history(setting)) == comparable(history(other))
    assert steps_at(setting.job.checkpoints) == [STEPS - EVERY, STEPS]
    assert debris(setting.job.checkpoints) == []


@pytest.mark.parametrize(("world", "seed"), [*((1, seed) for seed in range(6)), *((2, seed) for seed in range(6, 10))])
def test_killed_at_random_times(tmp_path, straight, world, seed):
    setting, draw = Setting(tmp_path / "out", world=world, step_s=0.02), random.Random(seed)
    within_s = STEPS * setting.step_s  # no run is faster than its pauses, so that the first kill meets one
    assert not attempt(setting, Kill(rank=draw.randrange(world), after_s=draw.uniform(0.0, 0.9 * within_s)))
    for _ in range(2):
        attempt(setting, Kill(rank=draw.randrange(world), after_s=draw.uniform(0.0, 1.5 * within_s)))
    assert attempt(setting)
    require_same(setting, straight[world])


POINTS = [  # of the second checkpoint, at step 8, while it is written; and of the third, which deletes the first
    *(("put_file", 2, after) for after in (False, True)),
    *(("write_bytes", call, after) for call in (3, 4) for after in (False, True)),  # the index, then the commit
    *(("delete", call, after) for call in (1, 2) for after in (False, True)),
]


@pytest.mark.parametrize(("function", "call", "after"), POINTS)
def test_killed_while_a_checkpoint_is_written(tmp_path, straight, function, call, after):
    setting = Setting(tmp_path / "out", step_s=0.01)
    attempt(setting, Kill(function=function, call=call, after=after))
    before = steps_at(setting.job.checkpoints)
    committed = {"put_file": 4, "write_bytes": 8 if (call, after) == (4, True) else 4, "delete": 12}[function]
    assert max(before) == committed
    setting.job.summary.unlink(missing_ok=True)  # the phase may have been finished before the write was
    assert attempt(setting)
    assert f"resuming at step {committed} from step-{committed:08d}" in setting.job.notes.read_text()
    require_same(setting, straight[1])


@pytest.mark.parametrize(
    ("rank", "function", "call", "after"),
    [
        (1, "put_file", 2, False),
        (1, "put_file", 2, True),
        (1, "write_bytes", 2, False),  # what tells rank 0 that the part is there
        (1, "write_bytes", 2, True),
        (0, "put_file", 2, True),
        (0, "write_bytes", 4, False),
        (0, "write_bytes", 4, True),
    ],
)
def test_one_of_two_ranks_killed_while_a_checkpoint_is_written(tmp_path, straight, rank, function, call, after):
    setting = Setting(tmp_path / "out", world=2, step_s=0.01)
    attempt(setting, Kill(rank=rank, function=function, call=call, after=after))
    assert max(steps_at(setting.job.checkpoints)) in (4, 8)
    assert attempt(setting)
    assert "resuming at step" in setting.job.notes.read_text()
    require_same(setting, straight[2])


def require_near(settings, other):
    """The same samples, and losses, moments and weights that agree within rounding; `settings`: of each attempt."""
    assert samples(*settings) == samples(other)
    for row, expected in zip(history(settings[-1]), history(other), strict=True):
        names = [n for n in expected if n in ("total", "grad_norm") or n.startswith(("loss/", "kind/", "lr/"))]
        assert {n: row[n] for n in names} == pytest.approx({n: expected[n] for n in names}, rel=1e-5, abs=1e-5)
    ours, theirs = last_state(settings[-1]), last_state(other)
    assert ours.keys() == theirs.keys()
    for name in theirs:
        if not name.startswith("buffer/"):  # the stub counts its calls, of which each rank makes its own
            torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


def killed_at_8(setting):
    """An attempt that ends when the checkpoint of step 8 is committed."""
    attempt(setting, Kill(function="write_bytes", call=4, after=True))
    setting.job.summary.unlink(missing_ok=True)  # the phase may have been finished before the write was
    return setting


@pytest.mark.parametrize(("first", "then"), [(2, 1), (1, 2), (3, 2)])
def test_resumed_at_another_worker_count(tmp_path, without_dropout, first, then):
    setting = killed_at_8(Setting(tmp_path / "out", world=first, dropout=False))
    other = elsewhere(setting, world=then)
    assert attempt(other)
    assert "resuming at step 8" in setting.job.notes.read_text()
    require_near((setting, other), without_dropout)


@pytest.mark.parametrize(
    ("first", "then", "world"),
    [("fsdp2", "ddp", 1), ("ddp", "fsdp2", 2), ("zero2", "fsdp2", 2), ("zero3", "zero2", 2), ("ddp", "zero3", 2)],
)
def test_resumed_under_another_strategy(tmp_path, without_dropout, first, then, world):
    setting = killed_at_8(Setting(tmp_path / "out", world=2, strategy=first, dropout=False))
    assert open_checkpoint(step_folders(setting.job.checkpoints)[8]).manifest.strategy == first
    other = elsewhere(setting, strategy=then, world=world)
    assert attempt(other)
    assert "resuming at step 8" in setting.job.notes.read_text()
    require_near((setting, other), without_dropout)


@pytest.mark.parametrize("strategy", ["ddp", "zero2", "zero3", "fsdp2"])
def test_one_process_exports_the_model_of_two_ranks(tmp_path, monkeypatch, strategy):
    setting = undisturbed(tmp_path, world=2, strategy=strategy)
    checkpoint, job = open_checkpoint(step_folders(setting.job.checkpoints)[STEPS]), setting.job
    monkeypatch.setattr(exporting, "build_model", lambda *about: StubModel())
    exporting.export(checkpoint, job.recipe, job.stage, "none", tmp_path / "exported")
    ours, theirs = (torch.load(folder / "weights.pt") for folder in (tmp_path / "exported", job.model))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("strategy", ["zero2", "zero3", "fsdp2"])
def test_resumed_under_the_same_strategy_bit_for_bit(tmp_path, strategy):
    straight = undisturbed(tmp_path, world=2, strategy=strategy)
    setting = killed_at_8(Setting(tmp_path / "out", world=2, strategy=strategy))
    assert attempt(setting)
    assert "resuming at step 8" in setting.job.notes.read_text()
    require_same(setting, straight)


def test_checkpoints_on_s3_that_fails_now_and_then(tmp_path, straight, s3_endpoint, bucket, monkeypatch):
    faults = Faults(3, errors=0.15, resets=0.05)
    root = f"{bucket}/{uuid.uuid4().hex}"
    with faulty_proxy(s3_endpoint, faults) as endpoint:
        env = {**KEYS, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint, "TPO_SCRATCH": str(tmp_path)}
        setting = Setting(tmp_path / "run" / "out", world=2, step_s=0.02, uri=root, env=env)
        attempt(setting, Kill(rank=1, function="put_file", call=2, after=True))
        assert attempt(setting)
    assert faults.counts["error"] > 0
    assert not (setting.output / "checkpoints").exists()
    s3.client.cache_clear()
    require_same(setting, straight[2])
    assert list((tmp_path / "checkpoints").rglob("*.safetensors")) == []  # no part is left in the scratch folder
