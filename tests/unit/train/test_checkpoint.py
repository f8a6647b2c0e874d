import errno
import json
import os

import pytest
import torch

from tests.unit.train.stub import Run, StubBatches, build_stub, stub_recipe
from tpo_core.errors import TpoError
from tpo_core.train.checkpoint import committed, load_checkpoint, newest_checkpoint, save_checkpoint
from tpo_core.train.loop import Progress
from tpo_core.train.phase import PhaseJob, run_rank


class KilledError(Exception):
    """Stands for a process that dies."""


TIMES = ("samples_per_s", "tokens_per_s", "data_wait", "data_wait_s", "eta_s", "seconds")


@pytest.fixture
def run():
    return Run()


def save(root, run, step):
    run.progress.step = step
    save_checkpoint(root, run.strategy, run.progress)
    return root / f"step-{step:08d}"


def comparable(rows):
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


@pytest.mark.parametrize("stop", [1, 4, 6, 11])  # 4 lies inside a logged window, 6 at its end
def test_a_resumed_run_is_the_undisturbed_run_bit_for_bit(tmp_path, stop):
    straight = Run().train(StubBatches())
    first = Run(checkpoint_every=stop)

    class DieAfter(StubBatches):
        def step(self, step):
            if step == stop:
                raise KilledError
            return super().step(step)

    with pytest.raises(KilledError):
        first.train(DieAfter())
    save_checkpoint(tmp_path, first.strategy, first.progress)

    second = Run()
    torch.manual_seed(99)  # another process, another state of the generators and of the new weights
    for param in second.model.adapter.parameters():
        torch.nn.init.normal_(param)
    second.progress = load_checkpoint(newest_checkpoint(tmp_path), second.strategy)
    assert second.progress.step == stop
    second.train(StubBatches())

    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    assert comparable(straight.rows) == comparable(first.rows + second.rows)
    for a, b in zip(straight.optimizer.state.values(), second.optimizer.state.values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_only_what_trains_is_stored(run):
    trained = ["head.weight", "head.bias", *(f"adapter.{name}" for name, _ in run.model.adapter.named_parameters())]
    kinds = ("param", "exp_avg", "exp_avg_sq")
    assert {name for name, _ in run.strategy.state()} == {
        "buffer/calls",
        *(f"{kind}/{name}" for kind in kinds for name in trained),
    }


def test_the_last_two_are_kept_and_the_newest_is_found(tmp_path, run):
    for step in (5, 10, 15):
        save(tmp_path, run, step)
    assert [path.name for path in committed(tmp_path)] == ["step-00000010", "step-00000015"]
    assert newest_checkpoint(tmp_path).name == "step-00000015"


def test_an_empty_folder_has_no_checkpoint(tmp_path):
    assert newest_checkpoint(tmp_path / "missing") is None


@pytest.mark.parametrize("damage", ["truncate", "flip", "delete", "no sums", "bad sums"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path, run, damage):
    good, bad = save(tmp_path, run, 5), save(tmp_path, run, 10)
    target = bad / "state.pt"
    data = target.read_bytes()
    match damage:
        case "truncate":
            target.write_bytes(data[: len(data) // 2])
        case "flip":
            target.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
        case "delete":
            target.unlink()
        case "no sums":
            (bad / "checksums.json").unlink()
        case "bad sums":
            (bad / "checksums.json").write_text("{")
    assert newest_checkpoint(tmp_path) == good
    assert save(tmp_path, run, 10) == newest_checkpoint(tmp_path)  # the resumed run gets there again


def test_a_failed_write_leaves_the_last_good_one(tmp_path, run, monkeypatch):
    good = save(tmp_path, run, 5)

    def disk_full(state, file):
        file.write(b"half")
        try:
            raise OSError(errno.ENOSPC, "No space left on device")
        finally:
            raise RuntimeError("unexpected pos 768 vs 662")  # what torch says when it then closes the file

    monkeypatch.setattr(torch, "save", disk_full)
    with pytest.raises(TpoError, match="disk full while writing"):
        save(tmp_path, run, 10)
    assert newest_checkpoint(tmp_path) == good
    monkeypatch.undo()
    save(tmp_path, run, 10)
    assert sorted(os.listdir(tmp_path)) == ["step-00000005", "step-00000010"]  # and no debris


def test_progress_survives_json():
    progress = Progress(step=3, samples=24, skipped=1, seconds=0.1)
    progress.window.add([("total", 0.1), ("total", 0.2)])
    progress.finish_step(samples=8, tokens=99, seconds=0.3, wait_s=0.1)
    assert Progress.from_dict(json.loads(json.dumps(vars(progress), default=vars))) == progress


class Sink:
    """Collects what would be tracked."""

    def __init__(self):
        self.steps, self.closed = [], False

    def log_metrics(self, metrics, step):
        assert all(isinstance(value, float) for value in metrics.values())
        self.steps.append(step)

    def close(self):
        self.closed = True


def run_phase_in_process(job, build=build_stub):
    sink = Sink()
    run_rank(job, build=build, device=torch.device("cpu"), open_sink=lambda: sink, report=lambda row: None)
    return sink


def phase_job(output):
    recipe = stub_recipe()
    phase = recipe.stages["vision_task"].phases[0]
    return PhaseJob(recipe=recipe, stage_name="vision_task", phase=phase, shards_uri="", init_uri="", output=output)


def test_a_killed_rank_resumes_with_one_history_and_the_same_weights(tmp_path):
    straight, killed = phase_job(tmp_path / "a"), phase_job(tmp_path / "b")
    sink = run_phase_in_process(straight)
    assert sink.steps == [3, 6, 9, 12]
    assert sink.closed

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
    assert run_phase_in_process(killed).steps == [6, 9, 12]

    rows = [[json.loads(line) for line in job.history.read_text().splitlines()] for job in (straight, killed)]
    assert comparable(rows[0]) == comparable(rows[1])
    weights = [torch.load(job.model / "weights.pt") for job in (straight, killed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert "resuming at step 4 from step-00000004" in killed.notes.read_text()
    summary = json.loads(killed.summary.read_text())
    assert (summary["steps"], summary["samples"], summary["skipped"]) == (12, 96, 0)
    assert set(summary["final"]) == {"total", "loss/lm", "loss/region", "kind/region", "kind/chat"}


def test_a_phase_that_ended_before_its_model_was_written_writes_it_on_resume(tmp_path):
    job = phase_job(tmp_path)
    run_phase_in_process(job)
    first = torch.load(job.model / "weights.pt")
    job.summary.unlink()
    (job.model / "weights.pt").unlink()
    sink = run_phase_in_process(job)
    assert sink.steps == []  # no step was run again
    assert all(torch.equal(first[name], tensor) for name, tensor in torch.load(job.model / "weights.pt").items())
