"""Where a model comes from: a folder, a URI or a name on the Hugging Face hub, and what identifies its content."""

import functools
import hashlib
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from tpo_core.errors import TpoError
from tpo_core.storage.commit import fetch, is_committed
from tpo_core.storage.local import to_path
from tpo_core.storage.uri import is_local, sha256_file, tree_stamp

SAMPLED_BYTES = 1 << 20  # hashed at either end of a file, and in the middle: 16 GB of weights are identified in no time


def local_path(uri: str) -> str:
    """A local folder for a path, a URI, or a name on the hub. Raises TpoError when there is none."""
    if "://" in uri:
        try:
            return str(fetch(uri))
        except FileNotFoundError as error:
            raise TpoError(f"{uri} is no finished folder: copy the model there, and an empty _SUCCESS last") from error
    return uri if Path(uri).is_dir() else _snapshot(uri, None)


def identify(uri: str, *, whole: bool = False) -> str:
    """What tells one model from another before it is loaded, the same wherever a folder lies.

    A local folder: a hash over names, sizes and samples of all files, or, `whole`, all of their bytes (about 1 GB/s);
    on the hub: the commit; a remote URI: a hash over names, sizes and tags, from a listing alone.
    Raises TpoError when there is no such model, so that a mistyped base is noticed before anything is spent.
    """
    if "://" in uri and not is_local(uri):
        if not is_committed(uri):
            raise TpoError(f"{uri} is no finished folder: copy the model there, and an empty _SUCCESS last")
        return tree_stamp(uri)
    folder = to_path(uri)
    if folder.is_dir():
        return _digest(folder, whole)
    return Path(_snapshot(uri, ["config.json"])).name


def _digest(folder: Path, whole: bool) -> str:
    found = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md"):
        facts = path.stat()
        size = facts.st_size
        found.update(f"{path.relative_to(folder)} {size}\n".encode())
        if whole:
            found.update(_content(path, size, facts.st_mtime_ns).encode())
            continue
        with path.open("rb") as file:
            for offset in sorted({0, max(0, size // 2 - SAMPLED_BYTES // 2), max(0, size - SAMPLED_BYTES)}):
                file.seek(offset)
                found.update(file.read(SAMPLED_BYTES))
    return found.hexdigest()


@functools.cache
def _content(path: Path, size_bytes: int, changed_ns: int) -> str:
    """Of a file in its present state; read once a process, since a suite asks for each of its benchmarks."""
    return sha256_file(path)


def _snapshot(name: str, patterns: list[str] | None) -> str:
    try:
        return snapshot_download(name, allow_patterns=patterns)
    except (HFValidationError, HfHubHTTPError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise TpoError(f"no model at {name!r}: not a folder, and not to be had from the hub ({reason})") from error
