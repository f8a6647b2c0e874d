"""One rank of one phase, from the weights it starts with to the weights it hands on.

Everything that a training worker does, without the machinery that starts workers: Ray Train calls `run_rank` in each
of them, and a test or torchrun can call it as it is.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from functools import partial
from typing import Any, Protocol

import torch

from tpo_core.config.schema import TrainConfig
from tpo_core.train.checkpoints.checkpointer import Checkpointer
from tpo_core.train.checkpoints.retention import Retention
from tpo_core.train.job import PhaseJob
from tpo_core.train.loop import Batch, LoopConfig, seed_step, train
from tpo_core.train.meter import peak_flops
from tpo_core.train.optim import Groups, build_optimizer, cosine
from tpo_core.train.profile import Profile
from tpo_core.train.recorder import Recorder, Savable
from tpo_core.train.rows import Progress, Row
from tpo_core.train.sinks import MetricSink
from tpo_core.train.stages import PhasePlan, describe_trainable, plan_phase, select_trainable
from tpo_core.train.strategies.base import Strategy
from tpo_core.train.strategies.registry import make_strategy


class PhaseModel(Savable, Protocol):
    """What a phase asks of a model besides being an nn.Module whose forward gives (losses, report)."""

    def groups(self) -> Groups:
        """Parameters by group, as (name, parameter) pairs."""

    def counts(self, batch: Any) -> Mapping[str, int]:
        """How many targets each loss of a micro-batch sums over."""

    def flops(self) -> Callable[[Any], float]:
        """What a micro-batch costs, forward and backward, with what trains now; asked before a strategy cuts it up."""


class PhaseBatches(Protocol):
    """The data of a phase for one rank."""

    counts: Mapping[str, int]

    def step(self, step: int) -> Iterator[Batch]:
        """See loop.Batches."""

    def close(self) -> None:
        """Stop what prepares data in the background."""


class Surroundings:
    """What a rank shares with whatever runs it. As it is: nothing watches the rank, nothing stops it, and its disk is
    as safe as its checkpoints."""

    def alive(self) -> None:
        """A step has ended; called on every rank."""

    def stops(self) -> bool:
        """Whether this rank has been asked to end; when one of them was, all save and leave at the end of the step."""
        return False

    def keep(self) -> None:
        """A checkpoint is about to be written: what rank 0 wrote so far must be as safe. Called on rank 0."""


ALONE = Surroundings()


class StoppedError(Exception):
    """Unwinds the loop of a rank that was asked to leave; its state is saved."""


Builder = Callable[[PhaseJob, Strategy], tuple[Any, PhaseBatches]]


def run_rank(
    job: PhaseJob,
    *,
    build: Builder,
    device: torch.device,
    open_sink: Callable[[], MetricSink],
    report: Callable[[Row], None],
    outside: Surroundings = ALONE,
) -> bool:
    """Train this rank's part of the phase, from the newest valid checkpoint under `job.output` if there is one.

    `report` is called on every rank at the same steps. Rank 0 opens the metric sink and writes checkpoints, history,
    the model and at last the summary. Returns whether the phase is finished: False, on all ranks, when one of them was
    asked to stop; the next call goes on there.
    """
    stage, train_config = job.stage, job.recipe.train
    strategy = make_strategy(train_config.strategy, device)
    seed_step(job.recipe.seed, step=0, rank=0)  # heads that are new in this stage start alike on all ranks
    model, batches = build(job, strategy)
    select_trainable(model, model.groups(), stage.lr)
    trains = describe_trainable(model, model.groups(), stage.lr)
    flops = model.flops()
    module = strategy.prepare(model, lambda: build_optimizer(model.groups(), stage))
    plan = plan_phase(stage, job.phase, counts=batches.counts, world=strategy.world)
    checkpointer = Checkpointer(
        job.checkpoints,
        strategy,
        run=job.identity,
        strategy_name=train_config.strategy,
        retention=Retention.of(train_config),
        max_failed=train_config.max_failed_checkpoints,
        tell=lambda line: recorder.note(line) if recorder else None,
    )
    progress, lines = checkpointer.resume()
    recorder = Recorder(job, progress, open_sink()) if strategy.rank == 0 else None
    if recorder:
        recorder.note(plan.describe(), trains, *lines)
    profile = Profile(train_config.profile_steps, plan.steps, job.trace, device, recorder.traced) if recorder else None

    def on_row(row: Row) -> None:
        if recorder:
            recorder.row(row, checkpointer.step)
        checkpointer.logged(row)
        report(row)

    def on_step(progress: Progress) -> None:
        outside.alive()
        if profile:
            profile.at(progress.step)
        [asked] = strategy.total([float(outside.stops())])  # signals reach ranks at different steps, or only some
        if asked or progress.step == plan.steps or checkpoint_due(progress.step, train_config):
            if recorder:
                recorder.sync()
                outside.keep()
            checkpointer.save(progress, wait=bool(asked))
        if asked:
            raise StoppedError

    config = loop_config(job, plan, device, model.counts, flops)
    schedule = cosine(steps=plan.steps, warmup_steps=plan.warmup_steps, floor=stage.min_lr_fraction)
    try:
        with closing(checkpointer), closing(batches), closing(profile) if profile else nullcontext():
            if profile:
                profile.at(progress.step)
            train(
                module, batches, schedule, config=config, strategy=strategy, progress=progress,
                on_row=on_row, on_step=on_step,
            )  # fmt: skip
            checkpointer.wait()
    except StoppedError:
        if recorder:
            last = "nothing" if checkpointer.step is None else f"the checkpoint of step {checkpointer.step}"
            saved = checkpointer.step == progress.step
            recorder.note(
                f"asked to stop: saved and left at step {progress.step}"
                if saved
                else f"asked to stop: left at step {progress.step} without saving it; what stays is {last}"
            )
            recorder.close()
        strategy.barrier()
        return False
    weights = strategy.weights()
    if recorder:
        recorder.finish(model, weights)
    strategy.barrier()
    return True


def loop_config(
    job: PhaseJob,
    plan: PhasePlan,
    device: torch.device,
    counts: Callable[[Any], Mapping[str, int]],
    flops: Callable[[Any], float],
) -> LoopConfig:
    """What the loop has to know of the recipe."""
    stage, train_config = job.stage, job.recipe.train
    return LoopConfig(
        steps=plan.steps,
        accumulation=plan.accumulation,
        loss_weights=stage.loss_weights,
        clip_norm=stage.grad_clip_norm,
        seed=job.recipe.seed,
        log_every=train_config.log_every_steps,
        max_skipped=train_config.max_skipped_steps,
        autocast=partial(autocast, device, stage.precision),
        counts=counts,
        flops=flops,
        peak_flops=peak_flops(device, stage.precision, train_config.peak_tflops),
    )


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The arithmetic of the forward: bf16 where torch deems it safe, or everything as it is stored."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def checkpoint_due(step: int, config: TrainConfig) -> bool:
    """Whether one is written after so many updates."""
    intervals = (config.checkpoint_every_steps, config.permanent_checkpoint_every_steps)
    return any(every is not None and step % every == 0 for every in intervals)
