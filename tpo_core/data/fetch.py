"""Media files that lie elsewhere, brought to this machine, and what is told when the storage does not give them.

Videos are fetched by the process that asks, before its child decodes them: so a slow storage does not count against
the deadline of a decoder, two decoders share one copy, and a child that is killed leaves nothing behind.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tpo_core.data.frames import FetchError
from tpo_core.storage import local
from tpo_core.storage import uri as uris


@contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """Inside, the URI of a file on this machine with the bytes of `uri`; a local one is itself.

    Raises:
        FileNotFoundError: there is no such remote file.
        FetchError: the storage did not give it. TpoError: the disk for temporary files is full.
    """
    if uris.is_local(uri):
        yield uri
        return
    with tempfile.TemporaryDirectory(prefix="tpo-media-") as folder:
        copy = Path(folder) / f"media{os.path.splitext(uri)[1]}"
        with local.disk_full_told(copy), fetching(uri):
            uris.copy_here(uri, copy)
        yield str(copy)


def read(uri: str) -> bytes:
    """The bytes of a file. Raises as `local_copy` does."""
    with fetching(uri):
        return uris.read_bytes(uri)


def names(uri: str) -> list[str]:
    """Sorted names in a folder, none where it is not there. Raises as `local_copy` does."""
    with fetching(uri):
        return uris.list_names(uri)


@contextmanager
def fetching(uri: str) -> Iterator[None]:
    """Inside, whatever goes wrong is the storage's fault, not that of the media."""
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError("no such file") from None
    except Exception as error:  # each storage has its own
        text = " ".join(str(error).split()).removeprefix(f"{uri}: ")
        raise FetchError(f"{uri}: {text}") from error
