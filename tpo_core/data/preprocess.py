"""Preprocessing: annotation files and media in, a shard set out. The only file that imports ray.data.

Media are sorted by key and cut into shard files before anything is decoded, so that the same configuration gives the
same files on any number of workers. A worker decodes one shard file at a time, writes it aside, renames it and then
writes its record beside it (`media/NNNNN.json`: what was asked, what came out, checksum). A run that starts on the
output of a killed one keeps every file whose record answers what is asked now, and decodes the others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import shutil
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ray
import ray.data

from tpo_core.config.schema import DataConfig, FramesConfig
from tpo_core.data.frame_reader import FrameReader
from tpo_core.data.frames import DecodedMedia, DecodeError, DecodeRequest
from tpo_core.data.intake import RejectLog, Wish, finished, read_sources
from tpo_core.data.sample import SCHEMA_VERSION, Sample, kind_of
from tpo_core.data.shards import (
    MANIFEST,
    REJECTED,
    SampleTable,
    ShardSet,
    write_manifest,
    write_media_shard,
    write_samples,
)
from tpo_core.errors import TpoError
from tpo_core.storage import uri as uris
from tpo_core.storage.local import disk_full_told

CPUS_PER_WORKER = 0.5  # as reserved in Ray: decoding shares a machine with the driver and other steps
JPEG_BYTES_PER_PX = 0.35  # of a stored frame at quality 92; only balances the sizes of shard files
SHARD_FILES_AT_LEAST = 16  # so that small sets, too, are decoded in parallel and resumed in parts
MEDIA_PER_FILE_AT_LEAST = 8
PROGRESS_EVERY_S = 10.0


@dataclass(frozen=True)
class ShardJob:
    """One file of `media/`: its number and the requests of its media, by key."""

    number: int
    requests: dict[str, DecodeRequest]

    @property
    def stem(self) -> str:
        return f"media/{self.number:05d}"

    def digest(self) -> str:
        """Sha256 of what is asked, apart from where the data root lies."""
        asked = {key: asdict(replace(request, uri="")) for key, request in self.requests.items()}
        return hashlib.sha256(json.dumps([SCHEMA_VERSION, asked], sort_keys=True).encode()).hexdigest()


def plan_shards(wishes: dict[str, Wish], root: str | None, frames: FramesConfig, shard_size_mib: int) -> list[ShardJob]:
    """Assigns every media to a shard file: equal runs of the sorted keys, as many as the aimed size asks for."""
    keys = sorted(wishes)
    if not keys:
        return []
    frame_bytes = frames.short_side_px**2 * 4 / 3 * JPEG_BYTES_PER_PX
    expected = sum((frames.n_frames if wish.media.kind != "image" else 1) * frame_bytes for wish in wishes.values())
    files = max(
        -(-int(expected) // (shard_size_mib << 20)), min(SHARD_FILES_AT_LEAST, -(-len(keys) // MEDIA_PER_FILE_AT_LEAST))
    )
    files = min(files, len(keys))
    jobs = []
    for number in range(files):
        mine = keys[number * len(keys) // files : (number + 1) * len(keys) // files]
        jobs.append(ShardJob(number, {key: wishes[key].request(key, root, frames) for key in mine}))
    return jobs


@ray.remote(num_cpus=0)
class _Progress:
    """Counts decoded media over all workers."""

    def __init__(self) -> None:
        self.done = 0

    def add(self, count: int) -> None:
        self.done += count

    def count(self) -> int:
        return self.done


class _ShardWorker:
    """A Ray Data actor: decodes the media of one shard file after another."""

    def __init__(self, output: str, node: str, deadline_s: float, progress: Any) -> None:
        self.output, self.progress = Path(output), progress
        self.shares_disk = ray.get_runtime_context().get_node_id() == node
        self.reader = FrameReader(deadline_s=deadline_s)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Writes the file and its record, or returns both as bytes when the output lies on another machine.

        Ray Data raises whatever a worker raises as a type of its own, without the cause, so a mistake is returned.
        """
        job: ShardJob = pickle.loads(row["job"])
        result = {"number": job.number, "shard": b"", "record": b"", "mistake": ""}
        try:
            return result | (self._write_here(job) if self.shares_disk else self._write_aside(job))
        except TpoError as error:
            return result | {"mistake": str(error)}

    def _write_here(self, job: ShardJob) -> dict[str, bytes]:
        with disk_full_told(self.output / f"{job.stem}.arrow"):
            write_shard(self.output, job, self.reader, self.progress.add.remote)
        return {}

    def _write_aside(self, job: ShardJob) -> dict[str, bytes]:
        with disk_full_told(Path(tempfile.gettempdir())), tempfile.TemporaryDirectory() as folder:
            write_shard(Path(folder), job, self.reader, self.progress.add.remote)
            shard, record = (Path(folder) / (job.stem + suffix) for suffix in (".arrow", ".json"))
            return {"shard": shard.read_bytes(), "record": record.read_bytes()}


def write_shard(output: Path, job: ShardJob, reader: FrameReader, count: Callable[[int], Any]) -> None:
    """Decodes the media of one shard file and writes it, then its record."""
    decoded: dict[str, dict[str, Any]] = {}
    failed: dict[str, str] = {}

    def rows() -> Iterator[dict[str, Any]]:
        for key, request in job.requests.items():
            try:
                media = reader.decode(request)
            except DecodeError as error:
                failed[key] = error.detail
            else:
                facts = ("width", "height", "n_frames", "fps", "duration_s")
                decoded[key] = {name: getattr(media, name) for name in facts}
                yield _media_row(key, request, media)
            count(1)

    file = write_media_shard(output / f"{job.stem}.arrow", rows())
    record = {"asked": job.digest(), "file": file, "decoded": decoded, "failed": failed}
    uris.write_json(output / f"{job.stem}.json", record)


def _media_row(key: str, request: DecodeRequest, media: DecodedMedia) -> dict[str, Any]:
    begin, end = request.clip_s if request.clip_s is not None else (0.0, media.duration_s)
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
        "frame_index": media.frame_index,
        "frame_times_s": media.times_s,
        "frames": media.jpegs,
        "decoder": media.decoder,
    }


def finished_record(output: Path, job: ShardJob) -> dict[str, Any] | None:
    """The record of a shard file that is there, whole, and answers the job; None when it must be (re)written."""
    record_path, path = output / f"{job.stem}.json", output / f"{job.stem}.arrow"
    if not (record_path.exists() and path.exists()):
        return None
    record = uris.read_json(record_path)
    if record["asked"] != job.digest() or record["file"]["bytes"] != path.stat().st_size:
        return None
    return record if uris.sha256_file(path) == record["file"]["sha256"] else None


@contextmanager
def _quiet_ray_data() -> Iterator[None]:
    """No bars, which a job log cannot show, no plans, and no warning that bars are off; other warnings pass."""
    context = ray.data.DataContext.get_current()
    loggers = {"ray.data": logging.WARNING, "ray.data._internal.progress": logging.ERROR}
    before = {name: logging.getLogger(name).level for name in loggers}
    bars, context.enable_progress_bars = context.enable_progress_bars, False
    for name, level in loggers.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _progress(total: int, echo: Callable[[str], None]) -> Iterator[Any]:
    """A counter for the workers, and a thread that tells its rate and the time left every `PROGRESS_EVERY_S`."""
    counter: Any = _Progress.remote()  # type: ignore[attr-defined]
    stopped = threading.Event()

    def tell() -> None:
        before, then = 0, time.monotonic()
        while not stopped.wait(PROGRESS_EVERY_S):
            done, now = ray.get(counter.count.remote()), time.monotonic()
            rate = (done - before) / (now - then)
            left = (
                f"{(total - done) / rate:.0f} s left"
                if rate
                else "no worker is decoding yet"
                if not done
                else "stalled"
            )
            echo(f"decoded {done} of {total} media, {rate:.1f}/s, {left}")
            before, then = done, now

    thread = threading.Thread(target=tell, name="tpo-progress", daemon=True)
    thread.start()
    try:
        yield counter
    finally:
        stopped.set()
        thread.join()
        ray.kill(counter)


def _decode(
    output: Path, jobs: list[ShardJob], data: DataConfig, cpus: float | None, echo: Callable[[str], None]
) -> None:
    available = cpus if cpus is not None else ray.cluster_resources()["CPU"]
    workers = max(1, min(int(available), len(jobs)))
    with _quiet_ray_data(), _progress(sum(len(job.requests) for job in jobs), echo) as counter:
        rows = [{"job": pickle.dumps(job)} for job in jobs]
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _ShardWorker,  # type: ignore[arg-type]
            fn_constructor_args=(
                str(output.absolute()),
                ray.get_runtime_context().get_node_id(),
                data.frames.decode_deadline_s,
                counter,
            ),
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            num_cpus=CPUS_PER_WORKER,
        )
        for result in results.iter_rows():
            if result["mistake"]:
                raise TpoError(result["mistake"])
            if result["record"]:  # made on another machine: the record goes last, as there
                stem = f"media/{result['number']:05d}"
                uris.write_bytes(output / f"{stem}.arrow", result["shard"])
                uris.write_bytes(output / f"{stem}.json", result["record"])


def _clean(output: Path) -> None:
    """Removes what an earlier run left unfinished, and its manifest: the set is not finished until the end."""
    (output / MANIFEST).unlink(missing_ok=True)
    for folder in (output / "samples", output / ".read"):
        shutil.rmtree(folder, ignore_errors=True)
    for aside in (output / "media").glob(".*"):
        aside.unlink()


def preprocess(
    data: DataConfig,
    root: str | None,
    output: Path,
    *,
    echo: Callable[[str], None],
    cpus: float | None = None,
) -> dict[str, Any]:
    """Reads all sources, decodes each media once and writes a shard set (see `tpo_core.data.shards`).

    `output` may hold what a killed run with any configuration left: media files that answer what is asked are kept.
    Needs a Ray that is initialised.

    Args:
        root: where relative roots of the sources lie; None when all are absolute.
        output: a local folder.
        echo: takes one line of progress at a time.
        cpus: one worker per CPU is started; None means all of the cluster.

    Returns:
        JSON facts: samples and rejected (counts), media, decoded (in this run), shard files and kept ones, digest.

    Raises:
        TpoError: a source without samples, or more rejected samples than the budget allows.
    """
    started = time.monotonic()
    _clean(output)
    log = RejectLog(output / REJECTED, data.reject_budget)
    spool: dict[str, list[Path]] = {}

    def keep(part: str, samples: Iterator[Sample]) -> None:
        spool[part] = [output / ".read" / name for name in write_samples(output / ".read", part, samples)]

    wishes = read_sources(data, root, log, keep, echo)
    log.settle()
    jobs = plan_shards(wishes, root, data.frames, data.shard_size_mib)
    todo = [job for job in jobs if finished_record(output, job) is None]
    asked = sum(len(job.requests) for job in todo)
    if todo:
        echo(f"decoding {asked} of {len(wishes)} media into {len(todo)} of {len(jobs)} files")
        _decode(output, todo, data, cpus, echo)
    files, decoded, failed = _collect(output, jobs)
    counts: dict[str, dict[str, Counter[str]]] = {}
    for part in sorted(spool):
        samples = _final(part, SampleTable(spool[part]), decoded, failed, log, counts)
        files.update(write_samples(output, part, samples))
    log.settle()
    shutil.rmtree(output / ".read")
    write_manifest(output, {"files": files, "counts": counts, "media": len(decoded), "rejected": log.reasons()})
    total, seconds = sum(map(_total, counts.values())), time.monotonic() - started
    echo(f"wrote {total} samples on {len(decoded)} media in {seconds:.0f} s ({asked} media decoded)")
    return {
        "samples": {
            part: {kind: sum(named.values()) for kind, named in kinds.items()} for part, kinds in counts.items()
        },
        "rejected": log.reasons(),
        "media": len(decoded),
        "decoded": asked,
        "shard_files": len(jobs),
        "shard_files_kept": len(jobs) - len(todo),
        "digest": ShardSet.open(output).digest,
    }


def _total(kinds: dict[str, Counter[str]]) -> int:
    return sum(sum(named.values()) for named in kinds.values())


def _final(
    part: str,
    samples: SampleTable,
    decoded: dict[str, dict[str, Any]],
    failed: dict[str, str],
    log: RejectLog,
    counts: dict[str, dict[str, Counter[str]]],
) -> Iterator[Sample]:
    for sample in samples:
        final = finished(sample, decoded, failed, log)
        if final is not None:
            counts.setdefault(part, {}).setdefault(kind_of(final), Counter())[final.dataset] += 1
            yield final


def _collect(output: Path, jobs: list[ShardJob]) -> tuple[dict[str, Any], dict[str, dict[str, Any]], dict[str, str]]:
    """(manifest records, facts of decoded media, texts of failed ones) from the records of all shard files."""
    files, decoded, failed = {}, {}, {}
    for job in jobs:
        record = finished_record(output, job)
        if record is None:
            raise TpoError(f"{output / job.stem}.arrow is missing or damaged after decoding: run again")
        files[f"{job.stem}.arrow"] = record["file"]
        decoded.update(record["decoded"])
        failed.update(record["failed"])
    wanted = {f"{job.stem}{suffix}" for job in jobs for suffix in (".arrow", ".json")}
    for path in (output / "media").glob("*"):
        if f"media/{path.name}" not in wanted:
            path.unlink()  # of an earlier run with more files
    return files, decoded, failed
