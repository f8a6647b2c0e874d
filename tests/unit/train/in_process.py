"""The stub's phase in this process, and a sink that keeps what it gets."""

from pathlib import Path
from typing import Any

import torch

from tests.unit.train.stub import StubBatch, StubBatches, StubModel, build_stub, stub_recipe
from tpo_core.train.job import PhaseJob
from tpo_core.train.phase import ALONE, Surroundings, run_rank
from tpo_core.train.strategies.base import Strategy


class Sink:
    """Collects what would be tracked."""

    def __init__(self) -> None:
        self.steps, self.closed, self.artifacts, self.checkpoint_steps = [], [], [], []

    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        assert all(isinstance(value, float) for value in metrics.values())
        self.steps.append(step)
        self.checkpoint_steps += [metrics["checkpoint_step"]] if "checkpoint_step" in metrics else []

    def log_artifact(self, path: Path, folder: str) -> None:
        self.artifacts.append((path.name, folder))

    def close(self, status: str) -> None:
        self.closed.append(status)


def run_phase_in_process(
    job: PhaseJob, build=build_stub, sink: Sink | None = None, outside: Surroundings = ALONE
) -> Sink:
    sink = sink or Sink()
    run_rank(
        job, build=build, device=torch.device("cpu"), open_sink=lambda: sink, report=lambda row: None, outside=outside
    )
    return sink


def phase_job(output: Path, **train: Any) -> PhaseJob:
    recipe = stub_recipe(**train)
    phase = recipe.stages["vision_task"].phases[0]
    return PhaseJob(recipe=recipe, stage_name="vision_task", phase=phase, shards_uri="", init_uri="", output=output)


class NotFinite(StubBatches):
    """The samples of some steps are not finite."""

    def __init__(self, steps: set[int], **about: int) -> None:
        super().__init__(**about)
        self.steps = steps

    def step(self, step: int):
        for batch in super().step(step):
            scale = float("nan") if step in self.steps else 1.0
            yield StubBatch(batch.kind, batch.sample_ids, batch.inputs_NC * scale, batch.targets_N)


def build_not_finite(*steps: int):
    """Builds the stub with these steps, counted from 0, not finite."""

    def build(job: PhaseJob, strategy: Strategy) -> tuple[StubModel, StubBatches]:
        about = {"micro": job.phase.micro_batch_size, "rank": strategy.rank, "world": strategy.world}
        return StubModel(), NotFinite(set(steps), **about)

    return build
