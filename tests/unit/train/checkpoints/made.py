"""Checkpointers of the stub model, and a look at what they left."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.unit.train.stub import Run, StubBatches
from tpo_core.storage import uri as uris
from tpo_core.train.checkpoints.checkpointer import Checkpointer
from tpo_core.train.checkpoints.manifest import step_folders
from tpo_core.train.checkpoints.reader import committed
from tpo_core.train.checkpoints.retention import Retention

RUN = {"stage": {"lr": {"lora": 0.01}, "phases": [{"steps": 12}]}, "seed": 0}
TIMES = (
    "samples_per_s", "tokens_per_s", "tflops_per_s", "mfu", "data_wait", "data_wait_s", "memory_bytes", "eta_s",
    "seconds",
)  # fmt: skip


def checkpointer(
    root: str | Path, strategy: Any, *, run: dict | None = None, max_failed: int = 2, lines: list | None = None,
    every: int | None = None, best: int = 0, secure: Callable[[], None] = lambda: None,
) -> Checkpointer:  # fmt: skip
    return Checkpointer(
        str(root), strategy, run=RUN if run is None else run, strategy_name="ddp",
        retention=Retention(permanent_every=every, best=best, metric="total"), max_failed=max_failed,
        secure=secure, tell=(lambda line: None) if lines is None else lines.append,
    )  # fmt: skip


def trained(steps: int) -> Run:
    """The stub after so many steps; the same every time."""
    return Run(steps=steps).train(StubBatches())


def save_at(saver: Checkpointer, run: Run, *steps: int) -> None:
    """Checkpoints that say they are of these steps, each written before the next is begun."""
    for step in steps:
        run.progress.step = step
        saver.save(run.progress)
        saver.wait()


def steps_at(root: str | Path) -> list[int]:
    """The committed ones that can be relied on, oldest first."""
    return [manifest.step for _, manifest in reversed(committed(str(root))) if not isinstance(manifest, str)]


def debris(root: str | Path) -> list[str]:
    """Files below the root that no manifest names."""
    known = {f"{folder}/{name}" for folder, manifest in committed(str(root)) for name in manifest.names}
    found = {f"{folder}/{name}" for folder in step_folders(str(root)).values() for name in uris.list_names(folder)}
    return sorted(found - known)


def comparable(rows: list[dict]) -> list[dict]:
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
