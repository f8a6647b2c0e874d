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
from tpo_core.train.balance import Balance, make_balance
from tpo_core.train.checkpoints.checkpointer import Checkpointer
from tpo_core.train.checkpoints.retention import Retention
from tpo_core.train.job import PhaseJob
from tpo_core.train.loop import Batch, DivergedError, LoopConfig, seed_step, train
from tpo_core.train.meter import memory_bytes, peak_flops
from tpo_core.train.optim import Groups, build_optimizer, cosine
from tpo_core.train.profile import Profile
from tpo_core.train.recorder import Recorder, Savable, Unrecorded
from tpo_core.train.rows import Progress, Row, make_row
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

    def timed(self) -> AbstractContextManager[None]:
        """Entered where ranks compute together: there, `alive` is called after each step."""
        return nullcontext()

    def untimed(self) -> AbstractContextManager[None]:
        """Entered within `timed` where storage is waited for."""
        return nullcontext()

    def alive(self) -> None:
        """A step has ended; called on every rank."""

    def stops(self) -> bool:
        """Whether this rank has been asked to end; when one of them was, all save and leave at the end of the step, or
        before the first one."""
        return False

    def keep(self) -> None:
        """A checkpoint is about to be written: what rank 0 wrote so far must be as safe. Called on rank 0, in the
        thread that writes; there is no checkpoint when it fails."""


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
    asked to stop; the next call goes on there. Raises DivergedError when losses are not finite, TpoError for what the
    user can mend; rank 0 notes whatever is raised and closes the sink.
    """
    strategy = make_strategy(job.recipe.train.strategy, device)
    recorder = Recorder(job, open_sink()) if strategy.rank == 0 else Unrecorded()
    rank = Rank(job, strategy, recorder, report, outside)
    try:
        rank.set_up(build)
        rank.train()
        rank.finish()
    except StoppedError:
        rank.leave()
        return False
    except Exception as error:
        recorder.fail(error, rank.unlogged_row())
        raise
    return True


class Rank:
    """What a rank has in hand during a phase; its methods are called in the order in which they stand, on all ranks."""

    def __init__(
        self,
        job: PhaseJob,
        strategy: Strategy,
        recorder: Recorder | Unrecorded,
        report: Callable[[Row], None],
        outside: Surroundings,
    ) -> None:
        self.job, self.strategy, self.recorder, self.report, self.outside = job, strategy, recorder, report, outside
        self.progress = Progress()

    def set_up(self, build: Builder) -> None:
        """Model, data and where to begin."""
        job, stage, strategy = self.job, self.job.stage, self.strategy
        seed_step(job.recipe.seed, step=0, rank=0)  # heads that are new in this stage start alike on all ranks
        model, self.batches = build(job, strategy)
        self.model = model
        strategy.barrier()  # who reads the model slowest is waited for here, where no clock runs
        select_trainable(model, model.groups(), stage.lr)
        trains = describe_trainable(model, model.groups(), stage.lr)
        flops = model.flops()
        with self.outside.timed():
            self.module = strategy.prepare(model, lambda: build_optimizer(model.groups(), stage))
        self.plan = plan_phase(stage, job.phase, counts=self.batches.counts, world=strategy.world)
        balance = make_balance(stage, model.groups())
        self.config = loop_config(job, self.plan, strategy.device, model.counts, flops, balance)
        self.checkpointer = self.make_checkpointer()
        self.progress, lines = self.checkpointer.resume()
        self.recorder.resume(self.progress)
        self.recorder.note(self.plan.describe(), trains, *lines)
        traced = job.recipe.train.profile_steps if strategy.rank == 0 else None
        self.profile = Profile(traced, self.plan.steps, job.trace, strategy.device, self.recorder.traced)
        strategy.barrier()  # as above, for the checkpoint

    def make_checkpointer(self) -> Checkpointer:
        config = self.job.recipe.train
        return Checkpointer(
            self.job.checkpoints,
            self.strategy,
            run=self.job.identity,
            strategy_name=config.strategy,
            retention=Retention.of(config),
            max_failed=config.max_failed_checkpoints,
            secure=self.secure,
            tell=self.recorder.note,
        )

    def secure(self) -> None:
        """Have what is written beside the checkpoints be as safe as the one that is about to be."""
        self.recorder.sync()
        self.outside.keep()

    def train(self) -> None:
        """All steps that are not done. Raises StoppedError when a rank was asked to leave."""
        stage, plan = self.job.stage, self.plan
        schedule = cosine(steps=plan.steps, warmup_steps=plan.warmup_steps, floor=stage.min_lr_fraction)
        with closing(self.checkpointer), closing(self.batches), closing(self.profile):
            if self.asked():  # while it was set up
                raise StoppedError
            with self.outside.timed():
                self.profile.at(self.progress.step)
                train(
                    self.module, self.batches, schedule, config=self.config, strategy=self.strategy,
                    progress=self.progress, on_row=self.on_row, on_step=self.on_step,
                )  # fmt: skip
            self.checkpointer.wait()

    def on_row(self, row: Row) -> None:
        """See loop.train."""
        self.recorder.row(row, self.checkpointer.step)
        self.checkpointer.logged(row)
        self.report(row)

    def on_step(self, progress: Progress) -> None:
        """See loop.train."""
        self.outside.alive()
        self.profile.at(progress.step)
        asked = self.asked()
        if asked or progress.step == self.config.steps or checkpoint_due(progress.step, self.job.recipe.train):
            with self.outside.untimed():
                self.checkpointer.wait()
            self.checkpointer.save(progress)
        if asked:
            with self.outside.untimed():
                self.checkpointer.wait()
            raise StoppedError

    def asked(self) -> bool:
        """Whether a rank was asked to leave, told to all alike: signals reach ranks at different steps, or some."""
        return self.strategy.total([float(self.outside.stops())])[0] > 0

    def finish(self) -> None:
        """Write the model, then the summary."""
        losses = self.checkpointer.losses
        if not losses:
            raise DivergedError(
                f"none of the {self.config.steps} steps had a finite loss: lower the learning rates of the stage or use"
                " precision=fp32"
            )
        with self.outside.timed():
            weights = self.strategy.weights()
        self.recorder.finish(self.model, weights, self.progress, losses)
        self.strategy.barrier()

    def leave(self) -> None:
        """Say how far training came, instead of finishing it."""
        self.recorder.leave(self.progress.step, self.checkpointer.step)
        self.strategy.barrier()

    def unlogged_row(self) -> Row | None:
        """What this rank knows of the steps since the last row, if there are any; called when something went wrong."""
        if not self.progress.window.steps:
            return None
        rates = {group["group"]: group["lr"] for group in self.strategy.optimizer.param_groups}
        memory = memory_bytes(self.strategy.device)
        return make_row(self.progress, rates, steps=self.config.steps, memory_bytes=memory, peak_flops=None)


def loop_config(
    job: PhaseJob,
    plan: PhasePlan,
    device: torch.device,
    counts: Callable[[Any], Mapping[str, int]],
    flops: Callable[[Any], float],
    balance: Balance,
) -> LoopConfig:
    """What the loop has to know of the recipe."""
    stage, train_config = job.stage, job.recipe.train
    return LoopConfig(
        steps=plan.steps if job.until_step is None else min(job.until_step, plan.steps),
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
        balance=balance,
    )


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The arithmetic of the forward: bf16 where torch deems it safe, or everything as it is stored."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def checkpoint_due(step: int, config: TrainConfig) -> bool:
    """Whether one is written after so many updates."""
    intervals = (config.checkpoint_every_steps, config.permanent_checkpoint_every_steps)
    return any(every is not None and step % every == 0 for every in intervals)
