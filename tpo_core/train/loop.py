"""The one training loop: `losses, report = model(batch)`.

It never names a task. A model returns a dict of losses by name, sums over the targets of its batch, of which it tells
the number before, and a report of plain numbers; `Shares` and the recipe's weights turn them into one total. All that a
step computes is a function of the parameters, the optimizer state and the step number: sample order comes from the
batches' plan, randomness (dropout) from `seed_step`. That is why a run resumed from a checkpoint continues bit for bit
on a CPU.
"""

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from tpo_core.errors import RunFailedError
from tpo_core.train.balance import FIXED, Balance
from tpo_core.train.meter import memory_bytes
from tpo_core.train.optim import set_learning_rates
from tpo_core.train.rows import Progress, Row, Window, make_row
from tpo_core.train.shares import Batch, Shares
from tpo_core.train.strategies.base import Strategy


class Batches(Protocol):
    """The micro-batches of a phase."""

    def step(self, step: int) -> Iterator[Batch]:
        """This rank's micro-batches of optimizer step `step`, on the CPU; a pure function of `step`."""


class DivergedError(RunFailedError):
    """Loss or gradient norm was not finite for too many steps in a row."""


def uncounted(batch: Batch) -> float:
    """The FLOPs of a model that does not count them."""
    return 0.0


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Hyper-parameters of the loop; the recipe says where they come from.

    accumulation: micro-batches per step. loss_weights: weight of each loss name. clip_norm: global gradient norm.
    seed: base of the dropout randomness. log_every: in steps. autocast: entered around each forward.
    max_skipped: steps in a row whose update may be skipped because loss or gradient norm was not finite; one more
    raises DivergedError. counts: of a micro-batch of a rank, how many targets each loss sums over. flops: what the
    model computes for it, forward and backward. peak_flops: what a device does at best in a second; None where that is
    not known. balance: what multiplies the loss weights.
    """

    steps: int
    accumulation: int
    loss_weights: Mapping[str, float]
    clip_norm: float
    seed: int
    log_every: int
    max_skipped: int
    counts: Callable[[Any], Mapping[str, int]]
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    flops: Callable[[Any], float] = uncounted
    peak_flops: float | None = None
    balance: Balance = FIXED


def train(
    module: nn.Module,
    batches: Batches,
    schedule: Callable[[int], float],
    *,
    config: LoopConfig,
    strategy: Strategy,
    progress: Progress,
    on_row: Callable[[Row], None],
    on_step: Callable[[Progress], None],
) -> None:
    """Run updates progress.step .. config.steps - 1 of the module that `strategy.prepare` gave.

    `on_row` gets one row every `log_every` steps and at the end; `on_step` is called after every step, when parameters,
    optimizer and `progress` belong together. Both are called on every rank. Raises DivergedError, see LoopConfig.
    """
    module.train()
    while progress.step < config.steps:
        rates = set_learning_rates(strategy.optimizer, schedule(progress.step))
        run_step(module, batches, config=config, strategy=strategy, progress=progress)
        if progress.step == config.steps or progress.step % config.log_every == 0:
            ranks = strategy.everyone((memory_bytes(strategy.device), progress.window.wait_s))
            memory = max(memory for memory, _ in ranks)
            progress.window.wait_s = max(wait_s for _, wait_s in ranks)  # of the one that all others wait for
            peak = config.peak_flops and config.peak_flops * strategy.world
            on_row(make_row(progress, rates, steps=config.steps, memory_bytes=memory, peak_flops=peak))
            progress.window = Window()
        on_step(progress)


def run_step(
    module: nn.Module, batches: Batches, *, config: LoopConfig, strategy: Strategy, progress: Progress
) -> None:
    """One optimizer step: accumulate the micro-batches, check that all is finite, then clip and update."""
    started = time.perf_counter()
    seed_step(config.seed, step=progress.step, rank=strategy.rank)
    micros = list(batches.step(progress.step))
    wait_s = time.perf_counter() - started
    assert len(micros) == config.accumulation, f"{len(micros)} micro-batches where {config.accumulation} make a step"
    factors = config.balance.factors(progress.balance)
    weights = {name: weight * factors.get(name, 1.0) for name, weight in config.loss_weights.items()}
    shares = Shares.of(micros, weights, strategy, counts=config.counts, flops=config.flops)
    reports = accumulate(module, micros, shares, config, strategy)
    norm = strategy.gradient_norm()
    values = shares.values(strategy)
    if all(math.isfinite(value) for value in (norm, *values.values())):
        strategy.update(norm, config.clip_norm)
        progress.skipped_in_row = 0
        told = [(f"weight/{name}", weights[name]) for name in factors]
        progress.window.add([*values.items(), *reports, *told, ("grad_norm", norm)])
        losses = {name.removeprefix("loss/"): value for name, value in values.items() if name.startswith("loss/")}
        config.balance.update(progress.balance, losses, strategy.world)
    else:
        strategy.drop_gradients()
        config.balance.forget()
        skip_update(progress, config, [*values.items(), ("grad_norm", norm)])
    seconds = time.perf_counter() - started
    progress.finish_step(kinds=shares.samples, tokens=shares.tokens, flops=shares.flops, seconds=seconds, wait_s=wait_s)


def accumulate(
    module: nn.Module, micros: list[Batch], shares: Shares, config: LoopConfig, strategy: Strategy
) -> list[tuple[str, float]]:
    """Forward and backward over the micro-batches of one step; returns the model's own reports of this rank."""
    reports: list[tuple[str, float]] = []
    for place, micro in enumerate(micros):
        with config.autocast():
            losses, report = module(micro.to(strategy.device))
            config.balance.watch(shares, micro.kind, losses)
            share = shares.add(micro.kind, losses)
        strategy.backward(share, last=place == len(micros) - 1)
        reports += [(f"report/{name}", value) for name, value in report.items()]
    return reports


def skip_update(progress: Progress, config: LoopConfig, values: list[tuple[str, float]]) -> None:
    """Count an update left out; raise DivergedError when there were too many in a row."""
    progress.skipped += 1
    progress.skipped_in_row += 1
    if progress.skipped_in_row > config.max_skipped:
        broken = ", ".join(f"{name} {value}" for name, value in values if not math.isfinite(value))
        raise DivergedError(
            f"step {progress.step}: {broken}; not finite for {progress.skipped_in_row} steps in a row, so training"
            " has diverged: lower the learning rates of the stage or use precision=fp32"
        )


def seed_step(seed: int, *, step: int, rank: int) -> None:
    """Seed torch, numpy and python for one step of one rank.

    Randomness is a function of (seed, step, rank), so that no generator state has to be kept in a checkpoint, and
    whatever else draws numbers between two steps (prefetching, a restart) changes nothing.
    """
    torch_seed, numpy_seed, python_seed = (int(n) for n in np.random.SeedSequence([seed, step, rank]).generate_state(3))
    torch.manual_seed(torch_seed)
    np.random.seed(numpy_seed)
    random.seed(python_seed)
