"""python benchmarks/data.py [--only NAME ...] [--rounds N]

Measures the data platform against what one would use without it, as ratios of one run on the same files, the contenders
in turns. Inputs are made in a temporary folder (about 300 MB). WebDataset and MosaicML Streaming take part where they
can be imported: see benchmarks/requirements.txt.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.contenders import OTHERS, plain_decord
from benchmarks.inputs import (
    FRAME_PX,
    FRAMES_PER_CLIP,
    clips,
    store_in,
    write_annotations,
    write_clip_set,
    write_videos,
)
from tpo_core.config.schema import DataConfig, FramesConfig, PhaseConfig
from tpo_core.data.frame_reader import FrameReader
from tpo_core.data.frames import DecodedMedia, DecodeRequest
from tpo_core.data.loader import Loader
from tpo_core.data.media_store import media_stamps, plan_shards, write_shard

QUALITY = 92
BATCH = 8
STEP_S = 0.25  # what the accelerator would be busy with one micro-batch of 8 clips
Rows = list[tuple[str, str, str]]  # what, measured, asked


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def ratio(theirs: list[float], ours: list[float]) -> str:
    """How many times faster we are, round by round: median and range."""
    each = sorted(a / b for a, b in zip(theirs, ours, strict=True))
    return f"{statistics.median(each):.2f} ({each[0]:.2f} - {each[-1]:.2f})"


def bench_decode(folder: Path, rounds: int) -> Rows:
    """Decode, resize and encode 16 frames of each video: FrameReader against a plain decord loop, a thread each."""
    videos, rows = write_videos(folder / "videos", each=4, seconds=20), []
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
            rows.append((f"decode + resize + JPEG, {name}, against plain decord", ratio(theirs_s, ours_s), ""))
        rows.append(("decode + resize + JPEG, all sizes, against plain decord", ratio(plain_all, ours_all), ">= 0.9"))
        peak = _peak_mib(reader.pid)
    return [*rows, ("peak of the decoding process in these", f"{peak:.0f} MiB", "")]


def _peak_mib(pid: int | None) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


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
    """Preprocessing on Ray with one worker and with two: from the first media to the last, and in all."""
    import ray

    from tpo_core.data.preprocess import preprocess

    videos = [path for paths in write_videos(folder / "v", each=3, seconds=20).values() for path in paths]
    for path in list(videos):
        for copy in range(9):
            videos.append(path.with_name(f"{copy}-{path.name}"))
            os.link(path, videos[-1])
    write_annotations(folder, videos)
    source = {"name": "b", "reader": "jsonl", "root": ".", "split": "train", "part": "train"}
    data = DataConfig.model_validate({"root": str(folder), "sources": [source]})
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    decoding: dict[int, list[float]] = {1: [], 2: []}
    whole: dict[int, list[float]] = {1: [], 2: []}
    for turn in range(rounds):
        for cpus in (1, 2):
            output = folder / f"out-{turn}-{cpus}"
            whole[cpus].append(seconds(lambda o=output, c=cpus: preprocess(data, str(folder), o, echo=_quiet, cpus=c)))
            decoding[cpus].append(_span_s(output / "media"))
    ray.shutdown()
    return [
        ("preprocess, 1 -> 2 workers, while decoding", ratio(decoding[1], decoding[2]), ">= 1.7"),
        ("preprocess, 1 -> 2 workers, with Ray's start of workers", ratio(whole[1], whole[2]), ""),
    ]


def _quiet(_line: str) -> None:
    """Progress is not shown."""


def _span_s(media: Path) -> float:
    """Seconds a file, from the end of the first to the end of the last: workers are up when the first ends."""
    ends = sorted(path.stat().st_mtime for path in media.glob("*.json"))
    return (ends[-1] - ends[0]) / (len(ends) - 1)


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
    "loader": bench_loader,
    "scaling": bench_scaling,
    "recognition": bench_recognition,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=BENCHES, default=list(BENCHES), help="which to run")
    parser.add_argument("--rounds", type=int, default=3, help="how often each contender has its turn")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in ("decord", "av", "pyarrow", "ray"))
    print(f"{os.cpu_count()} CPUs ({platform.machine()}), Python {platform.python_version()}, {versions}")
    print(f"ratios above 1: ours is faster; median (range) of {args.rounds} rounds\n")
    print("| what | measured | asked |\n|---|---|---|")
    for name in args.only:
        with tempfile.TemporaryDirectory(prefix="tpo-bench-") as folder:
            os.environ["TPO_SCRATCH"] = f"{folder}/scratch"
            for what, measured, asked in BENCHES[name](Path(folder), args.rounds):
                print(f"| {what} | {measured} | {asked} |", flush=True)


if __name__ == "__main__":
    main()
