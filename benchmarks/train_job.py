"""The training job that benchmarks/train.py measures: a random base of benchmarks/tiny_base.py on samples made up once.

Also a launcher: `torchrun ... benchmarks/train_job.py FOLDER` runs one rank of the job that was written to FOLDER.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.distributed as dist

from benchmarks.tiny_base import examples_of
from tpo_core.config.schema import Recipe
from tpo_core.models.batch import Batch
from tpo_core.models.tpo import TpoModel
from tpo_core.tracking.tracker import MlflowTracker
from tpo_core.train.job import PhaseJob
from tpo_core.train.phase import run_rank
from tpo_core.train.sinks import NoSink
from tpo_core.train.strategies.base import Strategy

MICRO_BATCH = 4
NEVER = 1_000_000
PEAK_FROM_STEP = 1  # the first step makes gradients and moments


@dataclass(frozen=True)
class Setting:
    """One contender: what of the job differs. kinds: of the two micro-batches of a step. mlflow: a tracking URI.
    kill_at: the step before which rank 0 of the first attempt is killed, as by the kernel. idle_s: how long a rank
    sleeps before each of the two, as one does that waits for its GPU."""

    base: str
    folder: Path
    kinds: tuple[str, str] = ("region", "temporal")
    stage: str = "vision_task"
    steps: int = 40
    workers: int = 2
    strategy: str = "ddp"
    log_every: int = 10
    checkpoint_every: int = NEVER
    mlflow: str | None = None
    kill_at: int | None = None
    idle_s: float = 0.0

    def job(self) -> PhaseJob:
        recipe = self.recipe()
        phase = recipe.stages[self.stage].phases[0]
        return PhaseJob(
            recipe=recipe, stage_name=self.stage, phase=phase, shards_uri="none", init_uri=self.base,
            output=self.folder / "out",
        )  # fmt: skip

    def recipe(self) -> Recipe:
        phase = {
            "name": "all", "mixture": dict.fromkeys(self.kinds, 1), "steps": self.steps,
            "batch_size": 2 * MICRO_BATCH, "micro_batch_size": MICRO_BATCH,
        }  # fmt: skip
        train = {
            "workers": self.workers, "cpus_per_worker": 0.5, "torch_threads": 1, "strategy": self.strategy,
            "log_every_steps": self.log_every, "checkpoint_every_steps": self.checkpoint_every, "max_failures": 1,
        }  # fmt: skip
        source = {"name": "s", "reader": "r", "root": "/nowhere", "split": "train", "part": "train"}
        heads = list(dict.fromkeys(self.kinds))
        stage = {"heads": heads, "precision": "fp32", "phases": [phase]}
        return Recipe.model_validate(
            {
                "name": "bench",
                "data": {"sources": [source]},
                "model": {"base": self.base, "heads": heads},
                "stages": {self.stage: stage},
                "train": train,
            }
        )

    def sink(self) -> Any:
        return TimedTracker(self.waited(), self.mlflow, "bench", "bench") if self.mlflow else NoSink()

    def waited(self) -> Path:
        """Where rank 0 notes how long its loop was held by the tracker."""
        return self.folder / "waited.json"

    def clock(self) -> Path:
        """Where rank 0 notes when each step began, and what of the CPU its process had taken by then."""
        return self.folder / "clock.jsonl"


class TimedTracker(MlflowTracker):
    """Adds up how long those who log are held, and notes it in `path` when the run ends."""

    def __init__(self, path: Path, *where: str) -> None:
        super().__init__(*where)
        self.path, self.held_s = path, 0.0

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        began_s = time.perf_counter()
        super().log_metrics(metrics, step)
        self.held_s += time.perf_counter() - began_s

    def close(self, status: str) -> str | None:
        self.path.write_text(json.dumps(self.held_s))
        return super().close(status)


class FixedBatches:
    """The same micro-batches at every step, encoded once, so that no step waits for data."""

    def __init__(self, setting: Setting, model: TpoModel, strategy: Strategy) -> None:
        self.setting, self.rank = setting, strategy.rank
        self.counts = dict.fromkeys(setting.kinds, 64)
        share = slice(
            strategy.rank * MICRO_BATCH // strategy.world, (strategy.rank + 1) * MICRO_BATCH // strategy.world
        )
        encode = model.processor.encode
        self.micros = [
            model.processor.collate([encode(example) for example in examples_of(kind, MICRO_BATCH)[share]])
            for kind in setting.kinds
        ]

    def step(self, step: int) -> Iterator[Batch]:
        if step == PEAK_FROM_STEP:
            Path("/proc/self/clear_refs").write_text("5")  # the kernel's mark of the peak begins anew (proc(5))
        if step == self.setting.steps - 1:  # behind this one comes the last checkpoint
            (self.setting.folder / f"peak-steps-{self.rank}.json").write_text(json.dumps(peak_mib()))
        if self.rank == 0:
            flag = self.setting.folder / "killed"
            with self.setting.clock().open("a") as file:
                file.write(json.dumps({"step": step, "time": time.time(), "cpu": time.process_time()}) + "\n")
            if step == self.setting.kill_at and not flag.exists():
                flag.write_text(str(time.time()))
                os.kill(os.getpid(), signal.SIGKILL)
        for micro in self.micros:
            time.sleep(self.setting.idle_s)
            yield micro

    def close(self) -> None:
        """Nothing runs in the background."""


def peak_mib() -> float:
    """Peak resident memory of this process since the mark was set back, MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def build(setting: Setting, job: PhaseJob, strategy: Strategy) -> tuple[TpoModel, FixedBatches]:
    model = TpoModel.from_base(setting.base, job.recipe.model, job.stage.heads)
    return model, FixedBatches(setting, model, strategy)


def run_here(setting: Setting) -> None:
    """One rank of the job in this process, as torchrun started it or alone; leaves its peak memory behind."""
    torch.set_num_threads(1)
    rank = int(os.environ.get("RANK", "0"))
    if "RANK" in os.environ:
        dist.init_process_group("gloo")
    run_rank(
        setting.job(), build=partial(build, setting), device=torch.device("cpu"), open_sink=setting.sink,
        report=lambda row: None,
    )  # fmt: skip
    whole_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    (setting.folder / f"peak-whole-{rank}.json").write_text(json.dumps(whole_mib))


if __name__ == "__main__":
    run_here(pickle.loads((Path(sys.argv[1]) / "setting.pickle").read_bytes()))
