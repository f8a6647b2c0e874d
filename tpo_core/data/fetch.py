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
from tpo_core.errors import TpoError
from tpo_core.storage import uri as uris


@contextmanager
def local_copy(uri: str) -> Iterator[str]:
    """Inside, the URI of a file on this machine with the bytes of `uri`; a local one is itself.

    Raises:
        FileNotFoundError: there is no such remote file.
        FetchError: the storage did not give it.
    """
    if uris.is_local(uri):
        yield uri
        return
    with tempfile.TemporaryDirectory(prefix="tpo-media-") as folder:
        copy = Path(folder) / f"media{os.path.splitext(uri)[1]}"
        with _fetching(uri):
            uris.copy_here(uri, copy)
        yield str(copy)


def read(uri: str) -> bytes:
    """The bytes of a file. Raises as `local_copy` does."""
    with _fetching(uri):
        return uris.read_bytes(uri)


@contextmanager
def _fetching(uri: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise FileNotFoundError("no such file") from None
    except (OSError, TpoError) as error:  # TpoError: refused, or no answer after all attempts
        text = " ".join(str(error).split()).removeprefix(f"{uri}: ")
        raise FetchError(f"{uri}: {text}") from error
