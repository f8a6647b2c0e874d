"""The files of subtitles of an entry: where they lie, and what tells them from others."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from tpo_core.data.sample import Sample
from tpo_core.data.subtitles import Cue, parse_srt
from tpo_core.errors import StorageTroubleError, TpoError
from tpo_core.evaluation.suite import Entry
from tpo_core.storage.uri import entries, join, read_bytes

UNREADABLE = ""


def name_of(entry: Entry, media_uri: str) -> str:
    """The file of a media, below the root of the data set."""
    assert entry.subtitles is not None, f"{entry.name} shows no subtitles"
    return entry.subtitles.replace("{name}", media_uri.rpartition("/")[2].partition(".")[0])


def cues_of(entry: Entry, root: str, media_uri: str) -> list[Cue]:
    """What is said in a media, nothing where it has no file. TpoError for a file that cannot be read."""
    uri = join(root, name_of(entry, media_uri))
    try:
        return parse_srt(read_bytes(uri), uri)
    except FileNotFoundError:
        return []


def files_of(entry: Entry, root: str, samples: Iterable[Sample]) -> dict[str, str] | None:
    """The hash of each file that is there for the media of samples, by its name; None for an entry without subtitles.

    A file that cannot be read has `UNREADABLE` for a hash; the requests about its media tell why. TpoError where none
    is there.
    """
    if entry.subtitles is None:
        return None
    wanted = sorted({name_of(entry, sample.media[0].uri) for sample in samples if sample.media})
    folders = {name.rpartition("/")[0] for name in wanted}
    there = {folder: entries(join(root, folder) if folder else root) for folder in folders}
    found = [name for name in wanted if name.rpartition("/")[2] in there[name.rpartition("/")[0]]]
    if not found:
        raise TpoError(
            f"{entry.name}: none of {len(wanted)} media has a file of subtitles ({entry.subtitles} below {root}): put"
            " them there, or leave the entry out (--only names those that are asked)"
        )
    return {name: _hash(join(root, name)) for name in found}


def missing(entry: Entry, files: dict[str, str] | None, samples: Iterable[Sample]) -> int | None:
    """How many media of samples have no file; None for an entry without subtitles."""
    if files is None:
        return None
    media = {sample.media[0].uri for sample in samples if sample.media}
    return sum(name_of(entry, uri) not in files for uri in media)


def _hash(uri: str) -> str:
    try:
        return hashlib.sha256(read_bytes(uri)).hexdigest()
    except StorageTroubleError:
        raise
    except TpoError:
        return UNREADABLE
