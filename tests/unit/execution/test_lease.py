"""A live lease refuses, a stale one is taken over, and the loser learns of it."""

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from tpo_core.errors import TpoError
from tpo_core.execution import lease as leases
from tpo_core.execution.lease import STALE_S, Lease
from tpo_core.storage import uri as uris

NOW = 1_000_000.0


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def take(tmp_path, said):
    return lambda now=NOW: Lease(str(tmp_path / "x.lease"), echo=said.append, clock=lambda: now)


def held_by(tmp_path, *, host: str, pid: int, time: float = NOW) -> None:
    uris.write_json(tmp_path / "x.lease", {"token": "other", "pid": pid, "host": host, "time": time})


def ended_pid() -> int:
    done = subprocess.Popen([sys.executable, "-c", ""])
    done.wait()
    return done.pid


def test_a_lease_is_there_while_held_and_gone_afterwards(take, tmp_path, said):
    with take() as lease:
        assert lease.held()
        assert uris.read_json(tmp_path / "x.lease")["pid"] == os.getpid()
    assert uris.list_names(tmp_path) == []
    assert said == []


def test_it_is_given_back_when_the_work_fails(take, tmp_path):
    with pytest.raises(KeyError), take():
        raise KeyError("work")
    assert uris.list_names(tmp_path) == []


@pytest.mark.parametrize("host", ["elsewhere", socket.gethostname()])
def test_a_live_process_is_not_disturbed(take, tmp_path, host):
    held_by(tmp_path, host=host, pid=os.getppid(), time=NOW - 4)
    with pytest.raises(TpoError, match=rf"x is being made by pid {os.getppid()} on {host} \(alive 4 s ago\)"):
        take().__enter__()
    assert uris.read_json(tmp_path / "x.lease")["token"] == "other"


def test_a_silent_process_elsewhere_is_taken_over(take, tmp_path, said):
    held_by(tmp_path, host="elsewhere", pid=7, time=NOW - STALE_S)
    with take() as lease:
        assert lease.held()
    assert said == ["taken over from pid 7 on elsewhere, silent for 60 s"]


def test_a_process_of_this_host_that_is_gone_is_taken_over_at_once(take, tmp_path, said):
    pid = ended_pid()
    held_by(tmp_path, host=socket.gethostname(), pid=pid, time=NOW)
    with take() as lease:
        assert lease.held()
    assert said == [f"taken over from pid {pid} on {socket.gethostname()}, which is gone"]


def test_a_restarted_container_with_the_same_pid_takes_over_at_once(take, tmp_path):
    held_by(tmp_path, host=socket.gethostname(), pid=os.getpid(), time=NOW)
    with take() as lease:
        assert lease.held()


def test_a_beat_renews_the_time(tmp_path, said):
    times = iter([NOW, NOW + 10])
    with Lease(str(tmp_path / "x.lease"), echo=said.append, clock=lambda: next(times)) as lease:
        lease.beat()
        assert uris.read_json(tmp_path / "x.lease")["time"] == NOW + 10


def test_who_lost_the_lease_neither_beats_nor_deletes(take, tmp_path):
    with take() as lease:
        held_by(tmp_path, host="elsewhere", pid=7)
        assert not lease.held()
        lease.beat()
    assert uris.read_json(tmp_path / "x.lease")["token"] == "other"


@pytest.fixture(params=[signal.default_int_handler, signal.SIG_IGN], ids=["foreground", "background"])
def at_sigint(request):
    """What SIGINT does: to a process that a script starts with & nothing."""
    before = signal.signal(signal.SIGINT, request.param)
    yield request.param
    assert signal.getsignal(signal.SIGINT) is request.param, "left as it was found"
    signal.signal(signal.SIGINT, before)


def test_who_lost_the_lease_ends_its_work_and_says_why_though_it_only_waits(take, tmp_path, monkeypatch, at_sigint):
    monkeypatch.setattr(leases, "BEAT_S", 0.01)
    ended, waited = threading.Event(), []

    def beat():  # as whoever took over does; one sign of life alone might be written over by a beat under way
        while not ended.wait(0.005):
            held_by(tmp_path, host="elsewhere", pid=7)

    def work():
        with take():
            threading.Thread(target=beat, daemon=True).start()
            threading.Event().wait(40)

    long = threading.Timer(30, waited.append, ["it was not woken"])
    long.start()
    try:
        with pytest.raises(TpoError, match=r"x: its lease is another process's or was deleted"):
            work()
    finally:
        ended.set()
        long.cancel()
    assert waited == []
    assert uris.read_json(tmp_path / "x.lease")["token"] == "other"


def test_what_ignored_sigint_goes_on_ignoring_it(take):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    with take():
        signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_stays_ctrl_c(take):
    with pytest.raises(KeyboardInterrupt), take():
        raise KeyboardInterrupt


def test_of_two_that_take_over_at_once_one_is_refused(take, tmp_path, monkeypatch):
    held_by(tmp_path, host="elsewhere", pid=7, time=0)
    monkeypatch.setattr(uris, "write_new", lambda *_: False)
    with pytest.raises(TpoError, match="just been taken by another process"):
        take().__enter__()


def test_who_comes_late_to_a_dead_holder_does_not_take_the_lease_of_who_was_faster(take, tmp_path, monkeypatch):
    """Both have seen the same dead holder before either of them acts."""
    held_by(tmp_path, host="elsewhere", pid=7, time=0)
    fast, late = take(), take()
    looks = []

    def look():
        looks.append(late_look())
        if len(looks) == 1:
            fast.__enter__()
        return looks[-1]

    late_look = late._holder
    monkeypatch.setattr(late, "_holder", look)
    with pytest.raises(TpoError, match="just been taken by another process"):
        late.__enter__()
    assert fast.held()
    fast.__exit__(None, None, None)
    assert uris.list_names(tmp_path) == []


def test_a_holder_that_wakes_up_while_it_is_taken_over_keeps_its_lease(take, tmp_path, monkeypatch):
    held_by(tmp_path, host="elsewhere", pid=7, time=NOW - STALE_S)
    real = uris.write_new

    def wakes(uri, data):
        if not uri.endswith(".lease"):  # the mark of who takes over
            held_by(tmp_path, host="elsewhere", pid=7, time=NOW)
        return real(uri, data)

    monkeypatch.setattr(uris, "write_new", wakes)
    with pytest.raises(TpoError, match="just been taken by another process"):
        take().__enter__()
    assert uris.read_json(tmp_path / "x.lease")["token"] == "other"


MINUTE = int(NOW // STALE_S)


@pytest.mark.parametrize(("first_s", "second_s"), [(59, 61), (61, 59)])
def test_of_two_whose_clocks_are_on_either_side_of_a_minute_one_takes_over(
    take, tmp_path, monkeypatch, first_s, second_s
):
    """The second one comes when the first has looked, and has not written yet."""
    held_by(tmp_path, host="elsewhere", pid=7, time=0)
    first, second = (take(MINUTE * STALE_S + each) for each in (first_s, second_s))
    write = uris.write_bytes

    def late(uri, data):
        monkeypatch.setattr(uris, "write_bytes", write)
        with pytest.raises(TpoError, match="just been taken by another process"):
            second.__enter__()
        write(uri, data)

    monkeypatch.setattr(uris, "write_bytes", late)
    with first:
        assert first.held()
    assert uris.list_names(tmp_path) == []


def test_who_is_written_over_while_it_takes_over_notices(take, tmp_path, monkeypatch):
    """By a process that was held up for minutes after it had looked."""
    held_by(tmp_path, host="elsewhere", pid=7, time=0)
    write = uris.write_bytes

    def overtaken(uri, data):
        monkeypatch.setattr(uris, "write_bytes", write)
        write(uri, data)
        held_by(tmp_path, host="held up", pid=8)

    monkeypatch.setattr(uris, "write_bytes", overtaken)
    with pytest.raises(TpoError, match="just been taken by another process"):
        take().__enter__()
    assert uris.read_json(tmp_path / "x.lease")["host"] == "held up"


def test_who_died_while_taking_over_bars_the_way_for_two_minutes_at_most(take, tmp_path):
    held_by(tmp_path, host="elsewhere", pid=7, time=0)
    for minute in (MINUTE, MINUTE + 1):
        uris.write_new(tmp_path / f"x.lease.other-{minute}", b"")
    for now in (NOW, NOW + STALE_S):
        with pytest.raises(TpoError, match="just been taken by another process"):
            take(now).__enter__()
    with take(NOW + 2 * STALE_S) as lease:
        assert lease.held()
        assert uris.list_names(tmp_path) == ["x.lease"]  # no mark stays


def test_a_mark_whose_maker_died_goes_with_the_lease_that_it_was_for(take, tmp_path):
    with take() as lease:
        uris.write_new(tmp_path / f"x.lease.{lease._token}-{MINUTE}", b"")
        uris.write_new(tmp_path / "y.lease.other-1", b"")
    assert uris.list_names(tmp_path) == ["y.lease.other-1"]


def test_a_lease_that_cannot_be_given_back_does_not_hide_what_the_work_raised(take, said, monkeypatch):
    def fails(uri):
        raise OSError("network")

    monkeypatch.setattr(uris, "delete", fails)
    with pytest.raises(KeyError, match="work"), take():
        raise KeyError("work")
    assert said == ["lease: it could not be given back, and is stale in 60 s: OSError: network"]


def test_a_missed_beat_is_told_and_the_next_one_is_tried(take, said, monkeypatch):
    lease = take()
    waits = iter([False, False, True])
    monkeypatch.setattr(lease._released, "wait", lambda _: next(waits))
    tries = []

    def fails():
        tries.append(1)
        raise OSError("network")

    monkeypatch.setattr(lease, "beat", fails)
    lease._beat_until_released()
    assert len(tries) == 2
    assert said == ["lease: no sign of life could be written: OSError: network"] * 2


def test_who_missed_four_beats_in_a_row_is_not_taken_over(take, tmp_path, said, monkeypatch):
    now, beats = [NOW], []
    monkeypatch.setattr(leases, "_gone", lambda holder: False)  # as of a process on another host
    lease = Lease(str(tmp_path / "x.lease"), echo=said.append, clock=lambda: now[0])
    assert lease._claim()
    beat = lease.beat

    def comes_to_nothing_four_times():
        beats.append(now[0])
        if len(beats) <= 4:
            raise OSError("network")
        return beat()

    def wait(seconds):
        now[0] += seconds
        with pytest.raises(TpoError, match=f"is being made by pid {os.getpid()} "):
            take(now[0]).__enter__()
        return len(beats) == 6

    monkeypatch.setattr(lease, "beat", comes_to_nothing_four_times)
    monkeypatch.setattr(lease._released, "wait", wait)
    lease._beat_until_released()
    assert len(beats) == 6
    assert len(said) == 4
    assert lease.held()
