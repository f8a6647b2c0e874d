"""How a conversion writes: into a folder aside that is committed when it is whole, and with a bar of its progress."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from tpo_core.errors import TpoError
from tpo_core.storage import local
from tpo_core.storage import uri as uris
from tpo_core.storage.commit import commit


@contextmanager
def written_aside(uri: str) -> Iterator[Path]:
    """A new local folder, which becomes `uri` when the block ends well and is removed when it does not.

    Raises TpoError when something is at `uri` already, when its place cannot be written to, and when the disk is full.
    """
    if uris.exists(uri):
        raise TpoError(f"{uri} exists: give a new folder, or delete it first")
    place = local.to_path(uri) if uris.is_local(uri) else uris.scratch_dir() / "converted" / Path(uri).name
    aside = place.absolute().with_name(f".{place.name}.{os.getpid()}.partial")
    try:
        aside.mkdir(parents=True)
    except OSError as error:
        raise TpoError(f"{uri} cannot be written ({error.strerror}): give another place") from error
    try:
        with local.disk_full_told(aside):
            yield aside
            commit(aside, uri)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def progress(what: str, size_bytes: int) -> Any:
    """A bar in bytes with the time that is left, on stderr; `.update(bytes)` it."""
    return tqdm(total=size_bytes, desc=what, unit="B", unit_scale=True, unit_divisor=1024, mininterval=1.0)
