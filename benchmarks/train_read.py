"""What the runs of benchmarks/train.py left behind, as numbers; and the pauses for checkpoints."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from benchmarks.train_job import Setting
from tpo_core.models.tpo import TpoModel
from tpo_core.train.checkpoints.checkpointer import Checkpointer
from tpo_core.train.checkpoints.retention import Retention
from tpo_core.train.optim import build_optimizer
from tpo_core.train.rows import Progress
from tpo_core.train.stages import select_trainable
from tpo_core.train.strategies.replicated import Replicated

SAVES = 4
WARM_STEPS = 8  # the first steps allocate, and threads start


Clock = Literal["time", "cpu"]


def step_starts_s(setting: Setting, clock: Clock) -> list[tuple[int, float]]:
    """(step, when it began) as rank 0 noted them: the time, or the CPU seconds that its process had taken by then."""
    rows = [json.loads(line) for line in setting.clock().read_text().splitlines()]
    return [(row["step"], row[clock]) for row in rows]


def mean_step_s(setting: Setting, clock: Clock) -> float:
    """Mean from one step to the next, all that happens in between included, once the run is warm."""
    began = dict(step_starts_s(setting, clock))
    return (began[setting.steps - 1] - began[WARM_STEPS]) / (setting.steps - 1 - WARM_STEPS)


def median_step_s(setting: Setting, clock: Clock) -> float:
    """Median from one step to the next once the run is warm: what other processes do now and then is out."""
    began = [start_s for step, start_s in step_starts_s(setting, clock) if step >= WARM_STEPS]
    return statistics.median(after - before for before, after in pairwise(began))


def held(setting: Setting) -> float:
    """The share of the time of steps that the loop was held by the tracker."""
    waited_s: float = json.loads(setting.waited().read_text())
    return waited_s / (mean_step_s(setting, "time") * setting.steps)


def restart_s(setting: Setting) -> float:
    """Seconds from the kill to the first step of the attempt after it."""
    killed_at = float((setting.folder / "killed").read_text())
    return min(start_s for _, start_s in step_starts_s(setting, "time") if start_s > killed_at) - killed_at


def peaks_mib(setting: Setting, of: Literal["steps", "whole"]) -> list[float]:
    """Peak resident memory of each rank, MiB: of steps after the first, or with loading before and export behind."""
    return [json.loads(path.read_text()) for path in Path(setting.folder).glob(f"peak-{of}-*.json")]


@dataclass(frozen=True)
class Pauses:
    """How long a save held up the loop (median), and the size of what was saved."""

    size_mib: float
    synchronous_s: float
    asynchronous_s: float


def checkpoint_pauses(base: str, folder: Path) -> Pauses:
    """Save the state of stage multitask SAVES times each, waiting for the write and not, in turns."""
    setting = Setting(base, folder, stage="multitask", workers=1)
    job, strategy = setting.job(), Replicated()
    model = TpoModel.from_base(base, job.recipe.model, job.stage.heads)
    select_trainable(model, model.groups(), job.stage.lr)
    strategy.prepare(model, lambda: build_optimizer(model.groups(), job.stage))
    strategy.update(strategy.gradient_norm(), 1.0)
    root = folder / "checkpoints"
    checkpointer = Checkpointer(
        str(root),
        strategy,
        run={},
        strategy_name="ddp",
        retention=Retention.of(job.recipe.train),
        max_failed=0,
        secure=lambda: None,
        tell=print,
    )
    took: dict[bool, list[float]] = {True: [], False: []}
    for step in range(1, 2 * SAVES + 2):
        wait = step % 2 == 1
        checkpointer.wait()
        began = time.perf_counter()
        checkpointer.save(Progress(step=step))
        if wait:
            checkpointer.wait()
        if step > 1:  # the first one takes memory
            took[wait].append(time.perf_counter() - began)
    size_bytes = sum(path.stat().st_size for path in root.rglob(f"step-{2 * SAVES:08d}/*"))
    return Pauses(size_bytes / 2**20, statistics.median(took[True]), statistics.median(took[False]))
