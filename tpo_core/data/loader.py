"""Which samples come when, and their frames.

The order is a pure function of (seed, phase name, kinds and weights of the mixture, step): it knows neither ranks nor
workers, so a run gives the same batches on any number of them, and its whole state is the number of the next step.

- The *global* micro-batch number m = step * micro-batches per step + position holds samples of one kind.
- The kind of m follows the golden-ratio sequence (seeded offset + m * phi) mod 1 through the cumulated weights of the
  mixture: after any number of micro-batches each kind has had its share to within a few.
- Each kind walks through its own permutations, a new one each epoch: every sample once before any comes again. With
  `samples_per_media` above 1 it is bundles of samples of one media file that are permuted.
"""

from __future__ import annotations

import hashlib
import math
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import TracebackType
from typing import Generic, TypeVar

import numpy as np

from tpo_core.config.schema import PhaseConfig
from tpo_core.data.sample import Sample, answer_targets, kind_of
from tpo_core.data.shards import ShardSet
from tpo_core.errors import TpoError

GOLDEN = (math.sqrt(5) - 1) / 2
KINDS_AT_A_TIME = 4096  # micro-batches whose kinds are computed together

T = TypeVar("T")


@dataclass(frozen=True)
class MicroBatch:
    """`indices` (of all ranks together) into the samples of the part, all of one kind."""

    kind: str
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Example:
    """One sample with its frames. `frames_THWC` uint8 RGB at stored size, `times_s` (T,) float64 on the sample's
    timeline, `frame_index` (T,) int64 numbers of these frames in the original; `width`, `height` (pixels) and
    `duration_s` (of the timeline) describe the original. A sample without media has T = 0."""

    sample: Sample
    frames_THWC: np.ndarray
    times_s: np.ndarray
    frame_index: np.ndarray
    width: int
    height: int
    duration_s: float


def entropy(*parts: object) -> int:
    """A 128-bit number that depends on every part and on nothing else (no hash seed, no platform)."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:16], "big")


def permutation(seed: int, phase: str, kind: str, epoch: int, size: int) -> np.ndarray:
    """Order (size,) int64 in which the bundles of a kind come in an epoch. Sorting raw PCG64 output, since numpy keeps
    that stream fixed over versions, which it does not promise of `Generator.permutation`."""
    raw = np.random.PCG64(entropy(seed, phase, kind, epoch)).random_raw(size)
    return np.argsort(raw, kind="stable")


def bundles(members: np.ndarray, media_numbers: np.ndarray, most: int) -> tuple[np.ndarray, np.ndarray]:
    """`members` (sample indices of a kind) in runs of at most `most` samples of one media file: the members so ordered
    and where each run starts. Arrays, not lists: the recipe of the paper has millions of samples."""
    places = np.arange(len(members))
    if most == 1:
        return members, places
    ordered = members[np.argsort(media_numbers[members], kind="stable")]
    new_media = np.diff(media_numbers[ordered], prepend=media_numbers[ordered[0]] - 1) != 0
    place_in_media = places - np.maximum.accumulate(np.where(new_media, places, 0))
    return ordered, np.flatnonzero(place_in_media % most == 0)


def steps_for(phase: PhaseConfig, counts: Mapping[str, int]) -> int:
    """Optimizer steps of a phase, whose length is given in steps or in passes over the samples of its kinds.

    Args:
        counts: samples by kind, as of `ShardSet.counts`.
    """
    if phase.steps is not None:
        return phase.steps
    assert phase.epochs is not None
    total = sum(counts[kind] for kind in require_kinds(phase, counts))
    return math.ceil(phase.epochs * total / phase.samples_per_step)


def require_kinds(phase: PhaseConfig, counts: Mapping[str, int]) -> list[str]:
    """The kinds of the mixture, sorted. Raises TpoError when there are no samples of one."""
    kinds = sorted(phase.mixture)
    for kind in kinds:
        if not counts.get(kind):
            raise TpoError(
                f"the mixture of phase {phase.name!r} names {kind!r} but the data has no such samples"
                f" (it has {', '.join(sorted(counts)) or 'none'}): drop the kind or add a source"
            )
    return kinds


def load_example(shards: ShardSet, sample: Sample) -> Example:
    """The sample with the stored frames of its (first) media; a box on one frame of a video, with that frame alone."""
    if not sample.media:
        empty = np.zeros((0, 1, 1, 3), np.uint8)
        return Example(sample, empty, np.zeros(0), np.zeros(0, np.int64), 1, 1, 0.0)
    row = shards.media(sample.media[0].uri)
    only = np.arange(len(row.frame_index))
    asked = [target.frame for target in answer_targets(sample) if target.frame is not None]
    if kind_of(sample) == "region" and asked:
        only = np.flatnonzero(row.frame_index == asked[0])
        assert len(only), f"{sample.sample_id}: frame {asked[0]} is not stored"
    times_s, index = row.times_s[only], row.frame_index[only]
    return Example(sample, row.frames_THWC(only), times_s, index, row.width, row.height, row.duration_s)


class Loader:
    """Batches of one part for one phase, as seen by one rank of `world`.

    Raises:
        TpoError: the mixture names a kind without samples, or `world` does not divide the micro-batch size.
    """

    def __init__(self, shards: ShardSet, part: str, phase: PhaseConfig, *, seed: int, rank: int, world: int) -> None:
        assert 0 <= rank < world, f"rank {rank} of {world}"
        for kind, size in phase.sizes.items():
            if size % world:
                raise TpoError(
                    f"phase {phase.name!r}: a micro-batch of {size} {kind} samples cannot be split over {world}"
                    " workers: choose a multiple"
                )
        self.shards, self.phase, self.seed, self.rank, self.world = shards, phase, seed, rank, world
        self.samples = shards.samples(part)
        counts = {kind: len(index) for kind, index in self.samples.kind_index.items()}
        self._kinds = require_kinds(phase, counts)
        self.micro_per_step = phase.accumulation
        self.steps = steps_for(phase, counts)
        media = self.samples.media_numbers if phase.samples_per_media > 1 else np.zeros(0)
        self._bundles = {
            kind: bundles(self.samples.kind_index[kind], media, phase.samples_per_media) for kind in self._kinds
        }
        weights = np.array([phase.mixture[kind] for kind in self._kinds], np.float64)
        self._edges = np.cumsum(weights / weights.sum())[:-1]
        self._offset = entropy(seed, phase.name, "kinds") / 2**128
        self._order = lru_cache(maxsize=16)(self._order_of_epoch)
        self._before = [np.zeros(len(self._kinds), np.int64)]  # micro-batches of each kind before each chunk

    def plan(self, step: int) -> list[MicroBatch]:
        """The global micro-batches of an optimizer step (0-based), the same on every rank; a pure function of it."""
        first = step * self.micro_per_step
        return [self._micro(first + position) for position in range(self.micro_per_step)]

    def examples(self, micro: MicroBatch) -> list[Example]:
        """This rank's share of a micro-batch, with frames."""
        share = len(micro.indices) // self.world
        own = micro.indices[self.rank * share : (self.rank + 1) * share]
        return [load_example(self.shards, self.samples[index]) for index in own]

    def prefetch(
        self, first_step: int, end_step: int, prepare: Callable[[list[Example]], T], *, depth: int = 2
    ) -> Prefetcher[T]:
        """Iterates over the micro-batches of steps [first_step, end_step) while a thread prepares the next ones."""
        return Prefetcher(self, first_step, end_step, prepare, depth)

    def _kind_numbers(self, chunk: int) -> np.ndarray:
        numbers = chunk * KINDS_AT_A_TIME + np.arange(KINDS_AT_A_TIME)
        return np.searchsorted(self._edges, (self._offset + numbers * GOLDEN) % 1.0, side="right")

    def _micro(self, number: int) -> MicroBatch:
        chunk, place = divmod(number, KINDS_AT_A_TIME)
        while len(self._before) <= chunk:
            done = np.bincount(self._kind_numbers(len(self._before) - 1), minlength=len(self._kinds))
            self._before.append(self._before[-1] + done)
        numbers = self._kind_numbers(chunk)
        which = int(numbers[place])
        turn = int(self._before[chunk][which] + np.count_nonzero(numbers[:place] == which))
        kind = self._kinds[which]
        size = self.phase.sizes[kind]
        count = len(self.samples.kind_index[kind])
        places = (divmod(position, count) for position in range(turn * size, (turn + 1) * size))
        return MicroBatch(kind, tuple(int(self._order(kind, epoch)[at]) for epoch, at in places))

    def _order_of_epoch(self, kind: str, epoch: int) -> np.ndarray:
        members, starts = self._bundles[kind]
        order = permutation(self.seed, self.phase.name, kind, epoch, len(starts))
        sizes = np.diff(starts, append=len(members))[order]
        first = np.cumsum(sizes) - sizes  # of each bundle, in the new order
        return members[np.repeat(starts[order] - first, sizes) + np.arange(len(members))]


@dataclass(frozen=True)
class Prepared(Generic[T]):
    """One micro-batch, ready. `last` ends an optimizer step."""

    step: int
    micro: MicroBatch
    item: T
    last: bool


class Prefetcher(Generic[T]):
    """Iterator over prepared micro-batches, filled by one background thread; a context manager.

    An exception in the thread is raised, once, by the iteration that would have returned its result. Closing stops and
    joins the thread, at any point.
    """

    def __init__(
        self, loader: Loader, first_step: int, end_step: int, prepare: Callable[[list[Example]], T], depth: int
    ) -> None:
        self._loader, self._steps, self._prepare = loader, range(first_step, end_step), prepare
        self._queue: queue.Queue[tuple[int, MicroBatch, T, bool] | BaseException | None] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="tpo-prefetch", daemon=True)
        self._thread.start()

    def __enter__(self) -> Prefetcher[T]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __iter__(self) -> Iterator[Prepared[T]]:
        return self

    def __next__(self) -> Prepared[T]:
        if self._stopped.is_set():
            raise StopIteration
        got = self._queue.get()
        if got is None or isinstance(got, BaseException):
            self.close()
            if got is None:
                raise StopIteration
            raise got
        step, micro, item, last = got
        return Prepared(step, micro, item, last)

    def close(self) -> None:
        """Stops the thread and drops what it prepared. May be called twice."""
        self._stopped.set()
        while self._thread.is_alive():
            self._drain()
            self._thread.join(0.05)
        self._drain()

    def _drain(self) -> None:
        while not self._queue.empty():
            self._queue.get_nowait()

    def _fill(self) -> None:
        try:
            for step in self._steps:
                plan = self._loader.plan(step)
                for position, micro in enumerate(plan):
                    item = self._prepare(self._loader.examples(micro))
                    if self._stopped.is_set():
                        return
                    self._queue.put((step, micro, item, position == len(plan) - 1))
            self._queue.put(None)
        except BaseException as error:  # handed to the consumer, who raises it
            self._queue.put(error)
