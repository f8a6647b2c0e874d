"""Several launches of one pipeline at once, as real processes, on a disk and on S3."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.unit.execution.racer import NAMES
from tpo_core.execution.artifact import Artifact
from tpo_core.storage import uri as uris

ROOT = Path(__file__).resolve().parents[3]
DEADLINE_S = 120.0
LINES = {name: "".join(f"{name} {number}\n" for number in range(200)) for name in NAMES}


@pytest.fixture
def marks(tmp_path):
    folder = tmp_path / "marks"
    folder.mkdir()
    return folder


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.slow)])
def work(request, tmp_path):
    return str(tmp_path / "work") if request.param == "disk" else f"{request.getfixturevalue('bucket')}/race"


@pytest.fixture
def launch(work, marks, monkeypatch):
    """Starts processes that begin when MARKS/go is there; what is left of them ends with the test."""
    running = []

    def one(*stop_in):
        command = [sys.executable, "-m", "tests.unit.execution.racer", work, str(marks), *stop_in]
        running.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))
        return running[-1]

    yield one
    for process in running:
        process.kill()
        process.communicate()


def wait_for(what, count=1):
    """Poll until so many files match."""
    end_s = time.monotonic() + DEADLINE_S
    folder, pattern = what
    while len(list(folder.glob(pattern))) < count:
        assert time.monotonic() < end_s, f"no {pattern} in {folder}"
        time.sleep(0.01)


def go(marks, processes):
    wait_for((marks, "ready-*"), len(processes))
    (marks / "go").touch()
    return [process.communicate(timeout=DEADLINE_S) for process in processes]


def results(work):
    found = {}
    for name in NAMES:
        [short] = [each for each in uris.list_names(uris.join(work, name)) if "." not in each]
        found[name] = Artifact.load(uris.join(work, name, short))
    return found


def assert_whole(work):
    """Every step has one result, with all it wrote and nothing twice, and nothing else is left."""
    for name, artifact in results(work).items():
        assert (artifact.path / "lines.txt").read_text() == LINES[name]
        assert uris.list_names(uris.join(work, name)) == [artifact.fingerprint[:12]]


def test_of_launches_at_once_each_step_is_made_by_one(launch, work, marks):
    processes = [launch() for _ in range(4)]
    told = go(marks, processes)
    begun = [sorted(path.name for path in marks.glob(f"{name}-*")) for name in NAMES]
    assert [len(each) for each in begun] == [1, 1, 1]
    assert {process.returncode for process in processes} <= {0, 2}
    assert 0 in [process.returncode for process in processes]
    for process, (_, err) in zip(processes, told, strict=True):
        assert process.returncode == 0 or ("is being made by pid" in err or "has just been taken" in err)
        assert err.count("\n") == (1 if process.returncode else 0)
    assert_whole(work)


def test_a_killed_launch_is_taken_over_by_one_of_those_that_wait(launch, work, marks):
    first = launch("b")
    (marks / "go").touch()
    wait_for((marks, "b-*"))
    first.kill()
    first.communicate()
    (marks / "go").unlink()
    (marks / f"ready-{first.pid}").unlink()
    told = go(marks, [launch() for _ in range(4)])
    assert len(list(marks.glob("b-*"))) == 2  # the killed one, and one after it
    assert len(list(marks.glob("c-*"))) == 1
    out = "".join(out for out, _ in told)
    assert out.count("which is gone") == 1
    assert out.count("RESUME  b") == 1
    made = results(work)
    assert (made["a"].result, made["b"].result) == ({"resumed": False}, {"resumed": True})
    for name in NAMES:
        assert uris.list_names(uris.join(work, name)) == [made[name].fingerprint[:12]]


def test_a_launch_is_told_who_is_at_it_and_goes_on_when_that_one_is_done(launch, work, marks):
    first = launch("b")
    (marks / "go").touch()
    wait_for((marks, "b-*"))
    second = launch()
    out, err = second.communicate(timeout=DEADLINE_S)
    assert second.returncode == 2
    assert [line.split()[:2] for line in out.splitlines()] == [["SKIP", "a"]]
    assert f"is being made by pid {first.pid} on " in err
    first.kill()
    first.communicate()
    third = launch()
    third.communicate(timeout=DEADLINE_S)
    assert third.returncode == 0
    assert set(results(work)) == set(NAMES)
