"""Factors on the loss weights of a stage that training finds by itself: `stages.*.balance`.

A balance holds no state of its own between two steps: its numbers are plain floats in `Progress.balance`, so that they
are in every checkpoint, and a resumed run goes on exactly. They are functions of sums over all ranks, and so the same
on every rank. A loss of weight 0 is left out, and one that a step does not have keeps its factor.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from tpo_core.config.schema import StageConfig
from tpo_core.train.optim import Groups
from tpo_core.train.shares import Shares

State = dict[str, dict[str, float]]
Factors = Mapping[str, float]
SHARED_GROUP = "lora"  # every loss moves the adapters
SHARED_PARAMETERS = 2  # the two matrices of the last one, for which a gradient costs next to nothing
LARGEST_MOVE = 1.0  # of the logarithm of a factor, in units of the rate
LARGEST_VARIANCE = 10.0  # the logarithm of a factor lies within it: a loss that stays 0 would drive it without end


class Balance(Protocol):
    """What multiplies the weights of a stage."""

    def factors(self, state: State) -> Factors:
        """By loss; those that are not named have 1."""

    def watch(self, shares: Shares, kind: str, losses: Mapping[str, Tensor]) -> None:
        """See the losses of a micro-batch on this rank before they are differentiated."""

    def update(self, state: State, losses: Mapping[str, float], world: int) -> None:
        """After a step that was made; losses: means over its targets, of all ranks."""

    def forget(self) -> None:
        """What was watched belongs to a step that was not made."""


class Fixed:
    """The weights of the recipe as they are."""

    def factors(self, state: State) -> Factors:
        """None."""
        return {}

    def watch(self, shares: Shares, kind: str, losses: Mapping[str, Tensor]) -> None:
        """Nothing."""

    def update(self, state: State, losses: Mapping[str, float], world: int) -> None:
        """Nothing."""

    def forget(self) -> None:
        """Nothing."""


FIXED = Fixed()


class Uncertainty(Fixed):
    """Weighting by homoscedastic uncertainty (Kendall, Gal and Cipolla, arXiv 1705.07115).

    The total is the sum of exp(-s) w loss + s, with a log variance s for each loss, of which the derivative is
    1 - exp(-s) w loss: gradient descent on it needs the values of the losses alone. All losses are taken in the form
    that the paper gives for regression.
    """

    def __init__(self, weights: Mapping[str, float], rate: float) -> None:
        self.weights, self.rate = {name: weight for name, weight in weights.items() if weight}, rate

    def factors(self, state: State) -> Factors:
        """exp(-s)."""
        return {name: math.exp(-s) for name, s in state.get("log_variance", {}).items()}

    def update(self, state: State, losses: Mapping[str, float], world: int) -> None:
        """One step of gradient descent on each s, whose descent is bounded where a loss is huge, as s itself is."""
        variances = state.setdefault("log_variance", {})
        for name, weight in self.weights.items():
            if name in losses:
                s = variances.setdefault(name, 0.0)
                s -= self.rate * max(-LARGEST_MOVE, 1 - math.exp(-s) * weight * losses[name])
                variances[name] = max(-LARGEST_VARIANCE, min(LARGEST_VARIANCE, s))


class GradNorm(Fixed):
    """Gradient normalisation (Chen et al., arXiv 1711.02257): each loss is to move what all share as much as the mean
    of them does, those that have fallen less than others more, to the power `alpha`.

    Norms are those over the step and all ranks, at the last adapter. Differs from the paper in the step: factors are
    multiplied by exp(-rate (norm - aim) / mean norm), so that they stay positive and no scale of gradients enters.
    Their mean stays 1.
    """

    def __init__(self, weights: Mapping[str, float], rate: float, alpha: float, shared: Sequence[Tensor]) -> None:
        self.weights, self.rate, self.alpha = {name: weight for name, weight in weights.items() if weight}, rate, alpha
        self.shared, self.gradients = list(shared), dict[str, Tensor]()

    def factors(self, state: State) -> Factors:
        """As they were found."""
        return state.get("factor", {})

    def watch(self, shares: Shares, kind: str, losses: Mapping[str, Tensor]) -> None:
        """Add up the gradients of each loss at the shared parameters."""
        for name, part in shares.parts(kind, losses).items():
            if name not in self.weights or not part.requires_grad:
                continue
            found = torch.autograd.grad(part, self.shared, retain_graph=True, allow_unused=True)
            flat = torch.cat([
                torch.zeros_like(param).flatten() if each is None else each.detach().flatten()
                for param, each in zip(self.shared, found, strict=True)
            ]).float()  # fmt: skip
            self.gradients[name] = self.gradients[name] + flat if name in self.gradients else flat

    def update(self, state: State, losses: Mapping[str, float], world: int) -> None:
        """One step of each factor of which the step had the loss."""
        norms = self._norms(world)
        self.forget()
        first, factors = state.setdefault("first", {}), state.setdefault("factor", {})
        names = [name for name, norm in norms.items() if norm > 0 and losses.get(name, 0.0) > 0]
        for name in names:
            first.setdefault(name, losses[name])
            factors.setdefault(name, 1.0)
        if len(names) < 2:
            return
        moved = {name: factors[name] * norms[name] for name in names}
        remaining = {name: losses[name] / first[name] for name in names}
        mean_norm, mean_remaining = sum(moved.values()) / len(names), sum(remaining.values()) / len(names)
        for name in names:
            aim = mean_norm * (remaining[name] / mean_remaining) ** self.alpha
            move = max(-LARGEST_MOVE, min(LARGEST_MOVE, (moved[name] - aim) / mean_norm))
            factors[name] *= math.exp(-self.rate * move)
        scale = len(factors) / sum(factors.values())
        for name in factors:
            factors[name] *= scale

    def forget(self) -> None:
        """Drop the gradients."""
        self.gradients = {}

    def _norms(self, world: int) -> dict[str, float]:
        """Of the weighted gradients of the step, before factors."""
        if not self.gradients:
            return {}
        stacked = torch.stack(list(self.gradients.values()))
        if world > 1:
            dist.all_reduce(stacked)
        found = stacked.norm(dim=1).tolist()
        return {name: self.weights[name] * norm for name, norm in zip(self.gradients, found, strict=True)}


def make_balance(stage: StageConfig, groups: Groups) -> Balance:
    """What the stage asks for."""
    if stage.balance == "uncertainty":
        return Uncertainty(stage.loss_weights, stage.balance_lr)
    if stage.balance == "gradnorm":
        shared = [param for _, param in groups[SHARED_GROUP]][-SHARED_PARAMETERS:]
        return GradNorm(stage.loss_weights, stage.balance_lr, stage.balance_alpha, shared)
    return FIXED
