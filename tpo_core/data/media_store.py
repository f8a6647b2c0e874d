"""Where decoded media are kept: files of `media/`, written once and never changed.

    <sha256>.arrow   rows of `tpo_core.data.shards.MEDIA_SCHEMA`, ascending by key; named after its content
    <digest>.json    of what was asked, written last: the file that answers it, the facts of each media, and what could
                     not be decoded

A media is told by its key, its size and ETag (on a disk the time of its last change) and the decode settings. Media are
spread over files by a hash of their key, and the number of files is a power of two: so one media more, or another
version of one, changes one file, and the rows of the others in it are copied from the file of before.
Shard sets may share a store, since a file answers whoever asks for the same; nothing is ever deleted from it. Two runs
that make the same file at once, or one that tries again, never change what a finished set points at.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from tpo_core.config.schema import FramesConfig
from tpo_core.data.frame_reader import FrameReader
from tpo_core.data.frames import DecodedMedia, DecodeError, DecodeRequest
from tpo_core.data.sample import SCHEMA_VERSION
from tpo_core.data.shards import MEDIA_SCHEMA, open_shard, write_media_shard
from tpo_core.errors import TpoError
from tpo_core.storage import local
from tpo_core.storage import uri as uris
from tpo_core.storage.local import Entry

JPEG_BYTES_PER_PX = 0.35  # of a stored frame at quality 92; only balances the sizes of shard files
SHARD_FILES_AT_LEAST = 16  # so that small sets, too, are decoded in parallel and resumed in parts
MEDIA_PER_FILE_AT_LEAST = 8
LISTED_TOGETHER = 16  # media of one folder from which on one listing is cheaper than asking for each
STORAGE_REQUESTS_AT_ONCE = 16
DECODERS = 1  # raise it when decoders read what they refused before, so that it is tried again
ABANDONED_AFTER_S = 86_400.0  # a half-written file that nobody has touched for so long


@dataclass(frozen=True)
class MediaStore:
    """`uri` is the folder of the files, `seen_from_set` the way to it from the folder of a shard set that uses it."""

    uri: str
    seen_from_set: str

    def finished(self, jobs: Iterable[ShardJob], *, try_again: bool = False) -> dict[str, dict[str, Any]]:
        """The records of the jobs whose files are there, by name; a file that is not of its recorded size is not.
        With `try_again`, jobs of which a media failed for a reason that may have passed, or in decoders of another
        version, are left out."""
        there = uris.entries(self.uri)
        names = [job.name for job in jobs if f"{job.name}.json" in there]
        found = {name: record for name, record in self._records(names) if _whole(record, there)}
        if not try_again:
            return found
        return {
            name: record
            for name, record in found.items()
            if not any(_may_pass(failure) for failure in record["failed"].values())
        }

    def with_reuse(self, jobs: list[ShardJob]) -> list[ShardJob]:
        """The jobs, told which of their media lie in files of the store already."""
        if not jobs:
            return jobs
        wanted = {digest: (job.name, key) for job in jobs for key, digest in job.digests.items()}
        reuse: dict[str, dict[str, tuple[str, int]]] = {job.name: {} for job in jobs}
        there = uris.entries(self.uri)
        names = [name.removesuffix(".json") for name in sorted(there) if name.endswith(".json")]
        for _, record in self._records(names):
            if not _whole(record, there):
                continue
            for row, facts in enumerate(record["media"].values()):
                if facts["digest"] in wanted:
                    job_name, key = wanted[facts["digest"]]
                    reuse[job_name][key] = (record["file"]["name"], row)
        return [replace(job, reuse=reuse[job.name]) for job in jobs]

    def sweep(self) -> None:
        """Removes half-written files that a killed run left long ago; another run may be writing the others."""
        if not uris.is_local(self.uri):
            return
        for path in local.to_path(self.uri).glob(".*"):
            with suppress(FileNotFoundError):  # another run has just given it its name
                if path.is_file() and time.time() - path.stat().st_mtime > ABANDONED_AFTER_S:
                    path.unlink()

    def _records(self, names: list[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        with ThreadPoolExecutor(STORAGE_REQUESTS_AT_ONCE) as pool:
            read = pool.map(lambda name: uris.read_json(uris.join(self.uri, f"{name}.json")), names)
            yield from zip(names, read, strict=True)


def _may_pass(failure: dict[str, Any]) -> bool:
    return failure["passing"] or failure.get("decoders") != DECODERS  # records of before say nothing of decoders


def _whole(record: dict[str, Any], there: Mapping[str, Entry]) -> bool:
    held = there.get(record["file"]["name"])
    return held is not None and held.size_bytes == record["file"]["bytes"]


@dataclass(frozen=True)
class ShardJob:
    """One file of the store to make: the requests and the digests of its media by key, ascending. `reuse` names the
    file and row where a media lies already."""

    requests: dict[str, DecodeRequest]
    digests: dict[str, str]
    reuse: dict[str, tuple[str, int]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return _digest(list(self.digests.values()))[:32]


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def media_digest(key: str, stamp: str, request: DecodeRequest) -> str:
    """Sha256 of what is asked of a media in a given state, apart from where the data root lies."""
    features = request.features and vars(request.features)
    prefer = [[frames.start, frames.stop, frames.step] for frames in request.prefer_frames]
    asked = {**vars(request), "uri": "", "features": features, "prefer_frames": prefer}
    if request.choice == "midpoints":  # as in records from before there was a choice
        del asked["choice"]
    return _digest([SCHEMA_VERSION, key, stamp, asked])


def plan_shards(
    requests: Mapping[str, DecodeRequest], stamps: Mapping[str, str], frames: FramesConfig, shard_size_mib: int
) -> list[ShardJob]:
    """Assigns every media that has a stamp to a file, by a hash of its key; files of at most about the aimed size."""
    keys = sorted(stamps)
    frame_bytes = frames.short_side_px**2 * 4 / 3 * JPEG_BYTES_PER_PX
    expected = sum((frames.n_frames if requests[key].kind != "image" else 1) * frame_bytes for key in keys)
    at_least = min(SHARD_FILES_AT_LEAST, -(-len(keys) // MEDIA_PER_FILE_AT_LEAST))
    files = _power_of_two(max(-(-int(expected) // (shard_size_mib << 20)), at_least, 1))
    buckets: list[list[str]] = [[] for _ in range(files)]
    for key in keys:
        buckets[int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") % files].append(key)
    return [
        ShardJob(
            {key: requests[key] for key in bucket},
            {key: media_digest(key, stamps[key], requests[key]) for key in bucket},
        )
        for bucket in buckets
        if bucket
    ]


def _power_of_two(least: int) -> int:
    return 1 << (least - 1).bit_length()


def media_stamps(requests: Mapping[str, DecodeRequest]) -> dict[str, str]:
    """What tells a version of each media from another, by key: size and tag of a file, all names, sizes and tags of a
    folder of frames. A media that is not there has none."""
    folders: dict[str, list[str]] = {}
    for key, request in requests.items():
        folder = request.uri if request.kind == "frames" else request.uri.rpartition("/")[0]
        folders.setdefault(folder, []).append(key)
    with ThreadPoolExecutor(STORAGE_REQUESTS_AT_ONCE) as pool:
        stamped = pool.map(lambda folder: _stamps_in(folder, {key: requests[key] for key in folders[folder]}), folders)
        return {key: stamp for stamps in stamped for key, stamp in stamps.items()}


def _stamps_in(folder: str, requests: dict[str, DecodeRequest]) -> dict[str, str]:
    stills = [key for key, request in requests.items() if request.kind == "frames"]
    files = [key for key, request in requests.items() if request.kind != "frames"]
    listed = uris.entries(folder) if stills or len(files) > LISTED_TOGETHER else None
    stamps = {}
    if stills and listed:
        content = _digest(sorted((name, each.size_bytes, each.tag) for name, each in listed.items()))
        stamps = dict.fromkeys(stills, content)
    for key in files:
        uri = requests[key].uri
        found = uris.entry(uri) if listed is None else listed.get(uri.rpartition("/")[2])
        if found is not None:
            stamps[key] = f"{found.size_bytes}-{found.tag}"
    return stamps


def write_shard(store: str, job: ShardJob, reader: FrameReader, tell: Callable[[int, int, int], Any]) -> None:
    """Decodes (or copies) the media of one file and writes it, then its record. `tell` is called after each media with
    (media, failed ones, bytes) since the last call."""
    facts: dict[str, dict[str, Any]] = {}
    failed: dict[str, dict[str, Any]] = {}

    def rows() -> Iterator[dict[str, Any]]:
        with ExitStack() as held:
            files: dict[str, list[pa.RecordBatch]] = {}
            for key, request in job.requests.items():
                try:
                    if key in job.reuse:
                        row = _copied(store, *job.reuse[key], files, held)
                    else:
                        row = _media_row(key, request, reader.decode(request))
                except DecodeError as error:
                    failed[key] = {
                        "digest": job.digests[key],
                        "detail": error.detail,
                        "passing": error.passing,
                        "decoders": DECODERS,
                    }
                    tell(1, 1, 0)
                    continue
                facts[key] = {"digest": job.digests[key]} | {name: row[name] for name in FACTS}
                tell(1, 0, sum(map(len, row["frames"])))
                yield row

    with tempfile.TemporaryDirectory(prefix="tpo-shard-") as aside:
        here = local.to_path(store) if uris.is_local(store) else Path(aside)
        made = here / f".{job.name}.{uuid.uuid4().hex}"
        file = write_media_shard(made, rows())
        name = f"{file['sha256'][:32]}.arrow"
        uris.put_file(made, uris.join(store, name))
    record = {"file": file | {"name": name}, "media": facts, "failed": failed}
    uris.write_json(uris.join(store, f"{job.name}.json"), record)


FACTS = ("width", "height", "n_frames", "fps", "duration_s", "media_duration_s")


def _copied(store: str, name: str, row: int, files: dict[str, list[pa.RecordBatch]], held: ExitStack) -> dict[str, Any]:
    """A row of another file of the store, which is fetched once."""
    if name not in files:
        uri = uris.join(store, name)
        if uris.is_local(store):
            path = local.to_path(uri)
        else:
            path = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="tpo-shard-"))) / "old.arrow"
            uris.copy_here(uri, path)
        if not name.startswith(uris.sha256_file(path)[:32]):  # what is copied gets a checksum of its own
            raise TpoError(f"{uri} is damaged (its checksum is not its name): delete it and run again")
        files[name] = open_shard(path, MEDIA_SCHEMA)
    for batch in files[name]:
        if row < batch.num_rows:
            return batch.slice(row, 1).to_pylist()[0]
        row -= batch.num_rows
    raise AssertionError(f"{name} has fewer rows than its record")


def _media_row(key: str, request: DecodeRequest, media: DecodedMedia) -> dict[str, Any]:
    begin, end = request.clip_s if request.clip_s is not None else (0.0, media.duration_s)
    features = media.features_SD
    return {
        "uri": key,
        "kind": request.kind,
        "width": media.width,
        "height": media.height,
        "stored_width": media.stored_width,
        "stored_height": media.stored_height,
        "n_frames": media.n_frames,
        "fps": media.fps,
        "duration_s": min(end, media.duration_s) - begin,
        "media_duration_s": media.duration_s,
        "frame_index": media.frame_index,
        "frame_times_s": media.times_s,
        "frames": media.jpegs,
        "decoder": media.decoder,
        "features": None if features is None else features.tobytes(),
        "features_dim": None if features is None else features.shape[1],
    }
