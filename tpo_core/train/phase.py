"""One rank of one phase, from the weights it starts with to the weights it hands on.

Everything that a training worker does, without the machinery that starts workers: Ray Train calls `run_rank` in each
of them, and a test or torchrun can call it as it is.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tpo_core.config.schema import PhaseConfig, Recipe, StageConfig, TrainConfig, identity
from tpo_core.storage.uri import join
from tpo_core.train.checkpoints.checkpointer import Checkpointer
from tpo_core.train.checkpoints.retention import Retention
from tpo_core.train.loop import Batch, LoopConfig, Progress, Row, seed_step, train
from tpo_core.train.optim import Groups, build_optimizer, cosine
from tpo_core.train.stages import PhaseRef, describe_trainable, plan_phase, select_trainable
from tpo_core.train.strategies.base import Strategy
from tpo_core.train.strategies.registry import make_strategy


@dataclass(frozen=True, kw_only=True)
class PhaseJob:
    """What a worker has to know; picklable.

    shards_uri, init_uri: absolute. init_uri is the base model, or the `model` folder of the phase before.
    output: folder shared by all workers and the driver. run_id: tells this run from others of the same phase, the
    fingerprint of the step in a chain.
    """

    recipe: Recipe
    stage_name: str
    phase: PhaseConfig
    shards_uri: str
    init_uri: str
    output: Path
    run_id: str = "run"

    @property
    def name(self) -> str:
        """As PhaseRef.name."""
        return PhaseRef(stage_name=self.stage_name, stage=self.stage, phase=self.phase).name

    @property
    def stage(self) -> StageConfig:
        return self.recipe.stages[self.stage_name]

    @property
    def checkpoints(self) -> str:
        """The folder or URI below which they lie."""
        uri = self.recipe.train.checkpoint_uri
        return str(self.output / "checkpoints") if uri is None else join(uri, self.name, self.run_id)

    @property
    def identity(self) -> dict[str, Any]:
        """What is computed, as JSON; not where, nor from which place the base model comes."""
        model = {name: value for name, value in identity(self.recipe.model).items() if name != "base"}
        stage = identity(self.stage) | {"phases": [identity(self.phase)]}
        return {"stages": {self.stage_name: stage}, "model": model, "seed": self.recipe.seed}

    @property
    def history(self) -> Path:
        """One row (loop.make_row) per logged step, as JSON lines."""
        return self.output / "history.jsonl"

    @property
    def notes(self) -> Path:
        """What the workers have to say to a reader, line by line: the arithmetic of the phase, where it resumed."""
        return self.output / "notes.txt"

    @property
    def stacks(self) -> Path:
        """Where every thread of a rank was when that rank hung."""
        return self.output / "stacks"

    @property
    def model(self) -> Path:
        return self.output / "model"

    @property
    def summary(self) -> Path:
        """The result of the phase; written last, so that its presence says that the phase is finished."""
        return self.output / "phase.json"


class PhaseModel(Protocol):
    """What a phase asks of a model besides being an nn.Module whose forward gives (losses, report)."""

    def groups(self) -> Groups:
        """Parameters by group, as (name, parameter) pairs."""

    def save_pretrained(self, directory: Path, weights: Mapping[str, Tensor]) -> None:
        """Write `weights`, a whole state dict, in the Hugging Face layout."""


class PhaseBatches(Protocol):
    """The data of a phase for one rank."""

    counts: Mapping[str, int]

    def step(self, step: int) -> Iterator[Batch]:
        """See loop.Batches."""

    def close(self) -> None:
        """Stop what prepares data in the background."""


class MetricSink(Protocol):
    """Where the numbers of logged rows go besides the history."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Record `metrics` at `step`; recording a step again overwrites it."""

    def close(self) -> None:
        """Deliver what is still on its way."""


class NoSink:
    """Keeps nothing: the history file has it all."""

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""


class Surroundings:
    """What a rank shares with whatever runs it. As it is: nothing watches the rank, and nothing stops it."""

    def alive(self) -> None:
        """A step has ended; called on every rank."""

    def stops(self) -> bool:
        """Whether this rank has been asked to end; when one of them was, all save and leave at the end of the step."""
        return False


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

    def on_row(row: Row) -> None:
        if recorder:
            recorder.row(row)
        checkpointer.logged(row)
        report(row)

    def on_step(progress: Progress) -> None:
        outside.alive()
        [asked] = strategy.total([float(outside.stops())])  # signals reach ranks at different steps, or only some
        if asked or progress.step == plan.steps or checkpoint_due(progress.step, train_config):
            checkpointer.save(progress, wait=bool(asked))
        if asked:
            raise StoppedError

    config = LoopConfig(
        steps=plan.steps,
        accumulation=plan.accumulation,
        loss_weights=stage.loss_weights,
        clip_norm=stage.grad_clip_norm,
        seed=job.recipe.seed,
        log_every=train_config.log_every_steps,
        max_skipped=train_config.max_skipped_steps,
        autocast=partial(autocast, device, stage.precision),
    )
    schedule = cosine(steps=plan.steps, warmup_steps=plan.warmup_steps, floor=stage.min_lr_fraction)
    try:
        with closing(checkpointer), closing(batches):
            train(
                module, batches, schedule, config=config, strategy=strategy, progress=progress,
                on_row=on_row, on_step=on_step,
            )  # fmt: skip
            checkpointer.wait()
    except StoppedError:
        if recorder:
            recorder.note(f"asked to stop: saved and left at step {progress.step}")
            recorder.sink.close()
        strategy.barrier()
        return False
    weights = strategy.weights()
    if recorder:
        recorder.finish(model, weights)
    strategy.barrier()
    return True


def autocast(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """The arithmetic of the forward: bf16 where torch deems it safe, or everything as it is stored."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def checkpoint_due(step: int, config: TrainConfig) -> bool:
    """Whether one is written after so many updates."""
    intervals = (config.checkpoint_every_steps, config.permanent_checkpoint_every_steps)
    return any(every is not None and step % every == 0 for every in intervals)


class Recorder:
    """What rank 0 leaves behind: notes, history, tracked metrics, the model and the summary."""

    def __init__(self, job: PhaseJob, progress: Progress, sink: MetricSink) -> None:
        """Rows beyond `progress.step` come from an attempt that died after its last checkpoint: they are dropped."""
        self.job = job
        job.output.mkdir(parents=True, exist_ok=True)
        keep = [row for row in read_history(job.history) if row["step"] <= progress.step]
        write_aside(job.history, "".join(json.dumps(row) + "\n" for row in keep))
        self.sink = sink

    def note(self, *lines: str) -> None:
        with self.job.notes.open("a") as file:
            file.writelines(f"{line}\n" for line in lines)

    def row(self, row: Row) -> None:
        with self.job.history.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.sink.log_metrics({k: float(v) for k, v in row.items() if k not in ("step", "steps")}, row["step"])

    def finish(self, model: PhaseModel, weights: Mapping[str, Tensor]) -> None:
        """Write the model, then the summary: {steps, samples, seconds, skipped, losses of the last row}."""
        aside = self.job.model.with_name("model.partial")
        for path in (aside, self.job.model):  # left by an attempt that died right here
            shutil.rmtree(path, ignore_errors=True)
        model.save_pretrained(aside, weights)
        aside.rename(self.job.model)
        last = read_history(self.job.history)[-1]
        losses = {k: v for k, v in last.items() if k == "total" or k.startswith(("loss/", "kind/"))}
        summary = {k: last[k] for k in ("steps", "samples", "seconds", "skipped")} | {"final": losses}
        write_aside(self.job.summary, json.dumps(summary, indent=1))
        self.sink.close()


def read_history(path: Path) -> list[Row]:
    """All complete rows of a history; a last line that was cut off by a kill is left out."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]


def write_aside(path: Path, text: str) -> None:
    """Replace the file in one step, so that a reader sees the old text or the new."""
    aside = path.with_name(path.name + ".partial")
    aside.write_text(text)
    os.replace(aside, path)
