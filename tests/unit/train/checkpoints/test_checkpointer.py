import errno
import logging
import threading

import pytest
import torch

from tests.unit.train.checkpoints.made import checkpointer, comparable, debris, save_at, steps_at, trained
from tests.unit.train.stub import Run, StubBatches
from tpo_core.errors import TpoError
from tpo_core.storage import uri as uris
from tpo_core.train.checkpoints.retention import sweep


class KilledError(Exception):
    """Stands for a process that dies."""


@pytest.fixture
def run():
    return trained(3)


@pytest.mark.parametrize("stop", [1, 4, 6, 11])  # 4 lies inside a logged window, 6 at its end
def test_a_resumed_run_is_the_undisturbed_run_bit_for_bit(tmp_path, stop):
    straight, first, second = Run().train(StubBatches()), Run(), Run()

    class DieAfter(StubBatches):
        def step(self, step):
            if step == stop:
                raise KilledError
            return super().step(step)

    saver = checkpointer(tmp_path, first.strategy)
    first.on_step = saver.save
    with pytest.raises(KilledError):
        first.train(DieAfter())
    saver.wait()

    torch.manual_seed(99)  # another process, another state of the generators and of the new weights
    for param in second.model.adapter.parameters():
        torch.nn.init.normal_(param)
    second.progress, _ = checkpointer(tmp_path, second.strategy).resume()
    assert second.progress.step == stop
    second.train(StubBatches())

    for name, tensor in straight.model.state_dict().items():
        assert torch.equal(tensor, second.model.state_dict()[name]), name
    assert comparable(straight.rows) == comparable(first.rows + second.rows)
    for a, b in zip(straight.optimizer.state.values(), second.optimizer.state.values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_only_what_trains_is_stored(run):
    names = ["head.weight", "head.bias", *(f"adapter.{name}" for name, _ in run.model.adapter.named_parameters())]
    kinds = ("param", "exp_avg", "exp_avg_sq")
    assert {name for name, _ in run.strategy.state()} == {
        "buffer/calls",
        *(f"{kind}/{name}" for kind in kinds for name in names),
    }


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_the_last_two_are_kept_and_nothing_else_is_left(tmp_path, run, scheme):
    save_at(checkpointer(f"{scheme}{tmp_path}/a b/c", run.strategy), run, 5, 10, 15)
    assert steps_at(tmp_path / "a b/c") == [10, 15]
    assert debris(tmp_path / "a b/c") == []
    assert checkpointer(f"{scheme}{tmp_path}/a b/c", run.strategy).resume()[0].step == 15


def test_without_a_checkpoint_a_run_starts_at_the_beginning(tmp_path, run):
    progress, lines = checkpointer(tmp_path / "missing", run.strategy).resume()
    assert (progress.step, lines) == (0, ["starting at step 0"])


class Gate:
    """Holds back what a background thread puts in place until it is opened."""

    def __init__(self, monkeypatch):
        self.reached, self.opened = threading.Event(), threading.Event()
        put = uris.put_file

        def held(path, uri):
            self.reached.set()
            assert self.opened.wait(30)
            put(path, uri)

        monkeypatch.setattr(uris, "put_file", held)


def test_training_goes_on_while_a_checkpoint_is_written(tmp_path, run, monkeypatch):
    gate, saver = Gate(monkeypatch), checkpointer(tmp_path, run.strategy)
    expected = {name: tensor.clone() for name, tensor in run.strategy.state()}
    saver.save(run.progress)
    assert gate.reached.wait(30)
    run.config = run.config.__class__(**{**vars(run.config), "steps": 6})
    run.train(StubBatches())  # three more steps change parameters, moments and progress
    assert steps_at(tmp_path) == []
    gate.opened.set()
    saver.wait()
    assert steps_at(tmp_path) == [3]
    assert run.progress.step == 6
    assert checkpointer(tmp_path, run.strategy).resume()[0].step == 3
    assert all(torch.equal(expected[name], tensor) for name, tensor in run.strategy.state())


def test_clearing_away_spares_what_other_ranks_write_already(tmp_path, run, monkeypatch):
    gone_on, swept = threading.Event(), []

    def late(root, keep):
        assert gone_on.wait(30)
        sweep(root, keep)
        swept.append(folder.exists())

    monkeypatch.setattr("tpo_core.train.checkpoints.checkpointer.sweep", late)
    saver, folder = checkpointer(tmp_path, run.strategy), tmp_path / "step-00000003"
    folder.mkdir()
    saver.save(run.progress)
    run.progress.step = 4  # training does not wait
    gone_on.set()
    saver.wait()
    assert swept == [True, True]


def test_a_save_waits_for_the_one_before(tmp_path, run, monkeypatch):
    gate, saver = Gate(monkeypatch), checkpointer(tmp_path, run.strategy)
    saver.save(run.progress)
    run.progress.step = 4
    second = threading.Thread(target=saver.save, args=(run.progress,))
    second.start()
    assert gate.reached.wait(30)
    assert second.is_alive()
    gate.opened.set()
    second.join(30)
    saver.wait()
    assert steps_at(tmp_path) == [3, 4]


def test_what_is_saved_already_is_not_saved_again(tmp_path, run, monkeypatch):
    saver = checkpointer(tmp_path, run.strategy)
    save_at(saver, run, 5)
    again = checkpointer(tmp_path, run.strategy)
    again.resume()
    for each in (saver, again):
        monkeypatch.setattr(uris, "put_file", lambda path, uri: pytest.fail("written again"))
        save_at(each, run, 5)
    assert steps_at(tmp_path) == [5]


def test_closing_gives_up_what_is_under_way(tmp_path, run, monkeypatch):
    gate, saver = Gate(monkeypatch), checkpointer(tmp_path, run.strategy)
    saver.save(run.progress)
    gate.opened.set()
    saver.close()
    saver.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "checkpoint"]


def disk_full(path, uri):
    raise OSError(errno.ENOSPC, "No space left on device")


def broken(path, uri):
    raise OSError(errno.EIO, "Input/output error")


def refused(path, uri):
    raise TpoError(f"{uri}: the storage failed 8 times; run again when it has recovered (SlowDown)")


@pytest.mark.parametrize(
    ("fault", "said"), [(disk_full, "disk full while writing"), (broken, "OSError"), (refused, "failed 8 times")]
)
def test_a_failed_write_is_told_and_leaves_the_last_good_one(tmp_path, run, monkeypatch, caplog, fault, said):
    lines = []
    saver = checkpointer(tmp_path, run.strategy, lines=lines)
    save_at(saver, run, 5)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(uris, "put_file", fault)
        save_at(saver, run, 10)
    assert steps_at(tmp_path) == [5]
    [line] = lines
    assert line.startswith("the checkpoint of step 10 failed (")
    assert said in line
    assert line.endswith("): training goes on; the last good one: step-00000005")
    assert caplog.messages == [line]
    save_at(saver, run, 15)
    assert steps_at(tmp_path) == [5, 15]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005", "step-00000015"]  # and no debris


@pytest.mark.parametrize(("fault", "error"), [(disk_full, TpoError), (refused, TpoError), (broken, OSError)])
def test_too_many_failed_writes_in_a_row_are_an_error(tmp_path, run, monkeypatch, fault, error):
    saver = checkpointer(tmp_path, run.strategy, max_failed=1)
    with monkeypatch.context() as patch:
        patch.setattr(uris, "put_file", fault)
        save_at(saver, run, 5)
    save_at(saver, run, 10)  # a good one in between starts the count anew
    monkeypatch.setattr(uris, "put_file", fault)
    save_at(saver, run, 15)
    with pytest.raises(error):
        save_at(saver, run, 20)
    assert steps_at(tmp_path) == [10]


def test_a_write_that_failed_is_tried_again_at_the_same_step(tmp_path, run, monkeypatch):
    saver = checkpointer(tmp_path, run.strategy)
    with monkeypatch.context() as patch:
        patch.setattr(uris, "put_file", disk_full)
        save_at(saver, run, 5)
    save_at(saver, run, 5)
    assert steps_at(tmp_path) == [5]
    assert debris(tmp_path) == []


def test_a_commit_that_fails_leaves_the_last_good_one(tmp_path, run, monkeypatch):
    saver = checkpointer(tmp_path, run.strategy)
    save_at(saver, run, 5)
    with monkeypatch.context() as patch:
        patch.setattr(uris, "write_bytes", lambda uri, data: disk_full(None, uri))
        save_at(saver, run, 10)
    assert steps_at(tmp_path) == [5]
    assert checkpointer(tmp_path, run.strategy).resume()[0].step == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005"]


def test_a_disk_that_fills_up_within_a_part_leaves_no_half_of_it(tmp_path, run, monkeypatch):
    lines = []
    saver = checkpointer(tmp_path, run.strategy, lines=lines)

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)  # where a disk that delays allocation shows it
        save_at(saver, run, 5)
    assert "disk full while writing" in lines[0]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_cannot_be_deleted_is_told_as_that_and_fails_no_checkpoint(tmp_path, run, monkeypatch, caplog):
    lines = []
    saver = checkpointer(tmp_path, run.strategy, lines=lines, max_failed=0)
    save_at(saver, run, 5, 10)
    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(uris, "delete", lambda uri: broken(None, uri))
        save_at(saver, run, 15)
    assert saver.step == 15
    assert steps_at(tmp_path) == [5, 10, 15]
    assert lines == [
        "what is no longer needed of checkpoints could not be deleted (OSError: [Errno 5] Input/output error)"
    ]
    assert caplog.messages == lines
    save_at(saver, run, 20)
    assert steps_at(tmp_path) == [15, 20]
    assert len(lines) == 1


def test_what_cannot_be_deleted_does_not_keep_a_run_from_going_on(tmp_path, run, monkeypatch):
    save_at(checkpointer(tmp_path, run.strategy), run, 5)
    (tmp_path / "step-00000010").mkdir()  # of an attempt that died
    monkeypatch.setattr(uris, "delete", lambda uri: broken(None, uri))
    progress, lines = checkpointer(tmp_path, run.strategy).resume()
    assert progress.step == 5
    assert lines[0] == "resuming at step 5 from step-00000005"
    assert lines[1].startswith("what is no longer needed of checkpoints could not be deleted (OSError")


def test_there_is_no_checkpoint_without_what_it_builds_on(tmp_path, run):
    lines, broken_down = [], [True]

    def secure():
        if broken_down:
            refused(None, "s3://bucket/kept/history.jsonl")

    saver = checkpointer(tmp_path, run.strategy, lines=lines, secure=secure)
    save_at(saver, run, 5)
    assert (saver.step, steps_at(tmp_path)) == (None, [])
    assert lines[0].startswith("the checkpoint of step 5 failed (s3://bucket/kept/history.jsonl: the storage failed")
    broken_down.clear()
    save_at(saver, run, 10)
    assert (saver.step, steps_at(tmp_path)) == (10, [10])


def test_losses_that_are_known_stay_known_where_no_update_was_made(tmp_path, run):
    saver = checkpointer(tmp_path, run.strategy)
    for row in ({"total": 1.0, "lr/lora": 0.1}, {"lr/lora": 0.1, "skipped": 3}):
        saver.logged(row)
    save_at(saver, run, 5)
    again = checkpointer(tmp_path, run.strategy)
    again.resume()
    assert saver.losses == again.losses == {"total": 1.0}
