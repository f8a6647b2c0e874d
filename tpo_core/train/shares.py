"""What each rank contributes to the loss of a step: the contributions add up to the loss of the global batch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from tpo_core.train.strategies.base import Strategy


class Batch(Protocol):
    """What the loop knows of a rank's part of a micro-batch: the kind of its samples, who they are, and how many tokens
    the language model reads."""

    kind: str
    sample_ids: list[str]

    @property
    def n_tokens(self) -> int: ...

    def to(self, device: torch.device) -> "Batch": ...


@dataclass
class Shares:
    """The losses of one step, normalised by what they are sums over, counted over all ranks and micro-batches.

    The loss of a kind is the sum over its losses of weight times (sum over all targets of that kind in the step /
    number of them); the total is the mean of the kinds, each with the share of its micro-batches, so that the mixture
    decides what a kind weighs and neither the length of answers nor the split over ranks and micro-batches does.

    A loss "region" may come as terms "region/l1", "region/giou", which share its weight and count targets of their own.

    counts: (kind, loss) to targets on all ranks; fractions: kind to its share of the micro-batches; sums: of this
    rank, on the device, so that nothing waits for them. samples: by kind, of all ranks, as tokens and flops are.
    """

    weights: Mapping[str, float]
    counts: dict[tuple[str, str], float]
    fractions: dict[str, float]
    samples: dict[str, int]
    tokens: int
    flops: float
    sums: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        micros: list[Batch],
        weights: Mapping[str, float],
        strategy: Strategy,
        *,
        counts: Callable[[Batch], Mapping[str, int]],
        flops: Callable[[Batch], float],
    ) -> "Shares":
        """Counts the targets of a step; every rank has micro-batches of the same kinds in the same order.

        counts, flops: of a micro-batch of this rank, the targets of each loss and what the model computes.
        """
        local: dict[tuple[str, str], int] = {}
        samples: dict[str, int] = {}
        for micro in micros:
            samples[micro.kind] = samples.get(micro.kind, 0) + len(micro.sample_ids)
            for name, count in counts(micro).items():
                local[micro.kind, name] = local.get((micro.kind, name), 0) + count
        own = [sum(micro.n_tokens for micro in micros), sum(flops(micro) for micro in micros)]
        tokens, done, *totals = strategy.total([*own, *samples.values(), *local.values()])
        kinds = [micro.kind for micro in micros]
        return cls(
            weights,
            counts=dict(zip(local, totals[len(samples) :], strict=True)),
            fractions={kind: kinds.count(kind) / len(kinds) for kind in kinds},
            samples={kind: int(count) for kind, count in zip(samples, totals, strict=False)},
            tokens=int(tokens),
            flops=done,
        )

    def add(self, kind: str, losses: Mapping[str, Tensor]) -> Tensor:
        """What a micro-batch adds to the total on this rank, to be differentiated. Every loss must have a weight."""
        terms = []
        for name, value in losses.items():
            weight = self.weights[loss_of(name)]
            terms.append(weight * self.fractions[kind] / max(1, self.counts[kind, name]) * value)
            known = self.sums.get((kind, name))
            self.sums[kind, name] = value.detach() if known is None else known + value.detach()
        return torch.stack(terms).sum()

    def parts(self, kind: str, losses: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What a micro-batch adds to each loss on this rank, unweighted."""
        found: dict[str, Tensor] = {}
        for name, value in losses.items():
            part = self.fractions[kind] / max(1, self.counts[kind, name]) * value
            loss = loss_of(name)
            found[loss] = found[loss] + part if loss in found else part
        return found

    def values(self, strategy: Strategy) -> dict[str, float]:
        """total, kind/<kind> and loss/<name> over all ranks; the last is the mean over the targets of all kinds, summed
        over the terms of a loss. A loss that had no target in the step is left out: nothing is known of it."""
        sums = dict(zip(self.sums, strategy.total(list(self.sums.values())), strict=True))
        kinds = dict.fromkeys(self.fractions, 0.0)
        for (kind, name), value in sums.items():
            kinds[kind] += self.weights[loss_of(name)] * value / max(1, self.counts[kind, name])
        losses: dict[str, float] = {}
        for term in dict.fromkeys(name for _, name in sums):
            keys = [key for key in sums if key[1] == term]
            if count := sum(self.counts[key] for key in keys):
                mean = sum(sums[key] for key in keys) / count
                losses[loss_of(term)] = losses.get(loss_of(term), 0.0) + mean
        return {
            "total": sum(self.fractions[kind] * value for kind, value in kinds.items()),
            **{f"kind/{kind}": value for kind, value in kinds.items()},
            **{f"loss/{name}": value for name, value in losses.items()},
        }


def loss_of(name: str) -> str:
    """The loss, which has a weight, that a term belongs to."""
    return name.partition("/")[0]
