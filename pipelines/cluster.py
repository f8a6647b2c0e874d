"""with connect(recipe): the Ray that a pipeline runs on, quiet enough to read its own lines.

Inside a submitted job that is the job's cluster; otherwise a local Ray is started for the run and ended after it.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.queue import Queue

from tpo_core.config.schema import Recipe, TrainConfig
from tpo_core.errors import TpoError
from tpo_core.execution.messages import one_line

# Rooms log through Ray's workers too; what matters reaches the reader as a step's own line.
QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONWARNINGS": "ignore",
}

SHOW_EVERY_S = 1.0
ANSWER_WITHIN_S = 5.0
ROOM_WAIT_S = 1200.0  # as long as training waits in all: four times the 300 s of ray_trainer


@contextmanager
def connect(recipe: Recipe) -> Iterator[None]:
    """Joins the cluster of RAY_ADDRESS (a submitted job has one) or starts a local one with this machine's CPUs.

    Raises TpoError when no cluster answers at RAY_ADDRESS.
    """
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    joined = joins()
    try:
        if joined:
            knock(os.environ["RAY_ADDRESS"])
        ray.init(
            address="auto" if joined else "local",
            include_dashboard=None if joined else False,
            logging_level=logging.ERROR,
            log_to_driver=False,
            runtime_env={"env_vars": {key: os.environ[key] for key in QUIET}},
        )
    except (OSError, ValueError, RuntimeError) as error:  # what Ray raises for an address, by how it is wrong
        if not joined:
            raise
        raise TpoError(
            f"no Ray at RAY_ADDRESS={os.environ['RAY_ADDRESS']} ({one_line(error)}): unset it to run on this machine,"
            " or set it to HOST:PORT of a Ray head that runs (6379 unless it was given another port)"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def joins() -> bool:
    """Whether a cluster is joined and not started here. Ray, too, takes an empty RAY_ADDRESS for none."""
    return bool(os.environ.get("RAY_ADDRESS"))


def knock(address: str) -> None:
    """OSError when nobody listens at `address`: Ray itself goes on trying for 14 minutes (measured, 2.60)."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:  # "auto" and URIs are left to Ray
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_WITHIN_S).close()


def on_cluster(jobs: Sequence[Callable[..., Any]], config: TrainConfig, echo: Callable[[str], None]) -> list[Any]:
    """Runs jobs as Ray tasks side by side, each with the GPUs of a training worker and one CPU; results in order.

    A job is called with `threads` and `echo`; what it echoes is shown while it runs. Raises TpoError when a job does,
    and when the cluster has no node that is large enough for one.
    """
    lines = Queue(actor_options={"num_cpus": 0})

    @ray.remote(num_cpus=1, num_gpus=config.gpus_per_worker, max_retries=config.max_failures)
    def run(job: Callable[..., Any], lines: Queue) -> Any:
        return job(threads=1, echo=lines.put)

    pending = [run.remote(job, lines) for job in jobs]
    wait_for_room({"CPU": 1.0, "GPU": config.gpus_per_worker}, echo)
    waiting = list(pending)
    try:
        while waiting:
            done, waiting = ray.wait(waiting, timeout=SHOW_EVERY_S)
            for line in lines.get_nowait_batch(lines.qsize()):
                echo(line)
            ray.get(done)  # what failed ends it now, not when the others are through
    except RayTaskError as error:
        if isinstance(error.cause, TpoError):
            raise error.cause from None  # Ray's own says it in the last line of the worker's traceback
        raise
    lines.shutdown()
    return ray.get(pending)


def wait_for_room(demand: dict[str, float], echo: Callable[[str], None]) -> None:
    """Returns when a node is large enough for `demand`, busy or not; TpoError when there is none.

    A Ray of our own gets no further nodes. A cluster that was joined may have an autoscaler, which no public call of
    Ray tells; its GPU nodes appear some minutes after work for them is pending. So there it is said, and waited for.
    """
    deadline_s, told = time.monotonic() + (ROOM_WAIT_S if joins() else 0), False
    asked = " and ".join(f"{amount:g} {name}" for name, amount in demand.items() if amount)
    while not any(fits(demand, node["Resources"]) for node in ray.nodes() if node["Alive"]):
        if time.monotonic() >= deadline_s:
            held = ray.cluster_resources()
            raise TpoError(
                f"Ray found no room for an evaluation, {asked} (train.gpus_per_worker) on one node: the cluster has"
                f" {held.get('CPU', 0):g} CPU, {held.get('GPU', 0):g} GPU in all; ask for less or add such a node"
            )
        if not told:
            echo(f"no node has {asked} yet: waiting up to {ROOM_WAIT_S / 60:.0f} min for an autoscaler to bring one")
            told = True
        time.sleep(SHOW_EVERY_S)


def fits(demand: dict[str, float], resources: dict[str, float]) -> bool:
    """Whether a node of these resources is large enough."""
    return all(resources.get(name, 0.0) >= amount for name, amount in demand.items())
