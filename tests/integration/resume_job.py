"""Ranks of the stub's phase in processes of their own, which can be killed at any point."""

from __future__ import annotations

import faulthandler
import json
import multiprocessing
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from tests.unit.train.stub import StubBatch, StubBatches, build_stub, stub_recipe
from tpo_core.storage import uri as uris
from tpo_core.train.phase import PhaseJob, run_rank

DEADLINE_S = 240.0
STACKS_AFTER_S = 200.0  # a rank that hangs tells where, before it is given up
PROCESSES = multiprocessing.get_context("forkserver")  # torch and DeepSpeed are imported once and not by each of them
PROCESSES.set_forkserver_preload(["tests.integration.preloaded"])


@dataclass(frozen=True)
class Kill:
    """`kill -9` of a rank: before or after its `call`-th call (from 1 on) of a function of the storage, or `after_s`
    from its first step on."""

    rank: int = 0
    function: str = ""
    call: int = 0
    after: bool = False
    after_s: float | None = None


@dataclass(frozen=True)
class Setting:
    """A phase. step_s: how long a step waits, so that a kill finds one. env: for its processes."""

    output: Path
    world: int = 1
    strategy: str = "ddp"
    dropout: bool = True
    step_s: float = 0.0
    uri: str | None = None
    env: dict[str, str] = field(default_factory=dict)

    @property
    def job(self) -> PhaseJob:
        recipe = stub_recipe(checkpoint_uri=self.uri, strategy=self.strategy)
        phase = recipe.stages["vision_task"].phases[0]
        return PhaseJob(
            recipe=recipe, stage_name="vision_task", phase=phase, shards_uri="", init_uri="", output=self.output
        )

    def log(self, rank: int) -> Path:
        """The ids of the samples of each step that a rank was given, as JSON lines."""
        return self.output / f"ids-{self.strategy}-{self.world}-{rank}.jsonl"


class Logged:
    """The stub's batches, whose sample ids are written down."""

    def __init__(self, inner: StubBatches, setting: Setting, rank: int, kill: Kill | None) -> None:
        self.inner, self.setting, self.rank, self.kill, self.counts = inner, setting, rank, kill, inner.counts

    def step(self, step: int) -> Iterator[StubBatch]:
        if self.kill is not None and self.kill.after_s is not None and self.rank == self.kill.rank:
            threading.Timer(self.kill.after_s, die).start()
            self.kill = None
        time.sleep(self.setting.step_s)
        batches = list(self.inner.step(step))
        with self.setting.log(self.rank).open("a") as file:
            file.write(json.dumps({"step": step, "ids": [batch.sample_ids for batch in batches]}) + "\n")
        yield from batches

    def close(self) -> None:
        self.inner.close()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def build(setting: Setting, kill: Kill | None, job: PhaseJob, strategy: Any) -> tuple[Any, Logged]:
    model, batches = build_stub(job, strategy)
    if not setting.dropout:  # it is drawn by rank, so that another number of ranks draws other noise
        model.adapter[2].p = 0.0
    return model, Logged(batches, setting, strategy.rank, kill)


def arm(kill: Kill) -> None:
    """Have this process die at a call of a storage function."""
    inner, calls = getattr(uris, kill.function), iter(range(1, 1_000_000))

    def counted(*args: Any) -> Any:
        last = next(calls) == kill.call
        if last and not kill.after:
            die()
        result = inner(*args)
        if last:
            die()
        return result

    setattr(uris, kill.function, counted)


def run_here(setting: Setting, rank: int, rendezvous: str, kill: Kill | None) -> None:
    os.environ.update({"GLOO_SOCKET_IFNAME": "lo", **setting.env})
    torch.set_num_threads(1)
    faulthandler.dump_traceback_later(STACKS_AFTER_S)
    if kill is not None and kill.function and kill.rank == rank:
        arm(kill)
    if setting.world > 1:
        dist.init_process_group("gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=setting.world)
    run_rank(
        setting.job, build=partial(build, setting, kill), device=torch.device("cpu"), open_sink=NoSink,
        report=lambda row: None,
    )  # fmt: skip


class NoSink:
    def log_metrics(self, metrics: dict[str, float], step: int) -> None:
        """The history has it."""

    def close(self, status: str) -> None:
        """Nothing."""


def attempt(setting: Setting, kill: Kill | None = None) -> bool:
    """Run all ranks until they end, or one dies: then all others are killed. Whether the phase was finished."""
    setting.output.mkdir(parents=True, exist_ok=True)
    rendezvous = str(setting.output.parent / f"rendezvous-{uuid.uuid4().hex}")
    ranks = [PROCESSES.Process(target=run_here, args=(setting, r, rendezvous, kill)) for r in range(setting.world)]
    for each in ranks:
        each.start()
    end = time.monotonic() + DEADLINE_S
    try:
        while not any(each.exitcode for each in ranks):
            left = [each.sentinel for each in ranks if each.exitcode is None]
            if not left:
                break
            assert wait(left, end - time.monotonic()), "a rank hangs"
    finally:
        for each in ranks:
            each.kill()
            each.join()
    died = [each.exitcode for each in ranks if each.exitcode]
    assert died == [] or kill is not None, f"ranks ended with {died}"
    return setting.job.summary.exists()


def samples(*settings: Setting) -> dict[int, list[list[str]]]:
    """The ids of each step by micro-batch, over all ranks in their order; every time a step was run they are equal."""
    found: dict[int, list[list[str]]] = {}
    for setting in settings:
        by_rank = [_rows(setting.log(rank)) for rank in range(setting.world)]
        for step in set.intersection(*(set(rows) for rows in by_rank)):
            parts = zip(*(rows[step] for rows in by_rank), strict=True)  # of each micro-batch, one a rank
            micros = [[name for part in micro for name in part] for micro in parts]
            assert found.setdefault(step, micros) == micros
    return found


def _rows(path: Path) -> dict[int, list[list[str]]]:
    rows: dict[int, list[list[str]]] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        row = json.loads(line)
        assert rows.setdefault(row["step"], row["ids"]) == row["ids"]
    return rows


def elsewhere(setting: Setting, **changes: Any) -> Setting:
    """The same phase carried out in another way."""
    return replace(setting, **changes)
