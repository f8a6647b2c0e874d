"""Shard sets: what preprocessing writes and training reads, as Arrow IPC files that are mapped, not loaded.

    manifest.json                  rows and sha256 of every file, counts by part, kind and data set, schema version
    media/00000.arrow              one row a media, `MEDIA_SCHEMA`: its kept frames as JPEG bytes, their times, its size
    samples/<part>-00000.arrow     one row a sample, `tpo_core.data.sample.SCHEMA`
    rejected.jsonl                 {uri, dataset, sample_id, reason, detail} of what was left out

`Media.uri` of a stored sample is the key of its row in `media/`: the path below the data root (an absolute path or URI
where the source lies elsewhere), with "#t=<start>,<end>" added when the sample is a part of the file.
"""

from __future__ import annotations

import bisect
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from tpo_core.data.sample import KIND_OF_TASK, SCHEMA_VERSION, Sample, from_row, to_table
from tpo_core.errors import TpoError
from tpo_core.storage import uri as uris
from tpo_core.storage.commit import fetch

MANIFEST = "manifest.json"
REJECTED = "rejected.jsonl"
SAMPLES_PER_FILE = 8192
MEDIA_ROWS_PER_BATCH = 16
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
        ("frame_index", pa.list_(pa.int32())),
        ("frame_times_s", pa.list_(pa.float64())),
        ("frames", pa.list_(pa.large_binary())),
        ("decoder", pa.string()),
    ]
)


@dataclass(frozen=True)
class MediaRow:
    """One stored media. `width`, `height`, `n_frames` and `fps` describe the original, `duration_s` the timeline of
    its samples (of the clip, where a sample is a part of a file). `frame_index` (T,) int64 says which frames of the
    original are stored, `times_s` (T,) float64 when they are shown on that timeline."""

    uri: str
    kind: str
    width: int
    height: int
    stored_width: int
    stored_height: int
    n_frames: int
    fps: float | None
    duration_s: float
    frame_index: np.ndarray
    times_s: np.ndarray
    decoder: str
    jpegs: pa.LargeBinaryArray

    def frames_THWC(self) -> np.ndarray:
        """The stored frames, uint8 RGB (T, stored_height, stored_width, 3)."""
        frames = [np.asarray(Image.open(io.BytesIO(jpeg.as_buffer()))) for jpeg in self.jpegs]
        return np.stack(frames)


def write_media_shard(path: Path, rows: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Writes one file of `media/` from rows of `MEDIA_SCHEMA`, streaming, aside and then renamed; frames may be many
    but only a batch of rows is held. Returns the file's record in the manifest: {rows, bytes, sha256}."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    total, held = 0, []
    with pa.ipc.new_file(aside, MEDIA_SCHEMA) as writer:
        for row in rows:
            held.append(row)
            total += 1
            if len(held) == MEDIA_ROWS_PER_BATCH:
                writer.write_batch(pa.RecordBatch.from_pylist(held, schema=MEDIA_SCHEMA))
                held = []
        if held:
            writer.write_batch(pa.RecordBatch.from_pylist(held, schema=MEDIA_SCHEMA))
    record = {"rows": total, "bytes": aside.stat().st_size, "sha256": uris.sha256_file(aside)}
    os.replace(aside, path)
    return record


def write_samples(root: Path, part: str, samples: Iterable[Sample]) -> dict[str, dict[str, Any]]:
    """Writes `samples/<part>-NNNNN.arrow` below `root`, in the order given. Returns {file name: manifest record}."""
    records: dict[str, dict[str, Any]] = {}
    held: list[Sample] = []

    def flush() -> None:
        name = f"samples/{part}-{len(records):05d}.arrow"
        table, path = to_table(held), root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}")
        with pa.ipc.new_file(aside, table.schema) as writer:
            writer.write_table(table)
        records[name] = {"rows": len(held), "bytes": aside.stat().st_size, "sha256": uris.sha256_file(aside)}
        os.replace(aside, path)
        held.clear()

    for sample in samples:
        held.append(sample)
        if len(held) == SAMPLES_PER_FILE:
            flush()
    if held:
        flush()
    return records


def write_manifest(root: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest, the last file of a shard set; adds the schema version."""
    content = json.dumps({"schema_version": SCHEMA_VERSION, **manifest}, indent=1, sort_keys=True)
    uris.write_bytes(root / MANIFEST, content.encode())


class SampleTable:
    """The samples of one part: a sequence whose items are read from the mapped file when asked for."""

    def __init__(self, paths: list[Path]) -> None:
        self._batches = [batch for path in paths for batch in _batches(path)]
        self._starts = [0]
        for batch in self._batches:
            self._starts.append(self._starts[-1] + batch.num_rows)
        kinds = [KIND_OF_TASK[task] for batch in self._batches for task in batch.column("task").to_pylist()]
        self.kinds = np.array(kinds, dtype=object)
        self.kind_index: dict[str, np.ndarray] = {
            kind: np.flatnonzero(self.kinds == kind) for kind in sorted(set(kinds))
        }

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
        return from_row(self._batches[number].slice(index - self._starts[number], 1).to_pylist()[0])

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


class ShardSet:
    """A finished shard set, opened by `ShardSet.open`."""

    def __init__(self, root: Path, content: bytes) -> None:
        self.root = root
        self.manifest: dict[str, Any] = json.loads(content)
        self.digest = hashlib.sha256(content).hexdigest()
        self._tables: dict[str, SampleTable] = {}
        self._media: list[pa.RecordBatch] = []
        self._rows: dict[str, tuple[int, int]] = {}

    @classmethod
    def open(cls, uri: str | Path) -> ShardSet:
        """Opens the set that lies at a local path or URI; a remote one (committed) is copied here once.

        Raises:
            TpoError: nothing finished lies there, or it was written with another schema version.
        """
        try:
            root = fetch(uri)
            content = (root / MANIFEST).read_bytes()
        except FileNotFoundError:
            raise TpoError(f"no finished shard set at {uri}: run preprocessing, or correct the path") from None
        shards = cls(root, content)
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

    def counts(self, part: str) -> dict[str, int]:
        """Samples by kind in a part, without opening its files."""
        self._require(part)
        return {kind: sum(by_dataset.values()) for kind, by_dataset in self.manifest["counts"][part].items()}

    def samples(self, part: str) -> SampleTable:
        """The samples of a part. Raises TpoError when the set has no such part."""
        self._require(part)
        if part not in self._tables:
            names = sorted(name for name in self.manifest["files"] if name.startswith(f"samples/{part}-"))
            self._tables[part] = SampleTable([self.root / name for name in names])
        return self._tables[part]

    def media(self, uri: str) -> MediaRow:
        """The media row of a key (`Media.uri` of a sample). Raises KeyError when there is none."""
        if not self._rows:
            self._index_media()
        number, row = self._rows[uri]
        values = {name: self._media[number].column(name)[row] for name in MEDIA_SCHEMA.names}
        frames = values.pop("frames").values
        plain = {name: value.as_py() for name, value in values.items() if not name.startswith("frame_")}
        return MediaRow(
            **plain,
            frame_index=values["frame_index"].values.to_numpy().astype(np.int64),
            times_s=values["frame_times_s"].values.to_numpy(),
            jpegs=frames,
        )

    def _index_media(self) -> None:
        for name in sorted(name for name in self.manifest["files"] if name.startswith("media/")):
            for batch in _batches(self.root / name):
                for row, uri in enumerate(batch.column("uri").to_pylist()):
                    self._rows[uri] = (len(self._media), row)
                self._media.append(batch)

    def _require(self, part: str) -> None:
        if part not in self.manifest["counts"]:
            raise TpoError(f"the shard set at {self.root} has no part {part!r}; it has {', '.join(self.parts)}")


def _batches(path: Path) -> list[pa.RecordBatch]:
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    return [reader.get_batch(number) for number in range(reader.num_record_batches)]
