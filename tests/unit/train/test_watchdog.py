"""A rank that hangs ends, and says where it was."""

import faulthandler
import subprocess
import sys

import pytest

from tpo_core.train.watchdog import Watchdog, clear, hangs

HANGING = """
import sys, threading, time
from pathlib import Path
from tpo_core.train.watchdog import Watchdog

def steps_of_the_rank():
    with Watchdog(Path(sys.argv[1]), 3, 4.0) as dog, dog.timed():
        for _ in range(60):
            time.sleep(0.1)
            dog.alive()
        print("hangs now", flush=True)
        stands_still()

def stands_still():
    time.sleep(60)

thread = threading.Thread(target=steps_of_the_rank)
thread.start()
thread.join()
"""


def test_a_rank_that_hangs_ends_and_leaves_its_stacks(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", HANGING, str(tmp_path)], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (1, "hangs now\n")  # 6 s of short steps are no hang
    [path] = hangs(tmp_path)
    assert path.name.startswith("rank3-")
    assert "stands_still" in path.read_text()
    assert "MainThread" in path.read_text() or "join" in path.read_text()
    assert hangs(tmp_path) == []  # told once


def test_of_ranks_that_look_at_once_one_tells(tmp_path):
    """A link to nothing is, to one that looks, what another renamed since the folder was listed."""
    (tmp_path / "rank0-host-1.stacks").symlink_to(tmp_path / "renamed")
    (tmp_path / "rank1-host-2.stacks").write_text("stood here")
    assert [path.name for path in hangs(tmp_path)] == ["rank1-host-2.txt"]


@pytest.fixture
def clock(monkeypatch):
    """The seconds that faulthandler's clock was set to, None where it was stopped; newest last."""
    settings = []
    monkeypatch.setattr(faulthandler, "dump_traceback_later", lambda timeout_s, **how: settings.append(timeout_s))
    monkeypatch.setattr(faulthandler, "cancel_dump_traceback_later", lambda: settings.append(None))
    return settings


def test_the_clock_runs_where_it_is_asked_to(tmp_path, clock):
    with Watchdog(tmp_path, 0, 30.0) as dog:
        assert clock == []
        with dog.timed():
            assert clock == [30.0]
            with dog.untimed():
                assert clock == [30.0, None]
            assert clock == [30.0, None, 30.0]
        assert clock == [30.0, None, 30.0, None]


def test_no_clock_goes_on_after_an_error(tmp_path, clock):
    """What a rank has to do before it ends may take longer than a step."""
    with Watchdog(tmp_path, 0, 30.0) as dog:
        with pytest.raises(KeyError), dog.timed(), dog.untimed():
            raise KeyError("step")
        assert clock[-1] is None


def test_a_rank_that_ends_leaves_nothing(tmp_path):
    with Watchdog(tmp_path, 0, 30.0) as dog, dog.timed():
        dog.alive()
        assert hangs(tmp_path) == []  # it runs
    with Watchdog(tmp_path, 0, None) as dog, dog.timed():
        dog.alive()
    assert list(tmp_path.iterdir()) == []


def test_of_ranks_that_were_killed_nothing_stays(tmp_path):
    clear(tmp_path / "absent")
    (tmp_path / "rank0-host-1.stacks").touch()
    (tmp_path / "rank1-host-2.txt").write_text("stood here")
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["rank1-host-2.txt"]
    (tmp_path / "rank1-host-2.txt").unlink()
    clear(tmp_path)
    assert not tmp_path.exists()
