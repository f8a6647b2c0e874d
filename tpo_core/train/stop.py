"""SIGTERM as a request: save at the next step boundary, leave, and be tried again.

Whoever takes a machine away (a scheduler, a spot market, `ray job stop`) sends SIGTERM and, some time later, SIGKILL.
A worker that is asked lets all ranks know, and they leave together with a checkpoint; a driver that is asked passes it
on and leaves when they have. Neither waits longer than its deadline.
"""

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, NoReturn

TERMINATED = 128 + signal.SIGTERM  # how a shell writes it


class StopRequest:
    """Whether this process has been asked to end. The first SIGTERM asks; any further one ends it as before."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._signalled = False
        self._before: Any = None
        self._timer: threading.Timer | None = None

    def listen(self, deadline_s: float, on_deadline: Callable[[], object]) -> None:
        """Take SIGTERM for a request, and call `on_deadline` (in a thread) `deadline_s` after it; main thread only."""
        assert self._before is None, "listens already"
        self._timer = threading.Timer(deadline_s, on_deadline)
        self._timer.daemon = True
        self._signalled = False
        self._before = signal.signal(signal.SIGTERM, self._on_signal)

    def forget(self) -> None:
        """Back to what SIGTERM did before; main thread only."""
        assert self._timer is not None
        self._timer.cancel()
        signal.signal(signal.SIGTERM, self._before)
        self._before = None

    def ask(self) -> None:
        """As the first SIGTERM does, but without a deadline: that comes with the signal, which may still follow when a
        machine that is about to go has been drained."""
        self._asked.set()

    @property
    def asked(self) -> bool:
        return self._asked.is_set()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        assert self._timer is not None
        if self._signalled:
            signal.signal(signal.SIGTERM, self._before)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        self._signalled = True
        self._asked.set()
        self._timer.start()


WORKER = StopRequest()  # of a training worker's process, which runs one phase and ends


def listen_in_worker(deadline_s: float) -> None:
    """Run in the main thread of a worker, whose training runs in another one."""
    WORKER.listen(deadline_s, lambda: os._exit(TERMINATED))


def terminate() -> NoReturn:
    """End this process the way SIGTERM does, now that all is saved."""
    os.kill(os.getpid(), signal.SIGTERM)
    raise SystemExit(TERMINATED)  # where SIGTERM does nothing
