"""with connect(recipe): the Ray that a pipeline runs on, quiet enough to read its own lines.

Inside a submitted job that is the job's cluster; otherwise a local Ray is started for the run and ended after it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import ray
from ray.util.queue import Queue

from tpo_core.config.schema import Recipe, TrainConfig

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


@contextmanager
def connect(recipe: Recipe) -> Iterator[None]:
    """Joins the cluster of RAY_ADDRESS (a submitted job has one) or starts a local one with this machine's CPUs."""
    os.environ.update({key: value for key, value in QUIET.items() if key not in os.environ})
    submitted = "RAY_ADDRESS" in os.environ
    ray.init(
        address="auto" if submitted else "local",
        include_dashboard=None if submitted else False,
        logging_level=logging.ERROR,
        log_to_driver=False,
        runtime_env={"env_vars": {key: os.environ[key] for key in QUIET}},
    )
    try:
        yield
    finally:
        ray.shutdown()


def on_cluster(jobs: Sequence[Callable[..., Any]], config: TrainConfig, echo: Callable[[str], None]) -> list[Any]:
    """Runs jobs as Ray tasks side by side, each with the GPUs of a training worker and one CPU; results in order.

    A job is called with `threads` and `echo`; what it echoes is shown while it runs.
    """
    lines = Queue(actor_options={"num_cpus": 0})

    @ray.remote(num_cpus=1, num_gpus=config.gpus_per_worker, max_retries=config.max_failures)
    def run(job: Callable[..., Any], lines: Queue) -> Any:
        return job(threads=1, echo=lines.put)

    pending = [run.remote(job, lines) for job in jobs]
    waiting = list(pending)
    while waiting:
        done, waiting = ray.wait(waiting, timeout=SHOW_EVERY_S)
        for line in lines.get_nowait_batch(lines.qsize()):
            echo(line)
        ray.get(done)  # what failed ends it now, not when the others are through
    lines.shutdown()
    return ray.get(pending)
