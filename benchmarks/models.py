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
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.tiny_base import SIZES, examples_of, write_base, write_sam2
from tpo_core.config.schema import ModelConfig, StageConfig, fill_stage_defaults
from tpo_core.models.processing import Batch
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


def measure(model: TpoModel, plain: TpoModel, kind: str, rounds: int, device: str) -> tuple[list[float], list[float]]:
    """Seconds of a step with the head, and without TPO, in each round."""
    examples = examples_of(kind, BATCH)
    found: tuple[list[float], list[float]] = ([], [])
    steps = [stepper(each) for each in (model, plain)]
    batches = [m.processor.collate([m.processor.encode(e) for e in examples]).to(device) for m in (model, plain)]
    for number in range(rounds + 1):
        for step, batch, seconds in zip(steps, batches, found, strict=True):
            took = step(batch)
            if number:  # the first one allocates
                seconds.append(took)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small", help="of the model (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender has its turn")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    print(f"{os.cpu_count()} CPUs ({platform.machine()}), device {args.device}, torch {torch.__version__}")
    torch.set_num_threads(1)
    print(f"size {args.size}, batch {BATCH}, {args.rounds} rounds: medians, and the quickest step of each\n")
    print("| head | step without TPO | with its head | added, median | added, quickest | asked |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="tpo-bench-") as folder:
        base, sam2 = str(write_base(Path(folder) / "base", args.size)), str(write_sam2(Path(folder) / "sam2"))
        plain = TpoModel.from_base(base, ModelConfig(base=base), []).to(args.device).train()
        for name, (kind, options) in HEADS.items():
            if "sam2" in name:
                options["mask"]["sam2"] = {"source": sam2}
            model = TpoModel.from_base(base, ModelConfig(base=base, **options), [kind]).to(args.device).train()
            ours, theirs = measure(model, plain, kind, args.rounds, args.device)
            added = [100 * (f(ours) / f(theirs) - 1) for f in (statistics.median, min)]
            seconds = f"{statistics.median(theirs):.2f} s | {statistics.median(ours):.2f} s"
            print(f"| {name} | {seconds} | {added[0]:+.1f} % | {added[1]:+.1f} % | {ASKED} |", flush=True)


if __name__ == "__main__":
    main()
