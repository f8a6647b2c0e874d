"""Preprocessing: annotation files and media in, a shard set out. The only file that imports ray.data.

Media are assigned to files before anything is decoded, so that the same configuration gives the same files on any
number of workers. A worker makes one file of the media store at a time (`tpo_core.data.media_store`). A run that starts
after a killed one, or on other annotations, finds in the store what is done and decodes what is not.
"""

from __future__ import annotations

import logging
import pickle
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
import ray.data
from ray.util.metrics import Gauge
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tpo_core.config.nodes import group_resources
from tpo_core.config.schema import DataConfig
from tpo_core.data.features import load_encoder
from tpo_core.data.frame_reader import FrameReader
from tpo_core.data.frames import NotTheMediaError
from tpo_core.data.intake import RejectLog, Wish, finished, read_sources
from tpo_core.data.media_store import MediaStore, ShardJob, media_stamps, plan_shards, write_shard
from tpo_core.data.sample import Sample, kind_of
from tpo_core.data.shards import (
    MANIFEST,
    REJECTED,
    SampleTable,
    ShardSet,
    write_manifest,
    write_media_index,
    write_samples,
)
from tpo_core.errors import TpoError
from tpo_core.storage import local
from tpo_core.storage import uri as uris
from tpo_core.storage.local import disk_full_told

CPUS_PER_WORKER = 0.5  # as reserved in Ray: decoding shares a machine with the driver and other steps
PROGRESS_EVERY_S = 10.0
ACTOR_INIT_DEATHS = 10  # one after the other, before a run is given up
MIB = 1 << 20
GAUGES = {
    "media_done": "media decoded or given up on",
    "media_total": "media to decode",
    "media_per_s": "media per second since the last look",
    "bytes": "bytes of stored frames",
    "samples_rejected": "samples rejected on reading",
    "media_failed": "media that could not be decoded",
    "samples_read": "samples read, rejected ones among them",
    "reject_budget": "fraction of samples that may be rejected",
}


@ray.remote(num_cpus=0)
class _Progress:
    """Counts over all workers: media that are done, those of them that failed, bytes written."""

    def __init__(self) -> None:
        self.counts = (0, 0, 0)

    def add(self, *more: int) -> None:
        done, failed, size_bytes = (old + new for old, new in zip(self.counts, more, strict=True))
        self.counts = (done, failed, size_bytes)

    def read(self) -> tuple[int, int, int]:
        return self.counts


class _ShardWorker:
    """A Ray Data actor: makes one file of the store after another."""

    def __init__(self, store: str, deadline_s: float, progress: Any) -> None:
        self.store, self.progress = store, progress
        self.reader = FrameReader(deadline_s=deadline_s)

    def __call__(self, row: dict[str, Any]) -> dict[str, str]:
        """Makes one file. Ray Data raises whatever a worker raises as a type of its own, without the cause, so a
        user's mistake, and a storage that fails, are returned."""
        try:
            if uris.is_local(self.store) and not local.to_path(self.store).is_dir():
                raise TpoError(
                    f"a Ray node does not see {self.store}: choose a work_uri that all nodes share, such as s3://"
                )
            with disk_full_told(local.to_path(self.store)):
                write_shard(self.store, pickle.loads(row["job"]), self.reader, self.progress.add.remote)
        except (TpoError, NotTheMediaError) as error:
            return {"mistake": str(error)}
        return {"mistake": ""}


@contextmanager
def ray_data_settings() -> Iterator[None]:
    """No bars, which a job log cannot show, no plans, and no warning that bars are off; other warnings pass. And
    patience with actors that die as they start: on a cluster whose nodes come as they are asked for, Ray Data takes
    waiting actors back and counts one of them as dead now and then, of which it allows none."""
    context = ray.data.DataContext.get_current()
    loggers = {"ray.data": logging.WARNING, "ray.data._internal.progress": logging.ERROR}
    before = {name: logging.getLogger(name).level for name in loggers}
    bars, context.enable_progress_bars = context.enable_progress_bars, False
    deaths, context.max_consecutive_actor_init_deaths = context.max_consecutive_actor_init_deaths, ACTOR_INIT_DEATHS
    for name, level in loggers.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        context.enable_progress_bars = bars
        context.max_consecutive_actor_init_deaths = deaths
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


@contextmanager
def _progress(total: int, log: RejectLog, echo: Callable[[str], None]) -> Iterator[Any]:
    """A counter for the workers, and a thread that tells how far they are every `PROGRESS_EVERY_S`: a line, and the
    same numbers as gauges on Ray's Prometheus endpoint (`ray_tpo_preprocess_media_done` and so on)."""
    # On this node: another one may be taken away, and the count with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    counter: Any = _Progress.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    gauges = {name: Gauge(f"tpo_preprocess_{name}", description=text) for name, text in GAUGES.items()}
    stopped, before, then = threading.Event(), 0, time.monotonic()
    rejected = len(log.rows)

    def look() -> None:
        nonlocal before, then
        (done, failed, size_bytes), now = ray.get(counter.read.remote()), time.monotonic()
        rate = (done - before) / (now - then)
        values = (done, total, rate, size_bytes, rejected, failed, log.read, log.budget)
        for gauge, value in zip(gauges.values(), values, strict=True):
            gauge.set(value)
        echo(progress_line(done, total, rate, size_bytes, rejected, failed))
        before, then = done, now

    def tell() -> None:
        while not stopped.wait(PROGRESS_EVERY_S):
            look()

    thread = threading.Thread(target=tell, name="tpo-progress", daemon=True)
    thread.start()
    try:
        yield counter
        stopped.set()
        thread.join()
        look()
    finally:
        stopped.set()
        thread.join()
        ray.kill(counter)


def progress_line(done: int, total: int, per_s: float, size_bytes: int, rejected: int, failed: int) -> str:
    """How far decoding is: media, their rate, what is stored, what was left out so far, and the time left."""
    left = f"{(total - done) / per_s:.0f} s left" if per_s else "stalled" if done else "no worker is decoding yet"
    return (
        f"decoded {done} of {total} media, {per_s:.1f}/s, {size_bytes / MIB:.0f} MiB,"
        f" rejected {rejected} samples and {failed} media, {left}"
    )


def _cpus(group: str | None) -> float:
    """CPUs of the nodes of a group that are there now; None is all nodes."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return sum(node.get("CPU", 0.0) for node in nodes if group_resources(group).keys() <= node.keys())


def _decode(
    store: str,
    jobs: list[ShardJob],
    data: DataConfig,
    cpus: float | None,
    group: str | None,
    log: RejectLog,
    echo: Callable[[str], None],
) -> None:
    # a group that is scaled to nothing has no CPU yet; one worker's request brings a node
    available = cpus if cpus is not None else _cpus(group)
    workers = max(1, min(int(available), len(jobs)))
    with ray_data_settings(), _progress(sum(len(job.requests) for job in jobs), log, echo) as counter:
        rows = [{"job": pickle.dumps(job)} for job in jobs]
        results = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _ShardWorker,  # type: ignore[arg-type]
            fn_constructor_args=(store, data.frames.decode_deadline_s, counter),
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            num_cpus=CPUS_PER_WORKER,
            resources=group_resources(group),
        )
        for result in results.iter_rows():
            if result["mistake"]:
                raise TpoError(result["mistake"])


def _clean(output: Path) -> None:
    """Removes the samples and the manifest of an earlier run: the set is not finished until the end."""
    (output / MANIFEST).unlink(missing_ok=True)
    for folder in (output / "samples", output / ".read"):
        shutil.rmtree(folder, ignore_errors=True)


def preprocess(
    data: DataConfig,
    root: str | None,
    output: Path,
    *,
    echo: Callable[[str], None],
    store: MediaStore | None = None,
    cpus: float | None = None,
    group: str | None = None,
) -> dict[str, Any]:
    """Reads all sources, decodes each media once and writes a shard set (see `tpo_core.data.shards`).

    `output` may hold what a killed run with any configuration left. Needs a Ray that is initialised.

    Args:
        root: where relative roots of the sources lie; None when all are absolute.
        output: a local folder.
        echo: takes one line of progress at a time.
        store: where media files are kept and looked for; None means `output/media`.
        cpus: one worker per CPU is started; None means all that nodes of the group have now.
        group: of nodes that decode; None means any.

    Returns:
        JSON facts: samples and rejected (counts), media, decoded (in this run), shard files and kept ones, digest.

    Raises:
        TpoError: a source without samples, or more rejected samples than the budget allows.
    """
    started = time.monotonic()
    _clean(output)
    if data.frames.features is not None:
        load_encoder(data.frames.features.encoder, tuple(sorted(data.frames.features.options.items())))
    store = store if store is not None else MediaStore(str((output / "media").absolute()), "media")
    if uris.is_local(store.uri):
        local.to_path(store.uri).mkdir(parents=True, exist_ok=True)
    log = RejectLog(output / REJECTED, data.reject_budget)
    spool: dict[str, list[Path]] = {}

    def keep(part: str, samples: Iterator[Sample]) -> None:
        spool[part] = [output / ".read" / name for name in write_samples(output / ".read", part, samples)]

    wishes = read_sources(data, root, log, keep, echo)
    log.settle()
    jobs, decoded_now, kept = _stored(wishes, store, data, root, cpus, group, log, echo)
    records = store.finished(jobs)
    facts = {key: each for job in jobs for key, each in records[job.name]["media"].items()}
    failed = {key: ("media_missing", "no such file") for key in wishes}
    for job in jobs:
        failed |= {key: ("decode_failed", each["detail"]) for key, each in records[job.name]["failed"].items()}
    files = {f"media/{record['file']['name']}": _plain(record["file"]) for record in records.values()}
    counts: dict[str, dict[str, Counter[str]]] = {}
    for part in sorted(spool):
        samples = _final(part, SampleTable(spool[part]), facts, failed, log, counts)
        files.update(write_samples(output, part, samples))
    log.settle()
    shutil.rmtree(output / ".read")
    files.update(write_media_index(output, _places(records)))
    content = {"files": files, "counts": counts, "media": len(facts), "rejected": log.reasons()}
    write_manifest(output, content | {"media_store": store.seen_from_set})
    total, seconds = sum(map(_total, counts.values())), time.monotonic() - started
    echo(f"wrote {total} samples on {len(facts)} media in {seconds:.0f} s ({decoded_now} media decoded)")
    return {
        "samples": {
            part: {kind: sum(named.values()) for kind, named in kinds.items()} for part, kinds in counts.items()
        },
        "rejected": log.reasons(),
        "media": len(facts),
        "decoded": decoded_now,
        "shard_files": len(jobs),
        "shard_files_kept": kept,
        "digest": ShardSet.open(output).digest,
    }


def _stored(
    wishes: dict[str, Wish],
    store: MediaStore,
    data: DataConfig,
    root: str | None,
    cpus: float | None,
    group: str | None,
    log: RejectLog,
    echo: Callable[[str], None],
) -> tuple[list[ShardJob], int, int]:
    """Has the store hold every media that is there. Returns the files as jobs, the media decoded now, and the number of
    files that were there before."""
    requests = {key: wish.request(key, root, data.frames) for key, wish in wishes.items()}
    jobs = plan_shards(requests, media_stamps(requests), data.frames, data.shard_size_mib)
    store.sweep()
    done = store.finished(jobs, try_again=True)
    todo = store.with_reuse([job for job in jobs if job.name not in done])
    decoded = sum(len(job.requests) - len(job.reuse) for job in todo)
    if todo:
        echo(f"decoding {decoded} of {len(wishes)} media into {len(todo)} of {len(jobs)} files")
        _decode(store.uri, todo, data, cpus, group, log, echo)
    lost = sorted({job.name for job in jobs} - set(store.finished(jobs)))
    if lost:
        raise TpoError(f"{uris.join(store.uri, lost[0])}.arrow is missing or damaged after decoding: run again")
    return jobs, decoded, len(jobs) - len(todo)


def _plain(file: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in file.items() if name != "name"}


def _places(records: dict[str, dict[str, Any]]) -> Iterable[tuple[str, int, int]]:
    """Key, file number and row of every media; two files without rows are one, since they have the same content."""
    numbers = {name: number for number, name in enumerate(sorted({each["file"]["name"] for each in records.values()}))}
    for record in records.values():
        for row, key in enumerate(record["media"]):
            yield key, numbers[record["file"]["name"]], row


def _total(kinds: dict[str, Counter[str]]) -> int:
    return sum(sum(named.values()) for named in kinds.values())


def _final(
    part: str,
    samples: SampleTable,
    decoded: dict[str, dict[str, Any]],
    failed: dict[str, tuple[str, str]],
    log: RejectLog,
    counts: dict[str, dict[str, Counter[str]]],
) -> Iterator[Sample]:
    for sample in samples:
        final = finished(sample, decoded, failed, log)
        if final is not None:
            counts.setdefault(part, {}).setdefault(kind_of(final), Counter())[final.dataset] += 1
            yield final
