"""Runs a phase on a Ray cluster. The only file that imports ray.train.

Ray Train V2 starts the workers, notices a dead one and starts the group again; our own checkpoints (checkpoints/)
decide where it continues. They are not handed to Ray: its controller forgets a checkpoint reported less than a health
check before a kill, and a checkpoint that only Ray's run directory knows is lost when the whole job is killed.
"""

import logging
import math
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import ray.train.torch
import torch
from ray.train.v2._internal.execution.context import get_train_context

from tpo_core.config.nodes import group_resources
from tpo_core.config.schema import PhaseConfig, Recipe
from tpo_core.errors import RunFailedError, StorageTroubleError, TpoError, in_one_line
from tpo_core.storage.local import disk_full_told
from tpo_core.storage.uri import delete, join, read_json
from tpo_core.train.build import build_phase
from tpo_core.train.checkpoints.retention import Retention, drop_ephemeral
from tpo_core.train.desk import Desk
from tpo_core.train.exchange import Keeper, collect, deliver, is_delivered, output_here, pull, put_stacks
from tpo_core.train.gave_up import gave_up
from tpo_core.train.job import PhaseJob
from tpo_core.train.phase import Builder, Surroundings, run_rank
from tpo_core.train.progress_line import Follower, row_line
from tpo_core.train.prometheus import PrometheusSink
from tpo_core.train.room import Room
from tpo_core.train.rows import Row
from tpo_core.train.sinks import FAILED, MetricSink, NoSink, Sinks
from tpo_core.train.stop import WORKER, StopRequest, listen_in_worker, terminate
from tpo_core.train.watchdog import Watchdog, clear, hangs

# Ray Train reads these from the driver's environment; what the user has set stays.
RAY_TRAIN_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "1",  # a dead worker and the end of the run are noticed within this
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # workers stay in the job's working directory
}
# Time to place a group, 60 s by default, and how often that may fail. An autoscaler needs minutes to bring a GPU node;
# by default a group that can never be placed is retried for ever. An elastic run is placed on nodes that are there, or
# that Ray took to be there: it learns only every 20 s (2.60) that one is gone. Room ends the waiting of such a run.
START_TIMEOUT = "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"
FIXED_START_S, FIXED_START_FAILURES = 300, 3
ELASTIC_START_S, ELASTIC_START_FAILURES = 10, -1
LOOK_EVERY_S = 0.5
TORCH_TIMEOUT_S, WEEK_S = 1800, 7 * 86_400


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
    run_id: str = "run",
    exchange: str | None = None,
    collects: bool = True,
    until_step: int | None = None,
    echo: Callable[[str], None] = print,
    build: Builder = build_phase,
) -> dict[str, Any]:
    """Train one phase on the Ray cluster that the caller has initialised.

    init_uri: the base model for the first phase of a recipe, else the `model` folder of the phase before.
    output: a folder that driver and workers share, unless `exchange` is a remote URI: then each machine works in its
    scratch folder, and `output`, of the driver, gets the result at the end, unless `collects` is False; what is below
    `exchange` is to be deleted when the result has been committed. It gets model/ (the weights to hand on),
    history.jsonl (one row per logged step, rows.make_row), notes.txt and phase.json; ray/ while the phase runs, and
    checkpoints/, unless train.checkpoint_uri names another place for them; those to be kept for good stay.
    open_tracker: called in the worker of rank 0, gives what takes the metrics of each logged row; must be picklable.
    resume: continue from the newest valid checkpoint under `output`, after a kill of any part of the run; False wipes
    what an earlier attempt left there. run_id: as of PhaseJob. echo: takes each line meant for a person.
    until_step: end after so many updates, with model and summary of that point; the checkpoint stays, and a call with a
    later end goes on there.

    Returns {steps, samples, seconds, skipped, final: {loss name: mean over the last logged window}}.
    Raises TpoError for what the user can mend and DivergedError, both without trying again. When workers failed more
    than train.max_failures times: what gave_up says of it, else ray.train.TrainingFailedError. SIGTERM, in the main
    thread, ends this process as it would have, once the workers have saved and left, or after train.stop_deadline_s.
    """
    job = PhaseJob(
        recipe=recipe,
        stage_name=stage_name,
        phase=phase,
        shards_uri=absolute(shards_uri),
        init_uri=absolute(init_uri),
        output=output.resolve(),
        run_id=run_id,
        exchange=exchange,
        until_step=until_step,
    )
    if not resume:
        for left in (job.summary, job.history, job.notes):
            left.unlink(missing_ok=True)
        for left in (job.model, job.stacks, job.output / "ray"):
            shutil.rmtree(left, ignore_errors=True)
        for uri in filter(None, (job.checkpoints, job.exchange)):
            delete(uri)
    job.output.mkdir(parents=True, exist_ok=True)
    if not job.finished:
        if job.exchange is None or not is_delivered(job.exchange, until_step):
            run(job, open_tracker or NoSink, build, echo)
        if job.exchange is not None and collects:
            collect(job.exchange, job.output)
    shutil.rmtree(job.output / "ray", ignore_errors=True)
    clear(job.output / "stacks")
    if until_step is None:
        drop_ephemeral(job.checkpoints, Retention.of(recipe.train))
    return read_json(job.summary if collects else join(job.handed_over, job.summary.name))


def run(job: PhaseJob, open_sink: Callable[[], MetricSink], build: Builder, echo: Callable[[str], None]) -> None:
    """Fit until the phase is finished; workers that were asked to stop are started again, as often as it takes."""
    config = job.recipe.train
    room = room_for(job.recipe, echo)
    room.there()  # what can never be is said now; an autoscaler waits for the run to ask
    desk = Desk()
    worker = partial(train_worker, job, open_sink, build, desk)
    try:
        with listening(config.stop_deadline_s) as stop:
            while not fit(job, worker, desk, stop, room, echo) and not stop.asked:
                echo(f"{job.name}  workers were asked to stop, and have left: starting them again")
    except Exception:  # told to the sink by a worker only where that one lived to do so
        if trouble := open_sink().close(FAILED):
            echo(f"{job.name}  {trouble}")
        raise
    finally:
        desk.clear()
    if stop.asked:
        terminate()


@contextmanager
def listening(deadline_s: float) -> Iterator[StopRequest]:
    """The SIGTERM of this process; in another thread than the main one (a Tune trial), none ever comes."""
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    stop.listen(deadline_s, lambda: os.kill(os.getpid(), signal.SIGTERM))
    try:
        yield stop
    finally:
        stop.forget()


def fit(
    job: PhaseJob,
    worker: Callable[[], bool],
    desk: Desk,
    stop: StopRequest,
    room: Room,
    echo: Callable[[str], None],
) -> bool:
    """One Ray Train run; whether it finished the phase. Raises what a worker left at the desk.

    It runs in a thread, so that this one can show what workers say and pass on a request to stop; and because in the
    main thread Ray takes Ctrl-C for a reason to exit with status 0.
    """
    done: Future[ray.train.Result] = Future()

    def go() -> None:
        try:
            with environment(job):
                done.set_result(trainer(job, worker).fit())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=go, name="fit", daemon=True).start()
    asked = False
    while not wait([done], LOOK_EVERY_S).done:
        for line in desk.take():
            echo(line)
        if stop.asked and not asked:
            asked = True
            desk.stop()
        room.there()  # Ray waits without a limit for the nodes that an elastic run needs at least
    for line in desk.take():
        echo(line)
    try:
        finished = done.result().return_value  # type: ignore[attr-defined]
    except ray.train.TrainingFailedError as error:
        failures = getattr(error, "worker_failures", {})
        raise desk.failed() or no_room(error, job) or gave_up(failures, job) or error from None
    if (left := desk.failed()) is not None:  # then the group that Ray started again did nothing
        raise left
    return finished


@contextmanager
def environment(job: PhaseJob) -> Iterator[None]:
    """What Ray Train reads when a run starts."""
    start_s = FIXED_START_S if isinstance(job.recipe.train.workers, int) else ELASTIC_START_S
    wanted = {**RAY_TRAIN_ENVIRONMENT, START_TIMEOUT: str(start_s)}
    added = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def trainer(job: PhaseJob, worker: Callable[[], bool]) -> ray.train.torch.TorchTrainer:
    """A run under a name of its own: Ray would silently restore an earlier run of the same name."""
    logging.getLogger("ray.train").setLevel(logging.WARNING)
    config = job.recipe.train
    storage = job.output / "ray"
    attempt = len(list(storage.iterdir())) if storage.exists() else 0
    return ray.train.torch.TorchTrainer(
        worker,  # type: ignore[arg-type]
        torch_config=StoppableTorch(config.stop_deadline_s, config.hang_timeout_s),
        scaling_config=ray.train.ScalingConfig(  # type: ignore[call-arg]  # type checkers are shown the V1 classes
            num_workers=config.workers,  # type: ignore[arg-type]
            elastic_resize_monitor_interval_s=config.resize_interval_s,
            use_gpu=config.gpus_per_worker > 0,
            resources_per_worker=resources(job.recipe),
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg]
            name=f"attempt-{attempt}",
            storage_path=str(storage),
            failure_config=ray.train.FailureConfig(  # type: ignore[call-arg]
                max_failures=config.max_failures,
                controller_failure_limit=FIXED_START_FAILURES
                if isinstance(config.workers, int)
                else ELASTIC_START_FAILURES,
            ),
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )


def resources(recipe: Recipe) -> dict[str, float]:
    """What a worker reserves."""
    config = recipe.train
    each = {"CPU": config.cpus_per_worker, "GPU": config.gpus_per_worker}
    return {name: amount for name, amount in each.items() if amount > 0} | group_resources(recipe.nodes.train)


class StoppableBackend(ray.train.torch.TorchConfig().backend_cls):  # type: ignore[misc]
    """Also has the main thread of each worker take SIGTERM: training runs in another thread, which cannot."""

    def on_start(self, worker_group: Any, backend_config: "StoppableTorch") -> None:
        super().on_start(worker_group, backend_config)
        worker_group.execute(listen_in_worker, backend_config.stop_deadline_s)


def collective_timeout_s(hang_timeout_s: float | None) -> int:
    """How long a rank waits for the others in a collective: longer than it takes the watchdog to find who hangs, and
    never less than torch's own half hour, which a slow storage may need."""
    return WEEK_S if hang_timeout_s is None else max(TORCH_TIMEOUT_S, math.ceil(hang_timeout_s) + 60)


class StoppableTorch(ray.train.torch.TorchConfig):
    """Sets up torch's process group, and the answer to SIGTERM."""

    def __init__(self, stop_deadline_s: float, hang_timeout_s: float | None) -> None:
        super().__init__(timeout_s=collective_timeout_s(hang_timeout_s))
        self.stop_deadline_s = stop_deadline_s

    @property
    def backend_cls(self) -> type:
        return StoppableBackend


class Watched(Surroundings):
    """A rank under a watchdog, in a process that SIGTERM, the driver or a node that is drained may ask to stop."""

    def __init__(self, watchdog: Watchdog, keeper: Keeper | None) -> None:
        self.watchdog, self.keeper = watchdog, keeper

    def timed(self) -> AbstractContextManager[None]:
        return self.watchdog.timed()

    def untimed(self) -> AbstractContextManager[None]:
        return self.watchdog.untimed()

    def alive(self) -> None:
        self.watchdog.alive()

    def stops(self) -> bool:
        return WORKER.asked or drained()

    def keep(self) -> None:
        if self.keeper is not None:
            self.keeper.keep()


def drained() -> bool:
    """Whether a node of the group is about to be taken away, as far as this rank was told. What `get_preemption_info`
    adds is a round over all ranks, too much for each step, in which they agree on stopping anyway."""
    return get_train_context().preemption_context.preemption_info is not None


def train_worker(job: PhaseJob, open_sink: Callable[[], MetricSink], build: Builder, desk: Desk) -> bool:
    """What each Ray Train worker runs; whether the phase is finished. An error that would come again it leaves at the
    desk before Ray learns of it; Ray starts the group anew all the same, which then does nothing. A storage in trouble
    may be well again at the next attempt."""
    if desk.failed() is not None:
        return False
    try:
        return train_rank(job, open_sink, build, desk)
    except StorageTroubleError:
        raise
    except (TpoError, RunFailedError) as error:
        desk.fail(error)
        raise


def train_rank(job: PhaseJob, open_sink: Callable[[], MetricSink], build: Builder, desk: Desk) -> bool:
    """The phase in a worker's process, watched and followed, on whatever machine that is."""
    config, context = job.recipe.train, ray.train.get_context()
    if job.exchange is not None:
        job = replace(job, output=output_here(job.exchange))
    # Ray sets OMP_NUM_THREADS=1 for a worker that reserves less than two CPUs.
    torch.set_num_threads(config.torch_threads or max(1, (os.cpu_count() or 1) // context.get_local_world_size()))
    rank = context.get_world_rank()
    desk.pass_on(WORKER)
    for path in hangs(job.stacks):
        where = path if job.exchange is None else put_stacks(job.exchange, path)
        desk.tell(f"{job.name}  a worker hung and was ended; where it was: {where}")

    keeper = None if job.exchange is None else Keeper(job.exchange, job.output)

    def report(row: Row) -> None:
        ray.train.report(row)  # a barrier for all ranks: the only call site, reached by all at the same steps

    # Told here, where the errno is known and the disk is: Ray passes on an OSError without its errno.
    with disk_full_told(job.output), Watchdog(job.stacks, rank, config.hang_timeout_s) as watchdog:
        if job.exchange is not None and rank == 0:
            pull(job.exchange, job.output)
        with told(job, rank, desk):
            finished = run_rank(
                job,
                build=build,
                device=ray.train.torch.get_device(),
                open_sink=lambda: Sinks([open_sink(), PrometheusSink(job.name)]),
                report=report,
                outside=Watched(watchdog, keeper),
            )
        if job.exchange is not None and rank == 0 and finished:
            deliver(job.exchange, job.output)
    return finished


def told(job: PhaseJob, rank: int, desk: Desk) -> AbstractContextManager[object]:
    """The driver is told what rank 0 writes to notes and history, and why another rank fails: rank 0 sees no more of
    that than a closed connection."""
    if rank:
        return told_failure(job, rank, desk)
    return Follower({job.notes: f"{job.name}  {{}}".format, job.history: row_line(job.name)}, desk.tell)


@contextmanager
def told_failure(job: PhaseJob, rank: int, desk: Desk) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        desk.tell(f"{job.name}  rank {rank} failed: {in_one_line(error)}")
        raise


def room_for(recipe: Recipe, echo: Callable[[str], None]) -> Room:
    """The room that training needs at least."""
    remedy = "ask for fewer or smaller ones (train.cpus_per_worker, train.gpus_per_worker), or add nodes"
    return Room(recipe.train.least_workers, resources(recipe), "train.workers", remedy, echo)


def no_room(error: Exception, job: PhaseJob) -> TpoError | None:
    """What to tell of a run that failed because the cluster had no room for the workers, if that was it."""
    if isinstance(error, ray.train.ControllerError) and "Startup" in type(error.controller_failure).__name__:
        short = room_for(job.recipe, print)
        return TpoError(f"{short.shortage()}, in use by others or too small: free some, or {short.remedy}")
    return None


def absolute(uri: str) -> str:
    """A relative path of the driver made absolute, because workers may run elsewhere; anything else as it is."""
    return str(Path(uri).resolve()) if "://" not in uri and Path(uri).exists() else uri
