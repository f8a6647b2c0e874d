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

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from benchmarks.tiny_base import KINDS, SIZES, examples_of, write_base
from tpo_core.config.schema import ModelConfig, StageConfig, fill_stage_defaults
from tpo_core.models.processing import Batch
from tpo_core.models.tpo import TpoModel
from tpo_core.train.optim import build_optimizer
from tpo_core.train.stages import select_trainable

BATCH = 2
ASKED = "< 5 %"


def stage(heads: list[str]) -> StageConfig:
    """Stage vision_task with these heads, as a recipe that sets no rates gets it."""
    phase = {"name": "all", "mixture": {"chat": 1}, "steps": 1, "batch_size": BATCH, "micro_batch_size": BATCH}
    raw = {"model": {"heads": heads}, "stages": {"vision_task": {"phases": [phase]}}}
    return StageConfig(**fill_stage_defaults(raw)["stages"]["vision_task"])


def stepper(model: TpoModel, heads: list[str]) -> Callable[[Batch], float]:
    """Seconds of one optimizer step on a batch."""
    config = stage(heads)
    select_trainable(model, model.groups(), config.lr)
    optimizer = build_optimizer(model.groups(), config)

    def step(batch: Batch) -> float:
        _wait(batch.input_ids_BL.device)
        began = time.perf_counter()
        losses, _ = model(batch)
        torch.stack(list(losses.values())).sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _wait(batch.input_ids_BL.device)
        return time.perf_counter() - began

    return step


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(model: TpoModel, plain: TpoModel, rounds: int, device: str) -> list[tuple[str, float, list[float]]]:
    """Per kind the seconds without TPO and the share (in percent) that its head adds in each round."""
    with_heads, without = stepper(model, list(KINDS)), stepper(plain, [])
    rows = []
    for kind in KINDS:
        examples = examples_of(kind, BATCH)
        batches = [m.processor.collate([m.processor.encode(e) for e in examples]).to(device) for m in (model, plain)]
        for step, batch in zip((with_heads, without), batches, strict=True):
            step(batch)  # the first one allocates
        pairs = [(with_heads(batches[0]), without(batches[1])) for _ in range(rounds)]
        rows.append((kind, statistics.median(b for _, b in pairs), [100 * (a / b - 1) for a, b in pairs]))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small", help="of the model (%(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each contender has its turn")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tpo-bench-") as folder:
        base = write_base(Path(folder), args.size)
        config = ModelConfig(base=str(base))
        model = TpoModel.from_base(str(base), config, KINDS).to(args.device).train()
        plain = TpoModel.from_base(str(base), config, []).to(args.device).train()
    total = sum(parameter.numel() for parameter in plain.parameters())
    heads = sum(parameter.numel() for parameter in model.heads.parameters())
    print(f"{os.cpu_count()} CPUs ({platform.machine()}), device {args.device}, torch {torch.__version__}")
    print(f"{total / 1e6:.0f} M parameters, heads {heads / 1e6:.1f} M; batch {BATCH}; {args.rounds} rounds\n")
    print("| what | measured | asked |\n|---|---|---|")
    for kind, seconds, added in measure(model, plain, args.rounds, args.device):
        spread = f"{statistics.median(added):+.1f} % ({min(added):+.1f} - {max(added):+.1f})"
        print(f"| {kind} head added to a step of {seconds:.2f} s | {spread} | {ASKED} |", flush=True)


if __name__ == "__main__":
    main()
