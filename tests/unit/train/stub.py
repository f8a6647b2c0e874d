"""A tiny model with two kinds of samples and dropout, its batches and a recipe: enough to train in milliseconds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tpo_core.config.schema import Recipe
from tpo_core.train.job import PhaseJob
from tpo_core.train.loop import LoopConfig, train
from tpo_core.train.optim import build_optimizer, cosine
from tpo_core.train.rows import Progress
from tpo_core.train.stages import select_trainable
from tpo_core.train.strategies.base import Strategy
from tpo_core.train.strategies.replicated import Replicated

WIDTH = 4


@dataclass
class StubBatch:
    kind: str
    sample_ids: list[str]
    inputs_NC: Tensor
    targets_N: Tensor

    @property
    def n_tokens(self) -> int:
        return 3 * len(self.inputs_NC)

    def to(self, device: torch.device) -> "StubBatch":
        return self


class StubModel(nn.Module):
    """A frozen base, an adapter with dropout that every kind uses, and one head that only `region` uses."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH)
        self.adapter = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.Dropout(0.3))
        self.head = nn.Linear(WIDTH, 1)
        self.register_buffer("calls", torch.zeros(()))

    def groups(self) -> dict[str, list[tuple[str, nn.Parameter]]]:
        return {
            "lora": [(f"adapter.{name}", p) for name, p in self.adapter.named_parameters()],
            "region_head": [(f"head.{name}", p) for name, p in self.head.named_parameters()],
            "vision_encoder": [(f"base.{name}", p) for name, p in self.base.named_parameters()],
        }

    def forward(self, batch: StubBatch) -> tuple[dict[str, Tensor], dict[str, float]]:
        self.calls += 1
        hidden_NC = self.adapter(self.base(batch.inputs_NC))
        losses = {"lm": hidden_NC.square().mean(1).sum()}
        if batch.kind == "region":
            losses["region"] = (self.head(hidden_NC).squeeze(-1) - batch.targets_N).abs().sum()
        return losses, {"hidden_max": float(hidden_NC.detach().max())}

    def save_pretrained(self, directory: Path, weights: Mapping[str, Tensor]) -> None:
        directory.mkdir()
        torch.save(dict(weights), directory / "weights.pt")

    def counts(self, batch: StubBatch) -> dict[str, int]:
        return dict.fromkeys(("lm", batch.kind), len(batch.inputs_NC))

    def flops(self):
        return lambda batch: 1000.0 * len(batch.sample_ids)

    def sharding_units(self) -> list[nn.Module]:
        return [self.adapter]

    def whole_units(self) -> list[nn.Module]:
        return [self.head]


class StubBatches:
    """Two micro-batches a step, region then chat; content is a function of the step, sliced by rank."""

    counts: Mapping[str, int] = {"region": 16, "chat": 16}

    def __init__(self, *, micro: int = 4, rank: int = 0, world: int = 1) -> None:
        self.micro, self.rank, self.world = micro, rank, world

    def step(self, step: int) -> Iterator[StubBatch]:
        for index, kind in enumerate(("region", "chat")):
            generator = torch.Generator().manual_seed(1000 * step + index)
            inputs_NC = torch.randn(self.micro, WIDTH, generator=generator)
            mine = slice(self.rank * self.micro // self.world, (self.rank + 1) * self.micro // self.world)
            ids = [f"{kind}-{step}-{i}" for i in range(self.micro)][mine]
            yield StubBatch(kind, ids, inputs_NC[mine], inputs_NC.sum(1)[mine])

    def close(self) -> None:
        """Nothing runs in the background."""


def build_stub(job: PhaseJob, strategy: Strategy) -> tuple[StubModel, StubBatches]:
    return StubModel(), StubBatches(micro=job.phase.micro_batch_size, rank=strategy.rank, world=strategy.world)


def stub_recipe(**train: Any) -> Recipe:
    """One stage of one phase: 12 steps of 8 samples, 2 micro-batches each, fp32."""
    phase = {"name": "all", "mixture": {"region": 1, "chat": 1}, "steps": 12, "batch_size": 8, "micro_batch_size": 4}
    stage = {
        "heads": ["region"],
        "lr": {"lora": 1e-2, "region_head": 5e-2},
        "phases": [phase],
        "precision": "fp32",
    }
    source = {"name": "s", "reader": "r", "root": "/nowhere", "split": "train", "part": "train"}
    return Recipe.model_validate(
        {
            "name": "stub",
            "data": {"sources": [source]},
            "model": {"base": "none", "heads": ["region"]},
            "stages": {"vision_task": stage},
            "train": {"torch_threads": 1, "log_every_steps": 3, "checkpoint_every_steps": 4, **train},
        }
    )


STAGE = stub_recipe().stages["vision_task"]


class Run:
    """A model under training, with all that the loop handed out."""

    def __init__(self, *, checkpoint_every=5, stage=STAGE, strategy=None, model=None, **config):
        torch.manual_seed(0)
        self.model, self.rows, self.saved, self.stage = model or StubModel(), [], [], stage
        self.strategy, self.checkpoint_every = strategy or Replicated(), checkpoint_every
        if model is None:
            select_trainable(self.model, self.model.groups(), stage.lr)
        self.module = self.strategy.prepare(self.model, lambda: build_optimizer(self.model.groups(), stage))
        self.progress, self.on_row = Progress(), self.rows.append
        self.config = LoopConfig(
            **{
                "steps": 12, "accumulation": 2, "loss_weights": {"lm": 1.0, "region": 2.0}, "clip_norm": 1.0,
                "seed": 7, "log_every": 3, "max_skipped": 2, "counts": self.model.counts, **config,
            }
        )  # fmt: skip

    @property
    def optimizer(self):
        return self.strategy.optimizer

    def train(self, batches):
        schedule = cosine(steps=self.config.steps, warmup_steps=min(2, self.config.steps), floor=0.1)
        train(
            self.module, batches, schedule, config=self.config, strategy=self.strategy, progress=self.progress,
            on_row=self.on_row, on_step=self.on_step,
        )  # fmt: skip
        return self

    def on_step(self, progress):
        if progress.step == self.config.steps or progress.step % self.checkpoint_every == 0:
            self.saved.append(progress.step)
