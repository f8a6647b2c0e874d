"""Ends a rank that hangs, and leaves behind where every thread of it was.

A collective that one rank never enters, a driver call that never returns: no exception comes of these, so nothing
restarts the run. All ranks of a group stand still together, and all tell.

The clock is faulthandler's thread, which needs no interpreter lock: it also fires when native code keeps that lock. It
runs where ranks compute together, with the wait for samples, which are prepared ahead; and not where they read or write
models and checkpoints: how long that takes is a matter of sizes and storage, which has deadlines of its own.
"""

import faulthandler
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

OPEN, TOLD = ".stacks", ".txt"


class Watchdog:
    """Context manager; inside `timed`, `alive` must be called more often than every `timeout_s`, or the process ends
    with status 1 after the stacks of its threads were written below `folder`. None: never."""

    def __init__(self, folder: Path, rank: int, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._path = folder / f"rank{rank}-{socket.gethostname()}-{os.getpid()}{OPEN}"

    def __enter__(self) -> "Watchdog":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w")
        return self

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Inside, the clock runs."""
        self.alive()
        try:
            yield
        finally:
            faulthandler.cancel_dump_traceback_later()

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """A part of what is `timed` that may last as long as it likes; afterwards the time starts anew."""
        faulthandler.cancel_dump_traceback_later()
        try:
            yield
        finally:
            self.alive()

    def alive(self) -> None:
        """Start the time anew."""
        if self._timeout_s is not None:
            faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=self._file)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)


def clear(folder: Path) -> None:
    """Remove what ranks that were killed left in `folder`, now that none runs; what a rank that hung told stays."""
    for path in folder.glob(f"*{OPEN}"):
        path.unlink()
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def hangs(folder: Path) -> list[Path]:
    """What ranks that hung left in `folder`, each told to one caller only, and renamed to say so."""
    told = []
    for path in sorted(folder.glob(f"*{OPEN}")):
        try:
            if path.stat().st_size == 0:
                continue  # of a rank that runs, or was killed
            told.append(path.rename(path.with_suffix(TOLD)))
        except FileNotFoundError:  # another rank was faster
            continue
    return told
