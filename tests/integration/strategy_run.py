"""A tiny real TpoModel under a strategy, in one process or as one of several: what test_strategies.py compares."""

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tpo_core.config.schema import ModelConfig, StageConfig
from tpo_core.data.example import Example
from tpo_core.models.batch import Batch
from tpo_core.models.tpo import TpoModel
from tpo_core.train.loop import LoopConfig, Progress, train
from tpo_core.train.optim import build_optimizer, cosine
from tpo_core.train.stages import select_trainable
from tpo_core.train.strategies.registry import make_strategy

CYCLE = ("region", "temporal", "mask", "chat")
LOSS_WEIGHTS = {"lm": 1.0, "kl": 1.0, "region": 1.0, "temporal": 1.0, "mask": 1.0}
LR = {
    "lora": 1e-2, "task_vectors": 5e-3, "region_head": 3e-3, "temporal_head": 2e-3, "mask_head": 4e-3,
    "vision_encoder": 1e-3, "connector": 2e-3,
}  # fmt: skip
Given = dict[str, list[Example]]


@dataclass(frozen=True)
class Setting:
    """What a run computes. groups: that train. micro: samples of a micro-batch over all ranks. broken: step at which
    the last rank gets pixels that are no numbers. recomputes: activations, in backward."""

    steps: int = 4
    precision: str = "fp32"
    groups: tuple[str, ...] = tuple(LR)
    micro: int = 2
    broken: int | None = None
    recomputes: bool = False


class StrategyRun:
    """One rank of a run from the base model in `folder`, on its examples by kind."""

    def __init__(self, name: str, folder: Path, setting: Setting, given: Given) -> None:
        self.setting, self.given = setting, given
        self.strategy = make_strategy(name, "cpu")
        torch.manual_seed(0)
        config = ModelConfig.model_validate(json.loads((folder / "config.json").read_text()))
        config = config.model_copy(update={"activation_checkpointing": setting.recomputes})
        self.model = TpoModel.from_base(config.base, config, CYCLE[:3])
        self.model.compares_with_base = True
        phase = {"name": "p", "mixture": dict.fromkeys(CYCLE, 1), "steps": setting.steps, "micro_batch_size": 2}
        self.stage = StageConfig.model_validate(
            {"heads": CYCLE[:3], "lr": {group: LR[group] for group in setting.groups}, "phases": [phase]}
        )
        select_trainable(self.model, self.model.groups(), self.stage.lr)
        self.module = self.strategy.prepare(self.model, lambda: build_optimizer(self.model.groups(), self.stage))
        self.progress, self.rows = Progress(), []

    def step(self, step: int) -> Iterator[Batch]:
        """Two micro-batches, of kinds that go on in turn, so that each step leaves some heads without a gradient."""
        rank, world = self.strategy.rank, self.strategy.world
        for index in range(2):
            kind = CYCLE[(step + index) % len(CYCLE)]
            given = self.given[kind]
            size = self.setting.micro
            picked = [given[(size * step + number) % len(given)] for number in range(size)]
            mine = picked[rank * size // world : (rank + 1) * size // world]
            processor = self.model.processor
            batch = processor.collate([processor.encode(example) for example in mine])
            if step == self.setting.broken and index == 0 and rank == world - 1:
                batch.pixel_values_UTCHW.fill_(torch.nan)
            yield batch

    def train(self, until: int, on_step: Callable[[Progress], None] = lambda progress: None) -> "StrategyRun":
        config = LoopConfig(
            steps=until, accumulation=2, loss_weights=LOSS_WEIGHTS, clip_norm=1.0, seed=0, log_every=1, max_skipped=1,
            counts=self.model.counts,
            autocast=lambda: torch.autocast("cpu", torch.bfloat16, enabled=self.setting.precision == "bf16"),
        )  # fmt: skip
        schedule = cosine(steps=self.setting.steps, warmup_steps=4, floor=0.1)
        train(
            self.module, self, schedule, config=config, strategy=self.strategy, progress=self.progress,
            on_row=self.rows.append, on_step=on_step,
        )  # fmt: skip
        return self

    def state(self) -> dict[str, torch.Tensor]:
        return {name: tensor.cpu().clone() for name, tensor in self.strategy.state()}

    def restore(self, state: dict[str, torch.Tensor], step: int) -> "StrategyRun":
        self.strategy.set_state(state.__getitem__, step)
        self.progress.step = step
        return self


def join(rank: int, world: int, meet: Path) -> None:
    """Become one of `world` gloo processes, which find each other by the file `meet`."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{meet}", rank=rank, world_size=world)


def numbers(rows: list[dict[str, Any]]) -> list[dict[str, float]]:
    """What must not depend on the strategy: the losses and the gradient norm of every step."""
    kept = ("total", "loss/", "kind/", "grad_norm")
    return [{key: value for key, value in row.items() if key.startswith(kept)} for row in rows]
