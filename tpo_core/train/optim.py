"""AdamW with one learning rate per named parameter group, and the cosine schedule as a pure function of the step."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from tpo_core.config.schema import StageConfig

Groups = Mapping[str, Sequence[tuple[str, nn.Parameter]]]


def build_optimizer(groups: Groups, stage: StageConfig) -> torch.optim.AdamW:
    """AdamW over the trainable `groups`, each at its own peak learning rate `stage.lr[group]`.

    A group becomes up to two parameter groups: parameters of one dimension (LayerNorm, bias) are not decayed, all
    others are, as in the paper's trainer (paper notes 3.5 and decision 26). The decayed half comes first; the order
    of groups is that of `stage.lr`, so that optimizer states line up between runs of one recipe.
    """
    param_groups = []
    for name, peak_lr in stage.lr.items():
        params = [param for _, param in groups[name]]
        decay = stage.decay_of(name)
        halves = [([p for p in params if p.ndim > 1], decay), ([p for p in params if p.ndim <= 1], 0.0)]
        param_groups += [
            {"params": half, "lr": peak_lr, "peak_lr": peak_lr, "weight_decay": own, "group": name}
            for half, own in halves
            if half
        ]
    beta1, beta2 = stage.betas
    return torch.optim.AdamW(param_groups, betas=(beta1, beta2), eps=stage.eps)


def lr_factor(step: int, *, steps: int, warmup_steps: int, floor: float) -> float:
    """The fraction of the peak learning rate that update `step` (0-based, of `steps`) uses.

    Linear warm-up that reaches 1 at update warmup_steps - 1 and never wastes an update at 0, then half a cosine that
    reaches `floor` (in [0, 1]) exactly at the last update.
    """
    assert 0 <= step < steps, f"step {step} outside 0..{steps - 1}"
    assert 0 <= warmup_steps <= steps, f"{warmup_steps} warm-up steps of {steps}"
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step + 1 - warmup_steps) / (steps - warmup_steps)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress))


def cosine(*, steps: int, warmup_steps: int, floor: float) -> Callable[[int], float]:
    """`lr_factor` with everything but the step bound."""
    return lambda step: lr_factor(step, steps=steps, warmup_steps=warmup_steps, floor=floor)


def set_learning_rates(optimizer: Any, factor: float) -> dict[str, float]:
    """Set every parameter group to `factor` of its peak; returns the learning rate of each named group."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return {group["group"]: group["lr"] for group in optimizer.param_groups}
