"""Who made a result, when, with which code."""

import getpass
import os
import socket
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from tpo_core.storage.uri import without_password


def describe_process() -> dict[str, str | list[str] | None]:
    """Commit, argv, host, user and Python version of this process."""
    return {
        "commit": commit(),
        "argv": [without_password(word) for word in sys.argv],
        "host": socket.gethostname(),
        "user": _user(),
        "python": sys.version.split()[0],
    }


def commit() -> str | None:
    """The git commit of this code, `-dirty` appended if files differ from it.

    Where there is no repository, as in a container or a Ray working directory, $TPO_COMMIT; else None.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return os.environ.get("TPO_COMMIT")
    head = _git(root, "rev-parse", "HEAD")
    return f"{head}-dirty" if head and _git(root, "status", "--porcelain", "--untracked-files=no") else head


def utc_now() -> datetime:
    """The time now, aware of its zone."""
    return datetime.now(UTC)


def _user() -> str:
    try:
        return getpass.getuser()
    except KeyError:  # a container may run under a number without a name
        return f"uid {os.getuid()}"


def _git(root: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", root, *command], capture_output=True, text=True, timeout=20, check=True)
    except (FileNotFoundError, subprocess.SubprocessError):  # no git, or no commit yet: a result without one is fine
        return None
    return done.stdout.strip()
