"""with connect(recipe): the Ray that a pipeline runs on, quiet enough to read its own lines.

Inside a submitted job that is the job's cluster; otherwise a local Ray is started for the run and ended after it.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tpo_core.config.nodes import group_resources
from tpo_core.config.schema import Recipe, TrainConfig
from tpo_core.errors import TpoError
from tpo_core.execution.messages import one_line
from tpo_core.train.room import Room, joins

# Rooms log through Ray's workers too; what matters reaches the reader as a step's own line.
QUIET = {
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "PYTHONWARNINGS": "ignore",
}

REQUIREMENTS = Path(__file__).resolve().parents[1] / "requirements.txt"
SHOW_EVERY_S = 1.0
ANSWER_WITHIN_S = 5.0


@contextmanager
def connect(recipe: Recipe) -> Iterator[None]:
    """Joins the cluster of RAY_ADDRESS (a submitted job has one) or starts a local one with this machine's CPUs.

    Raises TpoError when no cluster answers at RAY_ADDRESS, and when the Ray of this process is not the pinned one.
    """
    check_version()
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    joined = joins()
    try:
        if joined:
            knock(os.environ["RAY_ADDRESS"])
        with own_sigterm():
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
        if str(error).startswith("Version mismatch"):
            raise TpoError(other_versions(str(error))) from error
        raise TpoError(
            f"no Ray at RAY_ADDRESS={os.environ['RAY_ADDRESS']} ({one_line(error)}): unset it to run on this machine,"
            " or set it to HOST:PORT of a Ray head that runs (6379 unless it was given another port)"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def check_version() -> None:
    """TpoError for another Ray than this code pins. In a job that the image of the head runs, driver and cluster always
    agree, so that Ray itself has nothing to refuse. A working directory may have come without the pins."""
    pins = REQUIREMENTS.read_text(encoding="utf-8") if REQUIREMENTS.is_file() else ""
    pinned = re.search(r"^ray(?:\[[\w,]*\])?==([\w.]+)", pins, re.MULTILINE)
    if pinned and pinned[1] != ray.__version__:
        raise TpoError(
            f"this process has Ray {ray.__version__}, and requirements.txt of this code wants {pinned[1]}: build the"
            " image again from this code, or install requirements.txt"
        )


def other_versions(text: str) -> str:
    """What Ray says in six lines of a cluster that runs another Ray or Python, in one."""
    found = re.findall(r"Ray: (\S+)\s+Python: (\S+)", text)
    there, here = (f"Ray {ray_version} on Python {python}" for ray_version, python in found)
    return (
        f"the cluster runs {there}, this process {here}: give both the same image, or install requirements.txt on both"
    )


def decoders(recipe: Recipe) -> dict[str, Any]:
    """Which nodes decode, and how many workers, as arguments of preprocess."""
    return {"cpus": recipe.nodes.decode_workers, "group": recipe.nodes.preprocess}


@contextmanager
def own_sigterm() -> Iterator[None]:
    """Ray puts a handler of its own in place, which exits with status 15 and says nothing."""
    handler = signal.getsignal(signal.SIGTERM)
    yield
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)


def knock(address: str) -> None:
    """OSError when nobody listens at `address`: Ray itself goes on trying for 14 minutes (measured, 2.60)."""
    host, _, port = address.rpartition(":")
    if port.isdigit() and "/" not in host:  # "auto" and URIs are left to Ray
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_WITHIN_S).close()


def on_cluster(
    jobs: Sequence[Callable[..., Any]],
    config: TrainConfig,
    echo: Callable[[str], None],
    *,
    group: str | None = None,
) -> list[Any]:
    """Runs jobs as Ray tasks side by side, each with the GPUs of a training worker and one CPU, on nodes of a group
    (None: any); results in order.

    A job is called with `threads` and `echo`; what it echoes is shown while it runs. Raises TpoError when a job does,
    and when the cluster has no node that is large enough for one.
    """
    # On this node: another one may be taken away, and what was said with it.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    lines = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})

    own = group_resources(group)

    @ray.remote(num_cpus=1, num_gpus=config.gpus_per_worker, resources=own, max_retries=config.max_failures)
    def run(job: Callable[..., Any], lines: Queue) -> Any:
        return job(threads=1, echo=lines.put)

    pending = [run.remote(job, lines) for job in jobs]
    each = ({"CPU": 1.0, "GPU": config.gpus_per_worker} if config.gpus_per_worker else {"CPU": 1.0}) | own
    Room(1, each, "an evaluation", "ask for less (train.gpus_per_worker) or add a node that has it", echo).wait()
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
