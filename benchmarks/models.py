"""python benchmarks/models.py [--size small|base] [--rounds N] [--device cpu|cuda]

Measures what the task heads add to a training step: forward, backward and update of the same batch by a model with its
heads and by the same model without TPO, which learns the text alone. Random weights of the LLaVA-OneVision
architecture, stage vision_task. Prints a table of ratios; the contenders take turns.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.tiny_base import SIZES, examples_of, write_base, write_sam2
from tpo_core.config.schema import ModelConfig, StageConfig, fill_stage_defaults
from tpo_core.models.batch import Batch
from tpo_core.models.tpo import TpoModel
from tpo_core.train.optim import build_optimizer
from tpo_core.train.stages import select_trainable

BATCH = 2
ASKED = "< 5 %"
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "region": ("region", {}),
    "temporal, frames": ("temporal", {}),
    "temporal, cg_detr": ("temporal", {"temporal": {"decoder": "cg_detr"}}),
    "mask, sam2": ("mask", {"mask": {"decoder": "sam2"}}),
    "mask, light": ("mask", {}),
    "mask, light on 4 frames": ("mask", {"mask": {"train_frames": 4}}),
}


def stage(heads: list[str]) -> StageConfig:
    """Stage vision_task with these heads, as a recipe that sets no rates gets it."""
    phase = {"name": "all", "mixture": {"chat": 1}, "steps": 1, "batch_size": BATCH, "micro_batch_size": BATCH}
    raw = {"model": {"heads": heads}, "stages": {"vision_task": {"phases": [phase]}}}
    return StageConfig(**fill_stage_defaults(raw)["stages"]["vision_task"])


def stepper(model: TpoModel) -> Callable[[Batch], float]:
    """Seconds of one optimizer step on a batch: of the clock on a GPU, of CPU time without, which others do not count
    into on a busy machine."""
    config = stage(list(model.heads))
    select_trainable(model, model.groups(), config.lr)
    optimizer = build_optimizer(model.groups(), config)

    def step(batch: Batch) -> float:
        device = batch.input_ids_BL.device
        clock = time.perf_counter if device.type == "cuda" else time.process_time
        _wait(device)
        began = clock()
        losses, _ = model(batch)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(device)
        return clock() - began

    return step


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass
class Cost:
    """Of one contender: seconds of its steps, and what a step computes, in FLOPs."""

    flops: int
    seconds: list[float] = field(default_factory=list)


def measure(model: TpoModel, plain: TpoModel, kind: str, rounds: int, device: str) -> tuple[Cost, Cost]:
    """A step with the head, and without TPO; the first one of each allocates, and is counted instead of timed."""
    examples, contenders = examples_of(kind, BATCH), []
    for each in (model, plain):
        batch = each.processor.collate([each.processor.encode(example) for example in examples]).to(device)
        step = stepper(each)
        with FlopCounterMode(display=False) as counter:
            step(batch)
        contenders.append((step, batch, Cost(counter.get_total_flops())))
    for _ in range(rounds):
        for step, batch, cost in contenders:
            cost.seconds.append(step(batch))
    return contenders[0][2], contenders[1][2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small", help="of the model (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each; 0: FLOPs alone")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    print(f"{os.cpu_count()} CPUs ({platform.machine()}), device {args.device}, torch {torch.__version__}")
    torch.set_num_threads(1)
    print(f"size {args.size}, batch {BATCH}, median of {args.rounds} rounds\n")
    print("| head | FLOPs added | step without TPO | with its head | time added | asked |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="tpo-bench-") as folder:
        base, sam2 = str(write_base(Path(folder) / "base", args.size)), str(write_sam2(Path(folder) / "sam2"))
        plain = TpoModel.from_base(base, ModelConfig(base=base), []).to(args.device).train()
        for name, (kind, options) in HEADS.items():
            if "sam2" in name:
                options["mask"]["sam2"] = {"source": sam2}
            model = TpoModel.from_base(base, ModelConfig(base=base, **options), [kind]).to(args.device).train()
            ours, theirs = measure(model, plain, kind, args.rounds, args.device)
            flops = f"{100 * (ours.flops / theirs.flops - 1):+.2f} %"
            times = "- | - | -"
            if args.rounds:
                took, alone = (statistics.median(each.seconds) for each in (ours, theirs))
                times = f"{alone:.2f} s | {took:.2f} s | {100 * (took / alone - 1):+.1f} %"
            print(f"| {name} | {flops} | {times} | {ASKED} |", flush=True)


if __name__ == "__main__":
    main()
