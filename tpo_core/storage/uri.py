"""Read and write what a URI names: a bare path, file:// or s3://.

Every write is atomic: a reader sees the old content or the new, never a part. Names are joined with `/`.
"""

import hashlib
import json
import os
import posixpath
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from tpo_core.errors import TpoError
from tpo_core.storage import local
from tpo_core.storage.local import Entry

COPY_BYTES = 8 << 20
# Of http://, postgresql:// and the like, wherever in a text. A password may hold a slash; what is no part of it is
# hidden rather than what is part of it shown. Drivers of databases take it as ?password=, too.
_PASSWORD = re.compile(r"(://[^\s:/@]*:)\S*(?=@)|([?&]\w*password=)[^\s&#]*", re.IGNORECASE)


class Store(Protocol):
    """What a kind of storage offers; a module can be one."""

    def exists(self, uri: str) -> bool: ...
    def read_bytes(self, uri: str) -> bytes: ...
    def open_read(self, uri: str) -> BinaryIO: ...
    def write_bytes(self, uri: str, data: bytes) -> None: ...
    def write_new(self, uri: str, data: bytes) -> bool: ...
    def list_names(self, uri: str) -> list[str]: ...
    def entries(self, uri: str) -> dict[str, Entry]: ...
    def entry(self, uri: str) -> Entry | None: ...
    def tree(self, uri: str) -> Iterator[tuple[str, Entry]]: ...
    def put_file(self, path: Path, uri: str) -> None: ...
    def size_bytes(self, uri: str) -> int: ...
    def delete(self, uri: str) -> None: ...


def without_password(text: str) -> str:
    """A URI, or a line that names some, to be shown and recorded: a password in it becomes ***."""
    return _PASSWORD.sub(lambda found: f"{found[1] or found[2]}***", text)


def is_local(uri: str | Path) -> bool:
    """True for a bare path or file://. TpoError for a scheme that is not known."""
    scheme, sign, _ = str(uri).partition("://")
    if sign and scheme not in ("file", "s3"):
        raise TpoError(f"{uri}: unknown storage {scheme}://; use a path, file:// or s3://")
    return not sign or scheme == "file"


def _store(uri: str | Path) -> Store:
    if is_local(uri):
        return local
    from tpo_core.storage import s3  # boto3 takes 0.3 s to import, and most runs are local

    return s3


def join(base: str | Path, *parts: str) -> str:
    """`base/part/...`; a part that is absolute or a URI itself replaces all before it. Below a file:// base it is a
    path: parts are names as they are, where a URI would take the %20 of one for a blank."""
    joined = str(local.to_path(str(base))) if parts and str(base).startswith("file://") else str(base)
    for part in parts:
        if "://" in part or part.startswith("/"):
            joined = part
        else:
            joined = f"{joined.rstrip('/')}/{part}" if joined != "/" else f"/{part}"
    return joined


def absolute(uri: str | Path) -> str:
    """A relative path made absolute, because other processes may run elsewhere; anything else as it is."""
    return str(uri) if "://" in str(uri) else os.path.abspath(uri)


def resolve(folder: str | Path, relative: str) -> str:
    """The URI of a path that is relative to a folder and may climb out of it by `..`."""
    scheme, sign, path = join(folder, relative).rpartition("://")
    return f"{scheme}{sign}{posixpath.normpath(path)}"


def exists(uri: str | Path) -> bool:
    """True for a file and for a folder with something in it (a local folder may be empty)."""
    return _store(uri).exists(str(uri))


def read_bytes(uri: str | Path) -> bytes:
    """The whole content. FileNotFoundError if there is none."""
    return _store(uri).read_bytes(str(uri))


def open_read(uri: str | Path) -> BinaryIO:
    """A binary file to read from front to back; close it. FileNotFoundError if there is none."""
    return _store(uri).open_read(str(uri))


def write_bytes(uri: str | Path, data: bytes) -> None:
    """Replace the content atomically, parent folders made. TpoError when the disk is full."""
    _store(uri).write_bytes(str(uri), data)


def write_new(uri: str | Path, data: bytes) -> bool:
    """Write where nothing is yet; False if something is. Of two at once, one gets True."""
    return _store(uri).write_new(str(uri), data)


def read_json(uri: str | Path) -> Any:
    """Parsed JSON. FileNotFoundError if there is none, ValueError if it is not JSON."""
    return json.loads(read_bytes(uri))


def write_json(uri: str | Path, value: Any) -> None:
    """Write JSON for people to read: indented, keys in the given order, NaN refused."""
    write_bytes(uri, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


def list_names(uri: str | Path) -> list[str]:
    """Sorted names directly below a folder; empty if it is not there."""
    return _store(uri).list_names(str(uri))


def entries(uri: str | Path) -> dict[str, Entry]:
    """The files directly below a folder, by name, from one listing; empty if it is not there."""
    return _store(uri).entries(str(uri))


def tree_stamp(uri: str | Path, *, without: str | Path = "") -> str:
    """What tells the content of a folder from another: a SHA-256 over the names, sizes and tags of all files below it,
    from listings alone. Hidden files, and what lies below the folder `without`, do not count."""
    skipped = _plain(without).removeprefix(f"{_plain(uri)}/") if without else ""
    lines = [
        f"{name}\0{each.size_bytes}\0{each.tag}\n"
        for name, each in _store(uri).tree(str(uri))
        if not (name.startswith(".") or "/." in name or (skipped and name.startswith(f"{skipped}/")))
    ]
    return hashlib.sha256("".join(sorted(lines)).encode("utf-8", "surrogateescape")).hexdigest()


def _plain(uri: str | Path) -> str:
    """One spelling of a place, to compare: a path for file://, no slash at the end."""
    return absolute(local.to_path(str(uri)) if is_local(uri) else uri).rstrip("/")


def entry(uri: str | Path) -> Entry | None:
    """Size and tag of one file; None if it is not there."""
    return _store(uri).entry(str(uri))


def put_file(path: Path, uri: str | Path) -> None:
    """Move a local file to a URI, atomically: renamed on a disk, in parts on S3. `path` is gone afterwards."""
    _store(uri).put_file(path, str(uri))


def copy_here(uri: str | Path, path: Path) -> None:
    """Copy what a URI names to a local file, in blocks. FileNotFoundError if there is nothing."""
    with open_read(uri) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, COPY_BYTES)


def size_bytes(uri: str | Path) -> int:
    """Bytes of a file, or of all files below a folder. FileNotFoundError if there is neither."""
    return _store(uri).size_bytes(str(uri))


def delete(uri: str | Path) -> None:
    """Remove a file or a folder with all below it; nothing happens if it is not there. Of a link, what it points to
    stays."""
    _store(uri).delete(str(uri))


def sha256_file(path: str | Path) -> str:
    """Hex digest of a local file, read in blocks."""
    with open(local.to_path(str(path)), "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def scratch_dir() -> Path:
    """Local folder for staging and copies of remote results: $TPO_SCRATCH, else ~/.cache/tpo."""
    return Path(os.environ["TPO_SCRATCH"]) if "TPO_SCRATCH" in os.environ else Path.home() / ".cache" / "tpo"
