"""Which samples come when, and their frames.

The order, and what augmentation and heads draw, is a pure function of (seed, phase name, kinds and weights of the
mixture, step): it knows neither ranks nor workers, so a run gives the same batches on any number of them, and its whole
state is the number of the next step.

- The *global* micro-batch number m = step * micro-batches per step + position holds samples of one kind.
- The kind of m follows the golden-ratio sequence (seeded offset + m * phi) mod 1 through the cumulated weights of the
  mixture: after any number of micro-batches each kind has had its share to within a few.
- Each kind walks through its own permutations, a new one each epoch: every sample once before any comes again. With
  `samples_per_media` above 1 it is bundles of samples of one media file that are permuted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

import numpy as np

from tpo_core.config.schema import PhaseConfig
from tpo_core.data.augment import apply_change, draw_change
from tpo_core.data.chance import entropy, raw_numbers
from tpo_core.data.example import Example, load_example
from tpo_core.data.prefetch import Prefetcher
from tpo_core.data.shards import ShardSet
from tpo_core.errors import TpoError

GOLDEN = (math.sqrt(5) - 1) / 2
KINDS_AT_A_TIME = 4096  # micro-batches whose kinds are computed together

T = TypeVar("T")


@dataclass(frozen=True)
class MicroBatch:
    """`indices` (of all ranks together) into the samples of the part, all of one kind. `number` counts the
    micro-batches of the phase."""

    number: int
    kind: str
    indices: tuple[int, ...]


@dataclass(frozen=True)
class Prepared(Generic[T]):
    """One micro-batch, ready. `last` ends an optimizer step."""

    step: int
    micro: MicroBatch
    item: T
    last: bool


def permutation(seed: int, phase: str, kind: str, epoch: int, size: int) -> np.ndarray:
    """Order (size,) int64 in which the bundles of a kind come in an epoch."""
    return np.argsort(raw_numbers(size, seed, phase, kind, epoch), kind="stable")


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
        counts: samples by kind, as of `ShardSet.counts` for the data sets of the phase.
    """
    if phase.steps is not None:
        return phase.steps
    assert phase.epochs is not None
    total = sum(counts[kind] for kind in require_kinds(phase, counts))
    return math.ceil(phase.epochs * total / phase.samples_per_step)


def require_kinds(phase: PhaseConfig, counts: Mapping[str, int]) -> list[str]:
    """The kinds of the mixture, sorted. Raises TpoError when there are no samples of one."""
    kinds = sorted(phase.mixture)
    of = f"the data of its datasets ({', '.join(phase.datasets)}) has" if phase.datasets else "the data has"
    for kind in kinds:
        if not counts.get(kind):
            raise TpoError(
                f"the mixture of phase {phase.name!r} names {kind!r} but {of} no such samples"
                f" (it has {', '.join(sorted(counts)) or 'none'}): drop the kind or add a source"
            )
    return kinds


class Loader:
    """Batches of one part for one phase, as seen by one rank of `world`.

    Raises:
        TpoError: the mixture names a kind without samples, or a micro-batch has fewer samples than `world`.
    """

    def __init__(self, shards: ShardSet, part: str, phase: PhaseConfig, *, seed: int, rank: int, world: int) -> None:
        assert 0 <= rank < world, f"rank {rank} of {world}"
        for kind, size in phase.sizes.items():
            if size < world:
                raise TpoError(
                    f"phase {phase.name!r}: a micro-batch of {size} {kind} samples leaves some of {world} workers"
                    " without any: make it larger, or take fewer workers"
                )
        self.shards, self.phase, self.seed, self.rank, self.world = shards, phase, seed, rank, world
        self.samples = shards.samples(part)
        members = self.samples.members(phase.datasets)
        counts = {kind: len(index) for kind, index in members.items()}
        self._kinds = require_kinds(phase, counts)
        self.micro_per_step = phase.accumulation
        self.steps = steps_for(phase, counts)
        media = self.samples.media_numbers if phase.samples_per_media > 1 else np.zeros(0)
        self._bundles = {kind: bundles(members[kind], media, phase.samples_per_media) for kind in self._kinds}
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
        """This rank's share of a micro-batch, with frames. May be called by several threads at once."""
        size = len(micro.indices)
        own = range(self.rank * size // self.world, (self.rank + 1) * size // self.world)
        examples = [self._example(micro, place) for place in own]
        config = self.phase.augment
        if not config.active:
            return examples
        drawn = self._drawing_places(micro)
        changed = []
        for place, example in zip(own, examples, strict=True):
            change = draw_change(config, example.sample, self.seed, self.phase.name, micro.number, drawn[place])
            changed.append(apply_change(example, change))
        return changed

    def prefetch(
        self, first_step: int, end_step: int, prepare: Callable[[list[Example]], T], *, workers: int
    ) -> Prefetcher[tuple[int, MicroBatch, bool], Prepared[T]]:
        """Iterates over the micro-batches of steps [first_step, end_step) while `workers` threads prepare the next
        ones; see Prefetcher."""

        def jobs() -> Iterator[tuple[int, MicroBatch, bool]]:
            for step in range(first_step, end_step):
                plan = self.plan(step)
                yield from ((step, micro, micro is plan[-1]) for micro in plan)

        def work(job: tuple[int, MicroBatch, bool]) -> Prepared[T]:
            step, micro, last = job
            return Prepared(step, micro, prepare(self.examples(micro)), last)

        return Prefetcher(jobs(), work, workers)

    def _example(self, micro: MicroBatch, place: int) -> Example:
        draw = entropy(self.seed, self.phase.name, micro.number, place, "draw") % 2**63
        return load_example(self.shards, self.samples[micro.indices[place]], draw)

    def _drawing_places(self, micro: MicroBatch) -> list[int]:
        """Whose random numbers each sample of a micro-batch takes: its own, or those of the first sample of the same
        media, so that samples bundled by media still share one pass through the vision tower."""
        if self.phase.samples_per_media == 1:
            return list(range(len(micro.indices)))
        media = self.samples.media_numbers[list(micro.indices)]
        _, first, which = np.unique(media, return_index=True, return_inverse=True)
        return first[which].tolist()

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
        count = len(self._bundles[kind][0])
        places = (divmod(position, count) for position in range(turn * size, (turn + 1) * size))
        return MicroBatch(number, kind, tuple(int(self._order(kind, epoch)[at]) for epoch, at in places))

    def _order_of_epoch(self, kind: str, epoch: int) -> np.ndarray:
        members, starts = self._bundles[kind]
        order = permutation(self.seed, self.phase.name, kind, epoch, len(starts))
        sizes = np.diff(starts, append=len(members))[order]
        first = np.cumsum(sizes) - sizes  # of each bundle, in the new order
        return members[np.repeat(starts[order] - first, sizes) + np.arange(len(members))]
