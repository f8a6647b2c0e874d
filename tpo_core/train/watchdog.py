"""Ends a rank that hangs, and leaves behind where every thread of it was.

A collective that one rank never enters, a driver call that never returns, a read from a file system that is gone: no
exception comes of these, so nothing restarts the run. All ranks of a group stand still together, and all tell.

The clock is faulthandler's thread, which needs no interpreter lock: it also fires when native code keeps that lock.
"""

import faulthandler
import os
import socket
from pathlib import Path
from types import TracebackType

OPEN, TOLD = ".stacks", ".txt"


class Watchdog:
    """Context manager; inside, `alive` must be called more often than every `timeout_s`, or the process ends with
    status 1 after the stacks of its threads were written below `folder`. None: never."""

    def __init__(self, folder: Path, rank: int, timeout_s: float | None) -> None:
        self._timeout_s = timeout_s
        self._path = folder / f"rank{rank}-{socket.gethostname()}-{os.getpid()}{OPEN}"

    def __enter__(self) -> "Watchdog":
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("w")
        self.alive()
        return self

    def alive(self) -> None:
        """Start the time anew."""
        if self._timeout_s is not None:
            faulthandler.dump_traceback_later(self._timeout_s, exit=True, file=self._file)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        faulthandler.cancel_dump_traceback_later()
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
