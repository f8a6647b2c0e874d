"""Files of known size and SHA-256: checked once a machine, and copies of remote ones kept within a limit.

Copies lie in <scratch>/shards, $TPO_CACHE_GIB of them at most (100 unless it is set); the ones that were used longest
ago go first, and so does what killed downloads left. A file that another process has
mapped stays readable to it when its name is removed.
"""

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tpo_core.errors import TpoError
from tpo_core.storage import local
from tpo_core.storage import uri as uris

DEFAULT_GIB = 100.0


class DamagedError(TpoError):
    """A file is missing or is not what was written."""


def verify(path: Path, size_bytes: int, sha256: str, remedy: str) -> None:
    """TpoError that names the file, with `remedy`, when it is missing or not what was written. The checksum of an
    unchanged file is computed once a machine: a note in the scratch folder says that it was right."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        raise DamagedError(f"{path} is missing: {remedy}") from None
    if stat.st_size != size_bytes:
        raise DamagedError(f"{path} is damaged ({stat.st_size} bytes, {size_bytes} were written): {remedy}")
    seen = f"{path.absolute()} {stat.st_size} {stat.st_mtime_ns} {sha256}"
    note = uris.scratch_dir() / "verified" / hashlib.sha256(seen.encode()).hexdigest()
    if note.exists():
        return
    if uris.sha256_file(path) != sha256:
        raise DamagedError(f"{path} is damaged (its checksum is not the recorded one): {remedy}")
    note.parent.mkdir(parents=True, exist_ok=True)
    note.touch()


def limit_bytes() -> float:
    """What $TPO_CACHE_GIB allows, "inf" for all. TpoError when it is no number."""
    text = os.environ.get("TPO_CACHE_GIB", f"{DEFAULT_GIB}")
    try:
        limit = float(text) * 2**30
    except ValueError:
        limit = math.nan
    if math.isnan(limit):
        raise TpoError(f"TPO_CACHE_GIB={text!r} is no number of GiB")
    return limit


@contextmanager
def cached(uri: str, size_bytes: int, sha256: str, remedy: str) -> Iterator[Path]:
    """A local copy of a remote file, fetched once a machine however many processes ask; inside, nobody makes room of
    it, so open it there.

    Raises:
        DamagedError: what is there is not what was written; with `remedy`.
        TpoError: the storage cannot be read, or the disk is full.
    """
    folder = uris.scratch_dir() / "shards"
    path = folder / f"{sha256}.arrow"
    with local.locked(path):
        if not path.exists() or path.stat().st_size != size_bytes:
            for left in folder.glob(f".{sha256}.[0-9]*"):  # of downloads that were killed, since the lock is ours
                left.unlink(missing_ok=True)
            _make_room(folder, size_bytes)
            _fetch(uri, path, size_bytes, sha256, remedy)
        os.utime(path)
        yield path


def _fetch(uri: str, path: Path, size_bytes: int, sha256: str, remedy: str) -> None:
    aside = path.with_name(f".{sha256}.{os.getpid()}")
    try:
        with local.disk_full_told(path):
            uris.copy_here(uri, aside)
        if aside.stat().st_size != size_bytes or uris.sha256_file(aside) != sha256:
            raise DamagedError(f"{uri} is damaged (it is not what its checksum says): {remedy}")
        os.replace(aside, path)
    except FileNotFoundError:
        raise DamagedError(f"{uri} is missing: {remedy}") from None
    finally:
        aside.unlink(missing_ok=True)


def _make_room(folder: Path, size_bytes: int) -> None:
    stats = {}
    for path in [*folder.glob("*.arrow"), *folder.glob(".*.[0-9]*")]:  # copies, and downloads in flight or left behind
        with suppress(FileNotFoundError):  # another process makes room, too
            stats[path] = path.stat()
    kept = sum(stat.st_size for stat in stats.values())
    for path, stat in sorted(stats.items(), key=lambda item: item[1].st_mtime_ns):
        if kept + size_bytes <= limit_bytes():
            return
        copy = path if path.suffix == ".arrow" else folder / f"{path.name.split('.')[1]}.arrow"
        with suppress(BlockingIOError), local.locked(copy, wait=False):  # what is being opened or fetched stays
            path.unlink(missing_ok=True)
            kept -= stat.st_size
