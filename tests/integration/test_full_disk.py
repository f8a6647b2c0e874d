"""A file system that is really full: what a phase on it loses, and when it gives up."""

import os
import subprocess
from contextlib import suppress

import pytest
import torch

from tests.unit.train.checkpoints.made import comparable, steps_at
from tests.unit.train.test_stop import run
from tpo_core.errors import TpoError
from tpo_core.train.phase import Surroundings
from tpo_core.train.recorder import read_history

SIZE_BYTES = 1 << 20


@pytest.fixture
def disk(tmp_path):
    """A disk of one MiB."""
    (tmp_path / "disk").mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_BYTES}", "none", str(tmp_path / "disk")]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a disk")
    yield tmp_path / "disk"
    subprocess.run(["umount", str(tmp_path / "disk")], check=True)


class Filled(Surroundings):
    """Something else takes all the room after some steps, and gives it back after others."""

    def __init__(self, disk, full_after, free_after):
        self.filler, self.full_after, self.free_after, self.step = disk / "other", full_after, free_after, 0

    def alive(self):
        self.step += 1
        if self.step == self.full_after:
            fill(self.filler)
        if self.step == self.free_after:
            self.filler.unlink()


def fill(path):
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert os.statvfs(path).f_bavail == 0


def test_a_phase_goes_on_while_the_disk_is_full_and_loses_nothing(tmp_path, disk):
    calm, _ = run(tmp_path / "calm", Surroundings())
    job, finished = run(disk / "out", Filled(disk, full_after=2, free_after=7))
    assert finished
    notes = job.notes.read_text()
    assert "the checkpoint of step 4 failed (disk full while writing " in notes
    assert comparable(read_history(job.history)) == comparable(read_history(calm.history))
    weights = torch.load(job.model / "weights.pt")
    assert all(torch.equal(tensor, weights[name]) for name, tensor in torch.load(calm.model / "weights.pt").items())


def test_a_disk_that_stays_full_ends_it_with_the_last_good_checkpoint_and_it_goes_on_there(tmp_path, disk):
    calm, _ = run(tmp_path / "calm", Surroundings())
    outside = Filled(disk, full_after=5, free_after=None)
    with pytest.raises(TpoError, match=r"^disk full while writing .*: free some space, then run again$"):
        run(disk / "out", outside, max_failed_checkpoints=0)
    assert steps_at(disk / "out/checkpoints") == [4]
    outside.filler.unlink()
    job, finished = run(disk / "out", Surroundings())
    assert finished
    assert "resuming at step 4" in job.notes.read_text()
    assert comparable(read_history(job.history)) == comparable(read_history(calm.history))
