"""The stub model under Ray Train, with slow steps that are noted, and what can go wrong in them."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.distributed as dist

from tests.unit.train.stub import StubBatches, StubModel, build_stub, stub_recipe
from tpo_core.storage import uri as uris
from tpo_core.train.job import PhaseJob
from tpo_core.train.phase import run_rank
from tpo_core.train.ray_trainer import run_phase
from tpo_core.train.sinks import NoSink
from tpo_core.train.strategies.base import Strategy

DEADLINE_S = 240.0


@dataclass(frozen=True)
class Script:
    """What happens in a run. folder: where every rank notes each step that it begins, a file a process.

    pause_s: length of a step. hangs_at: the last rank stands still there, once. full_at: steps whose first checkpoint
    meets a full disk. waits: by step, the size of the group by which ranks of another one wait to be replaced there.
    """

    folder: Path
    pause_s: float = 0.2
    dropout: float = 0.3
    hangs_at: int | None = None
    full_at: tuple[int, ...] = ()
    waits: Mapping[int, int] = field(default_factory=dict)

    def build(self, job: PhaseJob, strategy: Strategy) -> tuple[StubModel, StubBatches]:
        model, batches = build_stub(job, strategy)
        model.adapter[2].p = self.dropout
        inner = batches.step
        self.fill_the_disk()

        def step(number: int):
            made = list(inner(number))
            self.note(number, strategy, [name for micro in made for name in micro.sample_ids])
            time.sleep(self.pause_s)
            if number == self.hangs_at and strategy.rank == strategy.world - 1:
                self.stand_still_once()
            if strategy.world != self.waits.get(number, strategy.world):
                time.sleep(DEADLINE_S)
            return iter(made)

        batches.step = step
        return model, batches

    def note(self, number: int, strategy: Strategy, ids: list[str]) -> None:
        row = {
            "step": number, "rank": strategy.rank, "world": strategy.world, "pid": os.getpid(), "ids": ids,
            "time": time.time(), "scratch": str(uris.scratch_dir()),
        }  # fmt: skip
        with (self.folder / f"{os.getpid()}.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")

    def stand_still_once(self) -> None:
        flag = self.folder / "hung"
        if not flag.exists():
            flag.touch()
            time.sleep(DEADLINE_S)

    def fill_the_disk(self) -> None:
        """In this process only, which is a worker's."""
        put = uris.put_file

        def full(path: Path, uri: str) -> None:
            for step in self.full_at:
                flag = self.folder / f"full-{step}-{os.getpid()}"
                if f"step-{step:08d}" in str(uri) and not flag.exists():
                    flag.touch()
                    raise OSError(errno.ENOSPC, "No space left on device")
            put(path, uri)

        if self.full_at:
            uris.put_file = full


def notes(folder: Path) -> list[dict]:
    """What all ranks of all attempts noted, oldest first."""
    lines = [line for path in folder.glob("*.jsonl") for line in path.read_text().splitlines(keepends=True)]
    return sorted((json.loads(line) for line in lines if line.endswith("\n")), key=lambda row: row["time"])


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def pid_at(folder: Path, step: int, rank: int, *, but: tuple[int, ...] = ()) -> int:
    """The process of a rank once it is at `step` or beyond; `but`: processes that are gone."""
    found: list[int] = []

    def there() -> bool:
        rows = (row for row in notes(folder) if row["step"] >= step and row["rank"] == rank)
        found.extend(row["pid"] for row in rows if row["pid"] not in but)
        return bool(found)

    until(there)
    return found[-1]


def final_ids(folder: Path) -> dict[int, list[str]]:
    """Samples by step, of the last attempt at each."""
    last: dict[int, dict[int, dict]] = {}
    for row in notes(folder):
        ranks = last.setdefault(row["step"], {})
        if any(row["world"] != other["world"] for other in ranks.values()):
            ranks.clear()
        ranks[row["rank"]] = row
    return {step: sorted(name for row in ranks.values() for name in row["ids"]) for step, ranks in last.items()}


def train(output: Path, script: Script, *, exchange: str | None = None, echo=print, **settings) -> dict:
    """The phase of the stub on the Ray that is there."""
    recipe = stub_recipe(**{"cpus_per_worker": 0.4, **settings})
    return run_phase(
        recipe, "vision_task", recipe.stages["vision_task"].phases[0], shards_uri="none", init_uri="none",
        output=output, run_id="chaos", exchange=exchange, open_tracker=None, resume=True, echo=echo,
        build=script.build,
    )  # fmt: skip


def undisturbed(rank: int, world: int, output: Path, script: Script) -> None:
    """One of `world` processes that do the same without Ray."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{output}.meet", rank=rank, world_size=world)
    recipe = stub_recipe(workers=world)
    job = PhaseJob(
        recipe=recipe, stage_name="vision_task", phase=recipe.stages["vision_task"].phases[0], shards_uri="none",
        init_uri="none", output=output,
    )  # fmt: skip
    run_rank(job, build=script.build, device=torch.device("cpu"), open_sink=NoSink, report=lambda row: None)
    if world > 1:
        dist.destroy_process_group()


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
