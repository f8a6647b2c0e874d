"""What rank 0 writes while a phase runs, on a disk that is full for a while."""

import errno
from pathlib import Path

import pytest

from tests.unit.train.in_process import phase_job
from tpo_core.train.recorder import Recorder, read_history
from tpo_core.train.rows import Progress
from tpo_core.train.sinks import NoSink


@pytest.fixture
def recorder(tmp_path):
    made = Recorder(phase_job(tmp_path), NoSink())
    made.resume(Progress())
    made.note("begun")
    return made


@pytest.fixture
def disk(monkeypatch):
    """What appending to a file does: `disk["error"]` is raised once half of a text is on the disk."""
    state, whole = {"error": None}, Path.open

    class Half:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *how):
            self.file.close()

        def write(self, text):
            self.file.write(text[: len(text) // 2])
            self.file.flush()
            raise state["error"]

    def opened(path, mode="r", *more, **options):
        file = whole(path, mode, *more, **options)
        return Half(file) if mode == "a" and state["error"] is not None else file

    monkeypatch.setattr(Path, "open", opened)
    return state


def row(step):
    return {"step": step, "total": 0.5}


def test_a_full_disk_costs_no_row_and_no_line(recorder, disk):
    recorder.row(row(1), None)
    disk["error"] = OSError(errno.ENOSPC, "No space left on device")
    recorder.row(row(2), None)
    recorder.note("the checkpoint of step 2 failed")
    assert [each["step"] for each in read_history(recorder.job.history)] == [1]
    with pytest.raises(OSError, match="No space left"):
        recorder.sync()  # no checkpoint is to know more rows than the history
    disk["error"] = None
    recorder.row(row(3), None)
    recorder.sync()
    assert [each["step"] for each in read_history(recorder.job.history)] == [1, 2, 3]
    assert recorder.job.notes.read_text() == "begun\nthe checkpoint of step 2 failed\n"


def test_another_trouble_of_the_disk_is_no_matter_of_waiting(recorder, disk):
    disk["error"] = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError, match="Input/output error"):
        recorder.row(row(1), None)
