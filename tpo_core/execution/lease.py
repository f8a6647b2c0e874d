"""One process at a time makes a given output.

A lease is a small file beside the output: who holds it, and when it last gave a sign of life (every 10 s). One that
was silent for 60 s, or whose process on this host is gone, is taken over. Clocks of two hosts may differ by some 40 s.
A process that finds at its next sign of life that another took over ends its work there: two would do it otherwise.
"""

import json
import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Callable
from types import FrameType, TracebackType

from tpo_core.errors import TpoError, in_one_line
from tpo_core.storage import uri as uris

BEAT_S = 10.0
STALE_S = 60.0


class Lease:
    """Context manager that holds a lease, or raises TpoError when a live process does."""

    def __init__(self, uri: str, *, echo: Callable[[str], None], clock: Callable[[], float] = time.time) -> None:
        self._uri = uri
        self._echo = echo
        self._clock = clock
        self._token = uuid.uuid4().hex
        self._released = threading.Event()
        self._lost = self._ignores = False
        self._thread = threading.Thread(target=self._beat_until_released, name="lease", daemon=True)

    def __enter__(self) -> "Lease":
        if not self._claim():
            self._take_over()
        in_main = threading.current_thread() is threading.main_thread()
        self._ignores = in_main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        if self._ignores:  # a shell does that to what it puts into the background
            signal.signal(signal.SIGINT, self._wake)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lease back. Trouble with that is told and not raised: it must not hide what the work raised, and a
        lease that stays is taken over once it is stale. Raises TpoError for work that ended because it was lost."""
        self._released.set()
        self._thread.join()
        if self._ignores:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self._lost and kind is KeyboardInterrupt:
            raise TpoError(
                f"{self._name()}: its lease is another process's or was deleted: this one was silent for more than"
                f" {STALE_S:.0f} s; look whether another one makes it before you start again"
            )
        try:
            if self.held():
                uris.delete(self._uri)
                self._delete_marks()
        except Exception as trouble:  # of whichever storage
            self._echo(f"lease: it could not be given back, and is stale in {STALE_S:.0f} s: {in_one_line(trouble)}")

    def _wake(self, number: int, frame: FrameType | None) -> None:
        """SIGINT where it was ignored: only our own means something."""
        if self._lost:
            raise KeyboardInterrupt

    def held(self) -> bool:
        """Whether the lease is still ours; it is not when this process was silent so long that another took over."""
        holder = self._holder()
        return holder is not None and holder["token"] == self._token

    def beat(self) -> bool:
        """Give a sign of life; False when another process has taken over."""
        if not self.held():
            return False
        uris.write_bytes(self._uri, self._content())
        return True

    def _name(self) -> str:
        """What the lease is of."""
        return self._uri.removesuffix(".lease")

    def _claim(self) -> bool:
        return uris.write_new(self._uri, self._content())

    def _take_over(self) -> None:
        holder = self._holder()
        if holder is not None:
            silent_s = self._clock() - holder["time"]
            who = f"pid {holder['pid']} on {holder['host']}"
            gone = _gone(holder)
            if not gone and silent_s < STALE_S:
                raise TpoError(
                    f"{self._name()} is being made by {who} (alive {max(silent_s, 0):.0f} s ago): "
                    "wait for it or stop it"
                )
            why = "which is gone" if gone else f"silent for {silent_s:.0f} s"
            if self._replace(holder):
                self._echo(f"taken over from {who}, {why}")
                return
        elif self._claim():
            return
        raise TpoError(f"{self._name()} has just been taken by another process: wait for it")

    def _replace(self, holder: dict) -> bool:
        """Put ourselves in the place of `holder`; False if it has given a sign of life, or another process was faster.

        Deleting the lease and claiming it anew would not do: of two that found the same holder gone, the slower one
        would delete the lease of the faster one. So only who makes the marks may write, if the holder is still there. A
        mark whose maker died bars the way for two minutes at most, because the minute is part of its name. There is one
        for this minute and one for the next, so that two processes whose clocks differ by less than a minute want one
        in common. Who was held up for longer than that between the look and the write may still write over another: so
        both look again, here and before they commit.
        """
        minute = int(self._clock() // STALE_S)
        made: list[str] = []
        try:
            for each in (minute, minute + 1):
                mark = f"{self._uri}.{holder['token']}-{each}"
                if not uris.write_new(mark, b""):
                    return False
                made.append(mark)
            if self._holder() != holder:
                return False
            uris.write_bytes(self._uri, self._content())
            if not self.held():
                return False
            self._delete_marks()
            return True
        finally:
            for mark in made:
                uris.delete(mark)

    def _delete_marks(self) -> None:
        """Of processes that died while they took over: none can be of use once another holder is there."""
        folder, _, name = self._uri.rpartition("/")
        for each in uris.list_names(folder):
            if each.startswith(f"{name}."):
                uris.delete(uris.join(folder, each))

    def _holder(self) -> dict | None:
        try:
            return uris.read_json(self._uri)
        except FileNotFoundError:
            return None

    def _content(self) -> bytes:
        holder = {"token": self._token, "pid": os.getpid(), "host": socket.gethostname(), "time": self._clock()}
        return json.dumps(holder).encode()

    def _beat_until_released(self) -> None:
        while not self._released.wait(BEAT_S):
            try:
                if not self.beat():
                    self._lost = True
                    # A real signal: _thread.interrupt_main() does not wake a main thread that waits.
                    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                    return
            except Exception as error:  # a beat may be missed: the commit checks that the lease is still held
                self._echo(f"lease: no sign of life could be written: {in_one_line(error)}")


def _gone(holder: dict) -> bool:
    """True if the holder ran on this host and is no more; a restarted container may even have given us its pid."""
    if holder["host"] != socket.gethostname():
        return False
    if holder["pid"] == os.getpid():
        return True
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False
