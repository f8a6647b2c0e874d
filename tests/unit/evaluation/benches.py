"""Benchmarks in tiny native layouts, their shard sets without a decoder, and models that answer as they are told."""

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from tests.media_files import write_media
from tpo_core.data.readers import READERS
from tpo_core.data.sample import Sample
from tpo_core.data.shards import write_manifest, write_samples
from tpo_core.evaluation.bench import Place, Settings, run_entry, with_control
from tpo_core.evaluation.looking import Shown
from tpo_core.evaluation.record import Record
from tpo_core.evaluation.suite import Entry
from tpo_core.evaluation.work import in_process

FORMATS = Path(__file__).resolve().parents[2] / "golden/metrics/formats/input"
WIDTH, HEIGHT, DURATION_S, N_FRAMES = 40, 30, 30.0, 6


def entry_of(name: str, task: str, metric: str, **fields) -> Entry:
    """An entry with what a test does not care about filled in."""
    first = {"mvbench": "official", "nextgqa": "nextgqa", "charades_sta": "cgdetr", "refcoco": "iou"}
    plain = {"title": name, "reader": name, "root": name, "split": "test", "implementation": first.get(metric, metric)}
    return Entry(**{"name": name, "task": task, "metric": metric, **plain, **fields})


def read(entry: Entry, root: Path) -> list[Sample]:
    return [
        item for item in READERS[entry.reader].read(str(root), entry.split, entry.options) if isinstance(item, Sample)
    ]


def write_bench(root: Path, samples: Sequence[Sample], *, stored: int = N_FRAMES, rejected: dict | None = None) -> Path:
    """A finished shard set: every media has the same frames, `stored` of `N_FRAMES` (or as many as its labels say)."""
    filled = [_filled(sample) for sample in samples]
    media = {sample.media[0].uri: sample.media[0] for sample in filled}
    files = write_media(root, [_row(uri, each, stored) for uri, each in media.items()])
    files |= write_samples(root, "test", filled)
    counts = {"test": {"all": {"bench": len(filled)}}}
    write_manifest(root, {"files": files, "counts": counts, "rejected": rejected or {}})
    return root


def _filled(sample: Sample) -> Sample:
    media = sample.media[0]
    facts = {
        "width": media.width or WIDTH,
        "height": media.height or HEIGHT,
        "n_frames": media.n_frames if sample.task in ("mask", "track") else N_FRAMES,
        "duration_s": media.duration_s or DURATION_S,
    }
    return replace(sample, media=(replace(media, **facts),))


def _row(uri: str, media, stored: int) -> dict:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (90, 90, 90)).save(buffer, "JPEG")
    total = media.n_frames
    index = np.linspace(0, total - 1, min(stored, total)).astype(int).tolist()
    return {
        "uri": uri, "kind": media.kind, "width": media.width, "height": media.height, "stored_width": 8,
        "stored_height": 6, "n_frames": total, "fps": None, "duration_s": media.duration_s, "frame_index": index,
        "frame_times_s": [number * media.duration_s / total for number in index],
        "frames": [buffer.getvalue()] * len(index), "decoder": "made",
    }  # fmt: skip


@dataclass
class Scripted:
    """A spec and its answerer in one: answers by a function of what is shown. `asked` remembers the keys, `batches` how
    many there were at a time; `opened` counts how often a model was loaded."""

    say: Callable[[Shown], Record]
    name: str = "scripted"
    asked: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    opened: int = 0

    def identity(self) -> str:
        return self.name

    def open(self) -> "Scripted":
        self.opened += 1
        return self

    def answer(self, requests: Sequence[Shown], max_new_tokens: int) -> list[Record]:
        self.batches.append(len(requests))
        self.asked += [request.ask.key for request in requests]
        self.shown += requests
        return [replace(self.say(request), key=request.ask.key) for request in requests]


def text(said: str) -> Callable[[Shown], Record]:
    """Always the same reply."""
    return lambda shown: Record(shown.ask.key, said)


@dataclass(frozen=True)
class Bench:
    """One entry that can be asked again and again."""

    entry: Entry
    place: Place
    lines: list[str]

    def run(self, spec, control=None, limit=None, batch_size=2, pool=in_process) -> dict:
        settings = Settings(batch_size=batch_size, max_new_tokens=8, limit=limit)
        result = run_entry(self.entry, spec, self.place, settings, pool, self.lines.append)
        if control is None:
            return result
        return with_control(self.entry, control, result, self.place, settings, pool, self.lines.append)

    @property
    def sparse(self) -> "Bench":
        """The same as if the data set had more samples than were preprocessed."""
        return replace(self, place=replace(self.place, sparse=True))

    def rows(self) -> list[dict]:
        return [json.loads(line) for line in (Path(self.place.output) / "rows.jsonl").read_text().splitlines()]


def bench_of(tmp_path: Path, entry: Entry, root: Path, **shards) -> Bench:
    """The benchmark of a native layout at `root`."""
    path = write_bench(tmp_path / "shards", read(entry, root), **shards)
    return Bench(entry, Place(str(path), str(root), str(tmp_path / "out" / entry.name)), [])
