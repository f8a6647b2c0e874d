"""Files on a mounted disk. The functions of `tpo_core.storage.uri`, for bare paths and file:// URIs."""

import errno
import fcntl
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from tpo_core.errors import TpoError


@dataclass(frozen=True)
class Entry:
    """A file as a listing tells it: its size, and a tag that changes with the content (ETag on S3, else the time of the
    last change, ns)."""

    size_bytes: int
    tag: str


FULL = (errno.ENOSPC, errno.EDQUOT)
NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)  # what no file can have as its name


def to_path(uri: str) -> Path:
    """The path behind a bare path or a file:// URI."""
    return Path(unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri)


def folder_named(text: str) -> Path:
    """The folder that a command line names; TpoError for a URI of anything but a disk."""
    if "://" in text and not text.startswith("file://"):
        raise TpoError(f"{text}: give a folder on a disk here; a URI would become a folder of that name")
    return to_path(text)


@contextmanager
def disk_full_told(path: Path) -> Iterator[None]:
    """Turn "no space left" and "quota exceeded" into one line that says where and how many bytes are free."""
    try:
        yield
    except TpoError:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
        free = shutil.disk_usage(there).free
        raise TpoError(
            f"disk full while writing {path} ({free} bytes free on its disk): free some space, then run again"
        ) from error


def is_disk_full(error: BaseException) -> bool:
    """By its errno, by the system's words (safetensors and Ray raise types of their own with them in the message), or
    by what came before it (torch.save fails again when it closes the file)."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    if any(os.strerror(code) in str(error) for code in FULL):
        return True
    return error.__context__ is not None and is_disk_full(error.__context__)


def exists(uri: str) -> bool:
    return to_path(uri).exists()


def read_bytes(uri: str) -> bytes:
    with open_read(uri) as file:
        return file.read()


def open_read(uri: str) -> BinaryIO:
    try:
        return to_path(uri).open("rb")
    except NotADirectoryError as error:  # nothing is below a file
        raise FileNotFoundError(*error.args, error.filename) from None
    except (IsADirectoryError, PermissionError) as error:
        raise TpoError(f"{uri} cannot be read: {str(error.strerror).lower()}") from error


def write_bytes(uri: str, data: bytes) -> None:
    """Atomic and durable: written aside, synced, then renamed over."""
    path = to_path(uri)
    with disk_full_told(path):
        _replace(path, data)


def put_file(path: Path, uri: str) -> None:
    target = to_path(uri)
    with disk_full_told(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.aside")
        try:
            shutil.move(path, aside)
            sync(aside)
            os.replace(aside, target)
        except OSError:
            aside.unlink(missing_ok=True)
            raise
        sync(target.parent)


def write_new(uri: str, data: bytes) -> bool:
    """Write a file that must not be there yet; False, and nothing changed, if it is."""
    path = to_path(uri)
    with disk_full_told(path):
        aside = _write_aside(path, data)
        try:
            os.link(aside, path)  # unlike rename, link refuses an existing name, on NFS too
        except FileExistsError:
            return False
        finally:
            aside.unlink()
    return True


def list_names(uri: str) -> list[str]:
    path = to_path(uri)
    return sorted(os.listdir(path)) if path.is_dir() else []


def entries(uri: str) -> dict[str, Entry]:
    path = to_path(uri)
    if not path.is_dir():
        return {}
    found = {}
    with os.scandir(path) as listed:
        for each in listed:
            with suppress(FileNotFoundError):  # what is written aside goes meanwhile
                if each.is_file():
                    found[each.name] = _entry(each.stat())
    return found


def tree(uri: str) -> Iterator[tuple[str, Entry]]:
    root, seen = to_path(uri), set()
    for folder, folders, names in os.walk(root, followlinks=True):
        place = os.stat(folder)
        if (place.st_dev, place.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((place.st_dev, place.st_ino))
        for name in names:
            path = Path(folder, name)
            with suppress(FileNotFoundError):  # a link to nothing, or a file that goes meanwhile
                yield path.relative_to(root).as_posix(), _entry(path.stat())


def entry(uri: str) -> Entry | None:
    try:
        found = to_path(uri).stat()
    except OSError as error:
        if error.errno not in NOWHERE:
            raise
        return None
    return None if stat.S_ISDIR(found.st_mode) else _entry(found)


def _entry(found: os.stat_result) -> Entry:
    return Entry(found.st_size, f"{found.st_mtime_ns}")


def size_bytes(uri: str) -> int:
    path = to_path(uri)
    if path.is_dir():
        return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    return path.stat().st_size


def delete(uri: str) -> None:
    path = to_path(uri)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
        return
    with suppress(FileNotFoundError, NotADirectoryError):
        path.unlink()


def sync_tree(root: Path) -> None:
    """Have the disk hold every file and name below `root`; a full disk may show only now."""
    for folder, _, names in os.walk(root):
        for name in names:
            sync(Path(folder, name))
        sync(Path(folder))


def _replace(path: Path, data: bytes) -> None:
    aside = _write_aside(path, data)
    try:
        os.replace(aside, path)
    except OSError:
        aside.unlink()
        raise
    sync(path.parent)


def _write_aside(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.aside")
    try:
        with aside.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with suppress(FileNotFoundError):
            aside.unlink()
        raise
    return aside


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Inside, no other process of this machine is inside for the same path; the lock is a hidden file beside it.

    Raises BlockingIOError where another holds the lock and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f".{path.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def sync(path: Path) -> None:
    """Have the disk hold one file, or the names in one folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
