"""What a phase leaves on a machine that goes reaches the next one, and in the end the driver."""

import shutil

import pytest

from tpo_core.storage import uri as uris
from tpo_core.storage.commit import fetch
from tpo_core.train.exchange import Keeper, collect, deliver, is_delivered, output_here, pull, put_stacks


@pytest.fixture
def exchange(bucket):
    return f"{bucket}/p/abc"


def rank_zero(output):
    (output / "history.jsonl").write_text("rows\n")
    (output / "notes.txt").write_text("notes\n")


def finished(output):
    (output / "model").mkdir()
    (output / "model" / "weights").write_bytes(b"w")
    (output / "phase.json").write_text("{}")


def test_another_machine_goes_on_with_what_was_kept(exchange, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    pull(exchange, first)
    assert list(first.iterdir()) == []
    rank_zero(first)
    Keeper(exchange, first).keep()
    with (first / "history.jsonl").open("a") as file:
        file.write("beyond the checkpoint\n")
    second.mkdir()
    (second / "history.jsonl").write_text("of an attempt long ago")
    (second / "trace").write_text("of an attempt long ago")
    pull(exchange, second)
    assert {path.name: path.read_text() for path in second.iterdir()} == {
        "history.jsonl": "rows\n", "notes.txt": "notes\n",
    }  # fmt: skip


def test_what_has_not_changed_is_not_sent_again(exchange, tmp_path, monkeypatch):
    sent, write = [], uris.write_bytes

    def noted(uri, data):
        sent.append(uri.rpartition("/")[2])
        write(uri, data)

    monkeypatch.setattr(uris, "write_bytes", noted)
    (tmp_path / "trace.json.gz").write_bytes(b"hundreds of megabytes")
    (tmp_path / "checkpoints").mkdir()
    keeper = Keeper(exchange, tmp_path)
    for row in ("one\n", "two\n"):
        with (tmp_path / "history.jsonl").open("a") as file:
            file.write(row)
        keeper.keep()
    assert sorted(sent) == ["history.jsonl", "history.jsonl", "trace.json.gz"]
    assert uris.read_bytes(f"{exchange}/kept/history.jsonl") == b"one\ntwo\n"


def test_what_could_not_be_sent_is_sent_the_next_time(exchange, tmp_path, monkeypatch):
    rank_zero(tmp_path)
    keeper = Keeper(exchange, tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(uris, "write_bytes", lambda uri, data: int("no network"))
        with pytest.raises(ValueError, match="no network"):
            keeper.keep()
    keeper.keep()
    assert uris.list_names(f"{exchange}/kept") == ["history.jsonl", "notes.txt"]


class KilledError(Exception):
    """Stands for a driver that dies."""


def move_one_then_die():
    move, moved = shutil.move, []

    def dying(source, target):
        if moved:
            raise KilledError
        moved.append(move(source, target))

    return dying


def test_a_finished_phase_is_collected_and_its_model_stands_alone(exchange, tmp_path, monkeypatch):
    worker, driver = tmp_path / "worker", tmp_path / "driver"
    pull(exchange, worker)
    rank_zero(worker)
    (tmp_path / "rank1.txt").write_text("stood here\n")
    assert put_stacks(exchange, tmp_path / "rank1.txt") == f"{exchange}/stacks/rank1.txt"
    finished(worker)
    assert not is_delivered(exchange, None)
    deliver(exchange, worker)
    assert is_delivered(exchange, None)
    assert (fetch(uris.join(exchange, "result", "model")) / "weights").read_bytes() == b"w"
    driver.mkdir()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "move", move_one_then_die())
        with pytest.raises(KilledError):
            collect(exchange, driver)
    assert not (driver / "phase.json").exists()
    assert (driver / "stacks" / "rank1.txt").exists()  # a finished phase is not asked for them again
    collect(exchange, driver)
    names = sorted(path.relative_to(driver).as_posix() for path in driver.rglob("*") if path.is_file())
    assert names == [
        "history.jsonl", "model/_SUCCESS", "model/weights", "notes.txt", "phase.json", "stacks/rank1.txt",
    ]  # fmt: skip


def test_a_group_that_died_after_it_delivered_may_deliver_again(exchange, tmp_path):
    for _ in range(2):
        pull(exchange, tmp_path / "worker")
        rank_zero(tmp_path / "worker")
        finished(tmp_path / "worker")
        deliver(exchange, tmp_path / "worker")
        assert not (tmp_path / "worker").exists()
    (tmp_path / "driver").mkdir()
    collect(exchange, tmp_path / "driver")
    assert (tmp_path / "driver" / "phase.json").exists()


def test_a_phase_has_a_folder_of_its_own_on_each_machine(tmp_path, monkeypatch):
    here = output_here("s3://b/a")
    assert here == output_here("s3://b/a") != output_here("s3://b/c")
    monkeypatch.setenv("TPO_SCRATCH", str(tmp_path / "another machine"))
    assert output_here("s3://b/a") != here
