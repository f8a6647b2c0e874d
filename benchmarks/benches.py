"""What is measured: each function makes its inputs in a folder, gives the contenders their turns and returns rows."""

from __future__ import annotations

import logging
import re
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.contenders import OTHERS, plain_decord
from benchmarks.inputs import (
    FRAME_PX,
    FRAMES_PER_CLIP,
    clips,
    more_names,
    store_in,
    write_annotations,
    write_clip_set,
    write_videos,
)
from tests.unit.data.test_decode import peak_mib, write_long_video
from tpo_core.config.schema import DataConfig, FramesConfig, PhaseConfig
from tpo_core.data.frame_reader import FrameReader
from tpo_core.data.frames import DecodedMedia, DecodeRequest
from tpo_core.data.loader import Loader
from tpo_core.data.media_store import media_stamps, plan_shards, write_shard

QUALITY = 92
BATCH = 8
SAME_VIDEO_TIMES = 6  # in scaling: enough media for a steady rate, and few to encode
STEP_S = 0.25  # what the accelerator would be busy with one micro-batch of 8 clips
Rows = list[tuple[str, str, str]]  # what, measured, asked


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratio(theirs: list[float], ours: list[float]) -> str:
    """`theirs` by `ours` in each round, their seconds by ours or rates the other way round: median and range."""
    each = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    return f"{statistics.median(each):.2f} ({each[0]:.2f} - {each[-1]:.2f})"


def bench_decode(folder: Path, rounds: int) -> Rows:
    """Decode, resize and encode 16 frames of each video: FrameReader against a plain decord loop, a thread each."""
    videos, rows = write_videos(folder / "videos", each=4), []
    ours_all, plain_all = [0.0] * rounds, [0.0] * rounds
    with FrameReader(deadline_s=300) as reader:

        def ours(paths: list[Path]) -> None:
            for path in paths:
                reader.decode(DecodeRequest(str(path), "video", FRAME_PX, FRAMES_PER_CLIP, jpeg_quality=QUALITY))

        def plain(paths: list[Path]) -> None:
            for path in paths:
                plain_decord(path, FRAMES_PER_CLIP, FRAME_PX, QUALITY)

        for name, paths in videos.items():
            ours(paths[:1])
            plain(paths[:1])
            theirs_s, ours_s = [], []
            for turn in range(rounds):
                theirs_s.append(seconds(lambda paths=paths: plain(paths)))
                ours_s.append(seconds(lambda paths=paths: ours(paths)))
                plain_all[turn] += theirs_s[-1]
                ours_all[turn] += ours_s[-1]
            what = f"decode + resize + JPEG, {name} ({len(paths)} videos), against plain decord"
            rows.append((what, ratio(theirs_s, ours_s), ""))
        rows.append(("decode + resize + JPEG, all sizes, against plain decord", ratio(plain_all, ours_all), ">= 0.9"))
        assert reader.pid is not None
        rows.append(("peak memory of the decoding process in these", f"{peak_mib(reader.pid):.0f} MiB", ""))
    return rows


def bench_film(folder: Path, rounds: int) -> Rows:
    """The most memory that the decoding process takes for a film of 10 minutes at 720p (that of a test: < 150 MiB)."""
    film, peaks = write_long_video(folder / "film.mp4", 10), []
    for _ in range(rounds):
        with FrameReader(deadline_s=600) as reader:
            reader.decode(DecodeRequest(str(film), "video", FRAME_PX, FRAMES_PER_CLIP, jpeg_quality=QUALITY))
            assert reader.pid is not None
            peaks.append(peak_mib(reader.pid))
    what = f"peak memory of the decoding process, 10 min at 720p ({film.stat().st_size >> 20} MiB)"
    return [(what, f"{max(peaks):.0f} MiB", "< 150 MiB")]


def phase(steps: int) -> PhaseConfig:
    return PhaseConfig(name="p", mixture={"chat": 1.0}, steps=steps, batch_size=BATCH, micro_batch_size=BATCH)


def bench_loader(folder: Path, rounds: int) -> Rows:
    """Clips a second, decoded to frames: the loader against others that read the same JPEG bytes."""
    frames = list(clips(256))
    shards, steps = write_clip_set(folder / "ours", frames), len(frames) // BATCH
    loader, rows = Loader(shards, "train", phase(steps), seed=0, rank=0, world=1), []
    readers = {}
    for name, (write, read) in OTHERS.items():
        try:
            write(folder / name.split()[0], frames)
        except ImportError as error:
            print(f"left out: {name} ({error}); see benchmarks/requirements.txt")
            continue
        readers[name] = (folder / name.split()[0], read)
    for workers in (0, 2):
        times: dict[str, list[float]] = {"ours": [], **{name: [] for name in readers}}

        def ours(workers: int = workers) -> None:
            with loader.prefetch(0, steps, lambda examples: examples, workers=workers) as batches:
                assert sum(len(batch.item) for batch in batches) == len(frames)

        for _ in range(rounds):
            for name, (place, read) in readers.items():
                times[name].append(_drained(read(place, BATCH, workers), len(frames)))
            times["ours"].append(seconds(ours))
        rate = len(frames) / statistics.median(times["ours"])
        rows.append((f"loader, {workers} workers", f"{rate:.0f} clips/s", ""))
        for name in readers:
            rows.append((f"loader, {workers} workers, against {name}", ratio(times[name], times["ours"]), ">= 1.0"))
    return [*rows, *_data_wait(loader, steps)]


def _drained(batches: Iterable[Any], expected: int) -> float:
    """Seconds from the first batch to the last, times the share that leaves the first out: starting worker processes is
    no property of reading."""
    count, began = 0, 0.0
    for batch in batches:
        count += len(batch)
        began = began or time.perf_counter()
    assert count == expected, f"{count} of {expected} clips came"
    return (time.perf_counter() - began) * expected / (expected - BATCH)


def _data_wait(loader: Loader, steps: int) -> Rows:
    """The share of its time that a consumer, busy for STEP_S with each micro-batch, waits for the next one."""
    rows = []
    for workers in (1, 2):
        waited, began = 0.0, 0.0
        with loader.prefetch(0, steps, lambda examples: examples, workers=workers) as batches:
            for number in range(steps):
                asked = time.perf_counter()
                next(batches)
                waited += time.perf_counter() - asked if number else 0.0  # the first is waited for by all
                began = began or time.perf_counter()
                time.sleep(STEP_S)
        share = waited / (time.perf_counter() - began)
        rows.append((f"data wait of a step of {STEP_S} s, {workers} workers", f"{100 * share:.2f} %", "< 2 %"))
    return rows


def bench_scaling(folder: Path, rounds: int) -> Rows:
    """Preprocessing on Ray with one worker and with two: from the first media to the last, and in all. Beside it, two
    processes without Ray: what this machine has to give."""
    import ray

    from tpo_core.data import preprocess as subject

    few = [path for paths in write_videos(folder / "v", each=4).values() for path in paths]
    videos = more_names(few, SAME_VIDEO_TIMES)
    write_annotations(folder, videos)
    source = {"name": "b", "reader": "jsonl", "root": ".", "split": "train", "part": "train"}
    # small files: at the end one worker waits for the other, for half a file on average, and real sets have hundreds
    data = DataConfig.model_validate({"root": str(folder), "sources": [source], "shard_size_mib": 1})
    subject.PROGRESS_EVERY_S = 0.1  # the lines of progress are the clock
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    rates: dict[str, dict[int, list[float]]] = {name: {1: [], 2: []} for name in ("ray", "whole", "bare")}
    for turn in range(rounds):
        for cpus in (1, 2):
            clock, output = Clock(), folder / f"out-{turn}-{cpus}"
            began = time.perf_counter()
            subject.preprocess(data, str(folder), output, echo=clock, cpus=cpus)
            rates["whole"][cpus].append(len(videos) / (time.perf_counter() - began))
            rates["ray"][cpus].append(clock.rate())
            rates["bare"][cpus].append(_bare_rate(few, cpus))
    ray.shutdown()
    what = f"preprocess {len(videos)} videos, 1 -> 2 workers"
    return [
        (f"{what}, from the first media to the last", ratio(rates["ray"][2], rates["ray"][1]), ">= 1.7"),
        (f"{what}, with the start of workers", ratio(rates["whole"][2], rates["whole"][1]), ""),
        ("decode, 1 -> 2 processes without Ray", ratio(rates["bare"][2], rates["bare"][1]), ""),
    ]


class Clock:
    """Takes the lines of progress of preprocessing, and notes when how many media were done."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, int]] = []

    def __call__(self, line: str) -> None:
        done = re.match(r"decoded (\d+) of \d+ media,", line)
        if done and int(done[1]) > (self.seen[-1][1] if self.seen else 0):
            self.seen.append((time.perf_counter(), int(done[1])))

    def rate(self) -> float:
        """Media a second between the first time that any were done and the time that all were."""
        (began, before), (ended, total) = self.seen[0], self.seen[-1]
        return (total - before) / (ended - began)


def _bare_rate(videos: list[Path], processes: int) -> float:
    """Videos a second through so many readers, each of which takes the next one as it is done with one."""

    def decode(reader: FrameReader, path: Path) -> None:
        reader.decode(DecodeRequest(str(path), "video", FRAME_PX, FRAMES_PER_CLIP, jpeg_quality=QUALITY))

    def work(reader: FrameReader) -> None:
        while left:
            decode(reader, left.pop())

    left = sorted(videos, key=lambda path: path.stat().st_size) * 2  # the longest first: none is decoded alone for long
    count = len(left)
    with ExitStack() as stack, ThreadPoolExecutor(processes) as pool:
        readers = [stack.enter_context(FrameReader(deadline_s=300)) for _ in range(processes)]
        for reader in readers:
            decode(reader, left[0])  # starts the child
        return count / seconds(lambda: list(pool.map(work, readers)))


def bench_recognition(folder: Path, rounds: int) -> Rows:
    """A finished store of 1,024 files with 16,000 media: how long until it is known that nothing is to be decoded."""
    (folder / "v").mkdir()
    requests = {}
    for number in range(16_000):
        path = folder / f"v/{number:05d}.mp4"
        path.touch()
        requests[f"v/{number:05d}.mp4"] = DecodeRequest(str(path), "video", FRAME_PX, 128)
    store, frames = store_in(folder / "media"), FramesConfig(n_frames=128)

    class Reader:
        def decode(self, request: DecodeRequest) -> DecodedMedia:
            return DecodedMedia(None, (b"jpeg",), [0], [0.5], 9, 3.0, 3.0, 64, 48, 8, 6, "none")  # type: ignore[arg-type]

    def plan() -> list[Any]:
        return plan_shards(requests, media_stamps(requests), frames, shard_size_mib=64)

    jobs = plan()
    for job in jobs:
        write_shard(store.uri, job, Reader(), lambda *_: None)  # type: ignore[arg-type]
    taken = [seconds(lambda: store.finished(plan())) for _ in range(rounds)]
    assert len(store.finished(jobs)) == len(jobs)
    return [(f"a finished set of {len(jobs)} files is recognised", f"{statistics.median(taken):.2f} s", "< 2 s")]


BENCHES: dict[str, Callable[[Path, int], Rows]] = {
    "decode": bench_decode,
    "film": bench_film,
    "loader": bench_loader,
    "scaling": bench_scaling,
    "recognition": bench_recognition,
}
