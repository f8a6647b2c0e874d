"""Runs a phase on a Ray cluster. The only file that imports ray.train.

Ray Train V2 starts the workers, notices a dead one and starts the group again; our own checkpoints (checkpoint.py)
decide where it continues. They are not handed to Ray: its controller forgets a checkpoint reported less than a health
check before a kill, and a checkpoint that only Ray's run directory knows is lost when the whole job is killed.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch

from tpo_core.config.schema import PhaseConfig, Recipe
from tpo_core.errors import TpoError
from tpo_core.storage.local import disk_full_told
from tpo_core.train.build import build_phase
from tpo_core.train.loop import Row
from tpo_core.train.phase import Builder, MetricSink, NoSink, PhaseJob, run_rank
from tpo_core.train.progress_line import Follower, row_line
from tpo_core.train.stages import PhaseRef

# Ray Train reads these from the driver's environment; what the user has set stays.
RAY_TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",  # 60 by default; an autoscaler needs minutes to bring a GPU node
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # a dead worker and the end of the run are noticed within this
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers stay in the job's working directory
}
CONTROLLER_FAILURES = 3  # infinite by default: a group that can never be placed would be retried for ever


def run_phase(
    recipe: Recipe,
    stage_name: str,
    phase: PhaseConfig,
    *,
    shards_uri: str,
    init_uri: str,
    output: Path,
    open_tracker: Callable[[], MetricSink] | None,
    resume: bool,
    echo: Callable[[str], None] = print,
    build: Builder = build_phase,
) -> dict[str, Any]:
    """Train one phase on the Ray cluster that the caller has initialised.

    init_uri: the base model for the first phase of a recipe, else the `model` folder of the phase before.
    output: a folder that driver and workers share. It gets model/ (the weights to hand on), history.jsonl (one row per
    logged step, loop.make_row), notes.txt and phase.json; checkpoints/ and ray/ while the phase runs.
    open_tracker: called in the worker of rank 0, gives what takes the metrics of each logged row; must be picklable.
    resume: continue from the newest valid checkpoint under `output`, after a kill of any part of the run; False wipes
    what an earlier attempt left there. echo: takes each line meant for a person.

    Returns {steps, samples, seconds, skipped, final: {loss name: mean over the last logged window}}.
    Raises TpoError for what the user can mend, ray.train.TrainingFailedError when workers failed more than
    train.max_failures times.
    """
    job = PhaseJob(
        recipe=recipe,
        stage_name=stage_name,
        phase=phase,
        shards_uri=absolute(shards_uri),
        init_uri=absolute(init_uri),
        output=output.resolve(),
    )
    if not resume:
        for left in (job.summary, job.history, job.notes):
            left.unlink(missing_ok=True)
        for left in (job.model, job.checkpoints, job.output / "ray"):
            shutil.rmtree(left, ignore_errors=True)
    job.output.mkdir(parents=True, exist_ok=True)
    if not job.summary.exists():
        name = PhaseRef(stage_name=stage_name, stage=job.stage, phase=phase).name
        with Follower({job.notes: f"{name}  {{}}".format, job.history: row_line(name)}, echo):
            fit(job, open_tracker, build)
    for scratch in (job.output / "ray", job.checkpoints):  # the phase is complete: they cannot be resumed from
        shutil.rmtree(scratch, ignore_errors=True)
    return json.loads(job.summary.read_text())


def fit(job: PhaseJob, open_tracker: Callable[[], MetricSink] | None, build: Builder) -> None:
    """One Ray Train run, under a name of its own: Ray would silently restore an earlier run of the same name."""
    for variable, value in RAY_TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    config = job.recipe.train
    storage = job.output / "ray"
    attempt = len(list(storage.iterdir())) if storage.exists() else 0
    resources = {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker}
    trainer = ray.train.torch.TorchTrainer(
        partial(train_worker, job, open_tracker or NoSink, build),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.workers,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker={name: amount for name, amount in resources.items() if amount > 0},
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]  # ray.train shows type checkers the V1 classes
            name=f"attempt-{attempt}",
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(  # type: ignore[call-arg]
                max_failures=config.max_failures, controller_failure_limit=CONTROLLER_FAILURES
            ),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise user_error(error, job) or error from None


def train_worker(job: PhaseJob, open_sink: Callable[[], MetricSink], build: Builder) -> None:
    """What each Ray Train worker runs."""
    config = job.recipe.train
    # Ray sets OMP_NUM_THREADS=1 for a worker that reserves less than two CPUs.
    torch.set_num_threads(config.torch_threads or max(1, (os.cpu_count() or 1) // config.workers))

    def report(row: Row) -> None:
        ray.train.report(row)  # a barrier for all ranks: the only call site, reached by all at the same steps

    # Told here, where the errno is known and the disk is: Ray passes on an OSError without its errno.
    with disk_full_told(job.output):
        run_rank(
            job,
            build=build,
            device=ray.train.torch.get_device(),
            open_sink=open_sink,
            report=report,
        )


def user_error(error: Exception, job: PhaseJob) -> TpoError | None:
    """The TpoError behind a failed run, if a worker raised one or the cluster had no room for the workers."""
    if isinstance(error, ray.train.WorkerGroupError):
        for failure in error.worker_failures.values():
            cause = getattr(failure, "_base_exc", failure)  # Ray wraps what a worker raised
            if isinstance(cause, TpoError):
                return cause
    if isinstance(error, ray.train.ControllerError) and "Startup" in type(error.controller_failure).__name__:
        config, held = job.recipe.train, ray.cluster_resources()
        return TpoError(
            f"Ray found no room for train.workers={config.workers} x (CPU {config.cpus_per_worker:g},"
            f" GPU {config.gpus_per_worker:g}): the cluster has CPU {held.get('CPU', 0):g}, GPU {held.get('GPU', 0):g};"
            " free some or ask for less"
        )
    return None


def absolute(uri: str) -> str:
    """A relative path of the driver made absolute, because workers may run elsewhere; anything else as it is."""
    return str(Path(uri).resolve()) if "://" not in uri and Path(uri).exists() else uri
