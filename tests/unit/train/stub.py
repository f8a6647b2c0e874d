"""A tiny model with two kinds of samples and dropout, its batches and a recipe: enough to train in milliseconds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tpo_core.config.schema import Recipe
from tpo_core.train.loop import LoopConfig, Progress, train
from tpo_core.train.optim import build_optimizer, cosine
from tpo_core.train.phase import PhaseJob
from tpo_core.train.stages import select_trainable
from tpo_core.train.strategy import DataParallel, Strategy

WIDTH = 4


@dataclass
class StubBatch:
    kind: str
    sample_ids: list[str]
    inputs_NC: Tensor
    targets_N: Tensor


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
        losses = {"lm": hidden_NC.square().mean()}
        if batch.kind == "region":
            losses["region"] = (self.head(hidden_NC).squeeze(-1) - batch.targets_N).abs().mean()
        return losses, {"hidden_max": float(hidden_NC.detach().max())}

    def save_pretrained(self, directory: Path) -> None:
        directory.mkdir()
        torch.save(self.state_dict(), directory / "weights.pt")


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


def build_stub(job: PhaseJob, strategy: Strategy, device: torch.device) -> tuple[StubModel, StubBatches]:
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

    def __init__(self, **config):
        torch.manual_seed(0)
        self.model, self.rows, self.saved = StubModel(), [], []
        select_trainable(self.model, self.model.groups(), STAGE.lr)
        self.optimizer = build_optimizer(self.model.groups(), STAGE)
        self.progress, self.on_row = Progress(), self.rows.append
        self.config = LoopConfig(
            **{
                "steps": 12, "accumulation": 2, "loss_weights": {"lm": 1.0, "region": 2.0}, "clip_norm": 1.0,
                "seed": 7, "log_every": 3, "checkpoint_every": 5, "max_skipped": 2, **config,
            }
        )  # fmt: skip

    def train(self, batches, strategy=None):
        schedule = cosine(steps=self.config.steps, warmup_steps=min(2, self.config.steps), floor=0.1)
        train(
            self.model, batches, self.optimizer, schedule, config=self.config, strategy=strategy or DataParallel(),
            progress=self.progress, on_row=self.on_row, on_checkpoint=lambda p: self.saved.append(p.step),
        )  # fmt: skip
        return self
