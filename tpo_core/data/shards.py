"""Shard sets: what preprocessing writes and training reads, as Arrow IPC files that are mapped, not loaded.

    manifest.json                  rows and sha256 of every file, counts by part, kind and data set, schema version
    media/<digest>.arrow           one row a media, `MEDIA_SCHEMA`: its kept frames as JPEG bytes, their times, its size
    samples/<part>-00000.arrow     one row a sample, `tpo_core.data.sample.SCHEMA`
    samples/media.arrow            in which file and row each media is, `INDEX_SCHEMA`
    rejected.jsonl                 {uri, dataset, sample_id, reason, detail} of what was left out

`media/` may lie elsewhere (`media_store` of the manifest) and be shared by sets, see `tpo_core.data.media_store`; where
it is remote its files are fetched as they are needed. Every file is checked against its sha256 and schema before its
first use on a machine.

`Media.uri` of a stored sample is the key of its row in `media/`: the path below the data root (an absolute path or URI
where the source lies elsewhere), with what `tpo_core.data.intake.media_key` adds for clips and for folders of frames.
"""

from __future__ import annotations

import bisect
import hashlib
import io
import itertools
import json
import os
import uuid
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from tpo_core.config.names import nearest
from tpo_core.data.rows import sample_reader
from tpo_core.data.sample import KIND_OF_TASK, SCHEMA, SCHEMA_VERSION, Sample, to_table
from tpo_core.errors import TpoError
from tpo_core.storage import local
from tpo_core.storage import uri as uris
from tpo_core.storage.cache import cached, verify
from tpo_core.storage.commit import fetch

MANIFEST = "manifest.json"
MEDIA_INDEX = "samples/media.arrow"
REJECTED = "rejected.jsonl"
SAMPLES_PER_FILE = 8192
TRACK_ENTRY_BYTES = 1000  # of one frame of a track, as objects and as Arrow (2,500 frames: 2.3 MiB)
SAMPLE_BYTES_PER_FILE = 256 << 20  # a column of a batch holds 2 GiB; masks of long videos reach that in 8,192 samples
MEDIA_ROWS_PER_BATCH = 16
MEDIA_BYTES_PER_BATCH = 64 << 20
OPEN_MEDIA_FILES = 256  # an evicted file of the cache takes disk space as long as it is mapped
MEDIA_SCHEMA = pa.schema(
    [
        ("uri", pa.string()),
        ("kind", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("stored_width", pa.int32()),
        ("stored_height", pa.int32()),
        ("n_frames", pa.int64()),
        ("fps", pa.float64()),
        ("duration_s", pa.float64()),
        ("media_duration_s", pa.float64()),
        ("frame_index", pa.list_(pa.int32())),
        ("frame_times_s", pa.list_(pa.float64())),
        ("frames", pa.list_(pa.large_binary())),
        ("decoder", pa.string()),
        ("features", pa.large_binary()),
        ("features_dim", pa.int32()),
    ]
)
INDEX_SCHEMA = pa.schema([("key_hash", pa.uint64()), ("file", pa.int32()), ("row", pa.int32())])


@dataclass(frozen=True)
class MediaRow:
    """One stored media. `width`, `height`, `n_frames` and `fps` describe the original, `duration_s` the timeline of
    its samples (of the clip, where a sample is a part of a file). `frame_index` (T,) int64 says which frames of the
    original are stored, `times_s` (T,) float64 when they are shown on that timeline. `media_duration_s` is that of the
    whole file, `features_SD` (float16, one row a clip) None where no encoder was asked for."""

    uri: str
    kind: str
    width: int
    height: int
    stored_width: int
    stored_height: int
    n_frames: int
    fps: float | None
    duration_s: float
    media_duration_s: float
    frame_index: np.ndarray
    times_s: np.ndarray
    decoder: str
    jpegs: pa.LargeBinaryArray
    features_SD: np.ndarray | None

    def frames_THWC(self, rows: np.ndarray | None = None) -> np.ndarray:
        """The stored frames, or those of `rows` (numbers from 0), as uint8 RGB (T, stored_height, stored_width, 3)."""
        jpegs = list(self.jpegs) if rows is None else [self.jpegs[int(row)] for row in rows]
        frames = np.empty((len(jpegs), self.stored_height, self.stored_width, 3), np.uint8)
        for place, jpeg in enumerate(jpegs):
            frames[place] = np.asarray(Image.open(io.BytesIO(jpeg.as_buffer())))
        return frames


def write_media_shard(path: Path, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Writes one file of `media/` from rows of `MEDIA_SCHEMA`, streaming, aside and then renamed; frames may be many
    but only a batch of rows is held. Returns the file's record in the manifest: {rows, bytes, sha256}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    held: list[dict[str, Any]] = []
    total = held_bytes = 0
    with pa.ipc.new_file(aside, MEDIA_SCHEMA) as writer:

        def flush() -> None:
            writer.write_batch(pa.RecordBatch.from_pylist(held, schema=MEDIA_SCHEMA))
            held.clear()

        for row in rows:
            held.append(row)
            total, held_bytes = total + 1, held_bytes + sum(map(len, row["frames"]))
            if len(held) == MEDIA_ROWS_PER_BATCH or held_bytes >= MEDIA_BYTES_PER_BATCH:
                flush()
                held_bytes = 0
        if held:
            flush()
    return _placed(aside, path, total)


def write_samples(root: Path, part: str, samples: Iterable[Sample]) -> dict[str, dict[str, Any]]:
    """Writes `samples/<part>-NNNNN.arrow` below `root`, in the order given. Returns {file name: manifest record}."""
    records: dict[str, dict[str, Any]] = {}
    held: list[Sample] = []
    held_bytes = 0

    def flush() -> None:
        name = f"samples/{part}-{len(records):05d}.arrow"
        records[name] = _write_table(root / name, to_table(held))
        held.clear()

    for sample in samples:
        held.append(sample)
        held_bytes += _label_bytes(sample)
        if len(held) == SAMPLES_PER_FILE or held_bytes >= SAMPLE_BYTES_PER_FILE:
            flush()
            held_bytes = 0
    if held:
        flush()
    return records


def _label_bytes(sample: Sample) -> int:
    """About what the labels take while they are held: masks, and the entries of tracks."""
    entries = [entry for target in sample.targets for entry in target.track or ()]
    masks = [target.rle for target in sample.targets] + [entry.rle for entry in entries]
    return len(entries) * TRACK_ENTRY_BYTES + sum(len(mask.counts) for mask in masks if mask is not None)


def write_media_index(root: Path, places: Iterable[tuple[str, int, int]]) -> dict[str, dict[str, Any]]:
    """Writes `samples/media.arrow` from (key, file number, row); files are numbered in the order of their names."""
    rows = [(_key_hash(key), file, row) for key, file, row in places]
    columns = np.array(rows, np.uint64).reshape(-1, 3)
    columns = columns[np.argsort(columns[:, 0], kind="stable")]
    table = pa.table([columns[:, 0], *columns[:, 1:].astype(np.int32).T], schema=INDEX_SCHEMA)
    return {MEDIA_INDEX: _write_table(root / MEDIA_INDEX, table)}


def _key_hash(key: str) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big")


def _write_table(path: Path, table: pa.Table) -> dict[str, Any]:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with pa.ipc.new_file(aside, table.schema) as writer:
        writer.write_table(table)
    return _placed(aside, path, table.num_rows)


def _placed(aside: Path, path: Path, rows: int) -> dict[str, Any]:
    record = {"rows": rows, "bytes": aside.stat().st_size, "sha256": uris.sha256_file(aside)}
    os.replace(aside, path)
    return record


def write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest, the last file of a shard set; adds the schema version."""
    content = json.dumps({"schema_version": SCHEMA_VERSION, **manifest}, indent=1, sort_keys=True)
    uris.write_bytes(root / MANIFEST, content.encode())


class SampleTable:
    """The samples of one part: a sequence whose items are read from the mapped file when asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self._batches = [batch for path in paths for batch in open_shard(path, SCHEMA)]
        self._reader = cache(lambda number: sample_reader(self._batches[number]))
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + batch.num_rows)
        kinds = [KIND_OF_TASK[task] for batch in self._batches for task in batch.column("task").to_pylist()]
        self.kinds = np.array(kinds, dtype=object)
        self.kind_index: dict[str, np.ndarray] = {
            kind: np.flatnonzero(self.kinds == kind) for kind in sorted(set(kinds))
        }

    def members(self, datasets: Collection[str]) -> dict[str, np.ndarray]:
        """By kind the samples (indices, ascending) of these data sets; of all when none is named."""
        if not datasets:
            return self.kind_index
        names = pa.chunked_array([batch.column("dataset").cast(pa.string()) for batch in self._batches])
        chosen = pc.is_in(names, pa.array(sorted(datasets))).to_numpy()
        return {kind: found for kind, index in self.kind_index.items() if len(found := index[chosen[index]])}

    @cached_property
    def numbers(self) -> dict[str, int]:
        """The number of each sample by its id; of an id that comes twice, the last."""
        ids = (name for batch in self._batches for name in batch.column("sample_id").to_pylist())
        return {name: number for number, name in enumerate(ids)}

    @cached_property
    def media_numbers(self) -> np.ndarray:
        """(N,) int64: equal where two samples have the same first media; a sample without media has a number alone."""
        first: list[pa.Array] = []
        for batch in self._batches:
            lists = batch.column("media")
            empty = pc.equal(pc.list_value_length(lists), 0)
            starts = pc.if_else(empty, None, lists.offsets[:-1])
            first.append(lists.values.field("uri").take(starts))
        uris_N = pa.chunked_array(first, pa.string()).combine_chunks()
        known = pc.is_valid(uris_N).to_numpy(zero_copy_only=False)
        numbers = uris_N.dictionary_encode().indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        return np.where(known, numbers, -1 - np.arange(len(numbers)))

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"sample {index} of {len(self)}")
        number = bisect.bisect_right(self._starts, index) - 1
        return self._reader(number)(index - self._starts[number])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


class ShardSet:
    """A finished shard set, opened by `ShardSet.open`."""

    def __init__(self, uri: str, root: Path, content: bytes) -> None:
        self.root, self._uri = root, uri
        self.manifest: dict[str, Any] = json.loads(content)
        self.digest = hashlib.sha256(content).hexdigest()
        self.store = uris.resolve(uri, self.manifest.get("media_store", "media"))
        self._tables: dict[str, SampleTable] = {}
        self._files = sorted(name for name in self.manifest["files"] if name.startswith("media/"))
        self._media_file = lru_cache(OPEN_MEDIA_FILES)(self._open_media_file)

    @classmethod
    def open(cls, uri: str | Path) -> ShardSet:
        """Opens the set that lies at a local path or URI; a remote one (committed) is copied here once, without media.

        Raises:
            TpoError: nothing finished lies there, or it was written with another schema version.
        """
        try:
            root = fetch(uri)
            content = (root / MANIFEST).read_bytes()
        except FileNotFoundError:
            raise TpoError(f"no finished shard set at {uri}: run preprocessing, or correct the path") from None
        shards = cls(str(uri), root, content)
        version = shards.manifest["schema_version"]
        if version != SCHEMA_VERSION:
            raise TpoError(
                f"the shard set at {uri} has schema version {version}, this code reads {SCHEMA_VERSION}:"
                " run preprocessing again"
            )
        return shards

    @property
    def parts(self) -> list[str]:
        """Parts that hold samples, sorted."""
        return sorted(self.manifest["counts"])

    def counts(self, part: str, datasets: Collection[str] = ()) -> dict[str, int]:
        """Samples by kind in a part, of some data sets or (none named) of all, without opening its files.

        Raises:
            TpoError: the set has no such part, or the part nothing of a named data set.
        """
        self._require(part)
        by_kind: dict[str, dict[str, int]] = self.manifest["counts"][part]
        held = sorted({dataset for counts in by_kind.values() for dataset in counts})
        for lost in sorted(set(datasets) - set(held)):
            raise TpoError(f"part {part!r} at {self.root} has nothing of data set {lost!r}; {nearest(lost, held)}")
        wanted = set(datasets) or set(held)
        counts = {kind: sum(n for name, n in each.items() if name in wanted) for kind, each in by_kind.items()}
        return {kind: count for kind, count in counts.items() if count}

    def samples(self, part: str) -> SampleTable:
        """The samples of a part. Raises TpoError when the set has no such part."""
        self._require(part)
        if part not in self._tables:
            names = sorted(name for name in self.manifest["files"] if name.startswith(f"samples/{part}-"))
            self._tables[part] = SampleTable([self._checked(name) for name in names])
        return self._tables[part]

    def media(self, uri: str) -> MediaRow:
        """The media row of a key (`Media.uri` of a sample). Raises KeyError when there is none."""
        columns, row = self._locate(uri)
        values = {name: column[row] for name, column in columns.items()}
        frames = values.pop("frames").values
        features, dim = values.pop("features").as_py(), values.pop("features_dim").as_py()
        plain = {name: value.as_py() for name, value in values.items() if not name.startswith("frame_")}
        return MediaRow(
            **plain,
            frame_index=values["frame_index"].values.to_numpy().astype(np.int64),
            times_s=values["frame_times_s"].values.to_numpy(),
            jpegs=frames,
            features_SD=None if features is None else np.frombuffer(features, np.float16).reshape(-1, dim),
        )

    def _locate(self, key: str) -> tuple[dict[str, pa.Array], int]:
        hashes, files, rows = self._index
        wanted = np.uint64(_key_hash(key))
        for at in range(*np.searchsorted(hashes, [wanted, wanted + np.uint64(1)])):
            starts, batches = self._media_file(self._files[files[at]])
            number = bisect.bisect_right(starts, rows[at]) - 1
            row = int(rows[at]) - starts[number]
            if batches[number]["uri"][row].as_py() == key:
                return batches[number], row
        raise KeyError(key)

    @cached_property
    def _index(self) -> list[np.ndarray]:
        """Hash of the key (ascending), file number and row of every media: 16 bytes each, where a dict takes 200."""
        table = pa.Table.from_batches(open_shard(self._checked(MEDIA_INDEX), INDEX_SCHEMA), INDEX_SCHEMA)
        return [column.combine_chunks().to_numpy() for column in table.columns]

    def _open_media_file(self, name: str) -> tuple[list[int], list[dict[str, pa.Array]]]:
        """The first row of every batch, and the columns of every batch by name (looking one up in a batch takes 1 us,
        and there are as many as 16 of them and hundreds of batches)."""
        if uris.is_local(self.store):
            batches = open_shard(self._checked(name), MEDIA_SCHEMA)
        else:
            record, uri = self.manifest["files"][name], uris.join(self.store, name.removeprefix("media/"))
            with cached(uri, record["bytes"], record["sha256"], self._remedy(uri)) as path:
                batches = open_shard(path, MEDIA_SCHEMA)
        starts = [0, *itertools.accumulate(batch.num_rows for batch in batches)][:-1]
        return starts, [dict(zip(MEDIA_SCHEMA.names, batch.columns, strict=True)) for batch in batches]

    def _checked(self, name: str) -> Path:
        """The path of a local file of the set, once it is known to be whole."""
        place = uris.join(self.store, name.removeprefix("media/")) if name.startswith("media/") else self.root / name
        path = local.to_path(str(place))
        record = self.manifest["files"][name]
        verify(path, record["bytes"], record["sha256"], self._remedy(str(path)))
        return path

    def _remedy(self, file: str) -> str:
        """A finished set is not made again, and a media file of the right size is taken for whole: both have to go."""
        copied = self.root != local.to_path(self._uri) and file.startswith(str(self.root))
        if copied:
            return f"delete {self.root}, a copy, and run again"
        return f"delete it and {self._uri}, then run preprocessing again (media that are whole stay)"

    def _require(self, part: str) -> None:
        if part not in self.manifest["counts"]:
            raise TpoError(f"the shard set at {self.root} has no part {part!r}; it has {', '.join(self.parts)}")


def open_shard(path: Path, schema: pa.Schema) -> list[pa.RecordBatch]:
    """The batches of a file, mapped. TpoError that names the file when it is not of this schema."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
    except pa.ArrowInvalid as error:
        raise TpoError(
            f"{path} is no Arrow file ({error}): delete it and its shard set, then preprocess again"
        ) from error
    if not reader.schema.equals(schema):
        raise TpoError(
            f"{path} has another schema than this code reads: delete it and its shard set, then preprocess again"
        )
    return [reader.get_batch(number) for number in range(reader.num_record_batches)]
