"""Searches loss weights with Ray Tune, which this file and schedulers.py alone import.

A trial is a function that reserves next to nothing and asks for one round after another: train up to the next rung,
measure. What it reports goes with a checkpoint that only says where the trial stands; the state of training itself
stays in the folder of the trial. So a scheduler decides while no worker runs, a stopped trial has freed its workers
before, PBT can let one trial go on from the place of another, and an interrupted sweep goes on at the last rung.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import random
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pyarrow.fs
import ray
from ray import tune
from ray.exceptions import RayError, RayTaskError
from ray.tune.search import BasicVariantGenerator, SearchAlgorithm, Searcher
from ray.tune.search.optuna import OptunaSearch

from tpo_core.config.sweep import SweepConfig
from tpo_core.errors import RunFailedError, TpoError, in_one_line
from tpo_core.storage.uri import is_local, join
from tpo_core.tune.objective import Objective
from tpo_core.tune.rounds import Book, Order, Place, Round
from tpo_core.tune.schedulers import MODE, VALUE, domains, scheduler_of
from tpo_core.tune.slots import Slots

NAME, PLACE = "search", "place.json"
PARETO = ["score", "qa"]
# Read by Tune when a search starts. State is written at most once a second: a round takes longer, and what is not in it
# when the process is killed is asked for again.
TUNE_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",  # which prints tables whatever the verbosity
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # trials stay in the job's working directory
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # its own returns from an interrupted search as if it had ended
    "TUNE_GLOBAL_CHECKPOINT_S": "1",
}
STARTUP_FRACTION, LEAST_STARTUP = 1 / 3, 4  # of the trials, drawn before TPE has something to learn from


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a trial has to know; picklable.

    folder: for the state of Tune, a URI that all machines see. driver: what the process of a trial reserves, which only
    waits while its workers train. first: weights to begin with, by loss; none is drawn there. carry_out: trains and
    measures. record: takes each round with its values. forget: called when a trial has ended for good; what it left may
    go. All three run wherever the trial or the driver does.
    """

    config: SweepConfig
    rungs: Sequence[int]
    folder: str
    driver: Mapping[str, float]
    objective: Objective
    first: dict[str, float] | None
    carry_out: Callable[[Order], Round]
    record: Callable[[Round, dict[str, float]], None]
    forget: Callable[[str], None]

    @property
    def book(self) -> Book:
        """Where the rounds of trials are kept."""
        return Book(join(self.folder, "rounds"))

    def reported(self, trial: str) -> list[tuple[int, float]]:
        """The rounds of a trial, as its scheduler hears of them: steps and value."""
        return [(one.step, self.objective.value(one.metrics)) for one in self.book.of(trial)]


def run_references(
    chains: Sequence[Sequence[Order]],
    book: Book,
    carry_out: Callable[[Order], Round],
    side_by_side: int,
    driver: Mapping[str, float],
) -> dict[str, list[Round]]:
    """The rounds of trials that no scheduler decides about, by trial; a chain is the orders of one, each of which goes
    on where the last ended. What is in the book is not carried out again. driver: what a process reserves that does.

    TpoError and RunFailedError as `carry_out` raises them; RunFailedError, too, when its process was lost.
    """
    marks = {name: amount for name, amount in driver.items() if name != "CPU"}
    task = ray.remote(num_cpus=driver["CPU"], resources=marks, max_retries=0)(follow)
    waiting = deque(chain for chain in chains if not has_ended(chain, kept(book, chain)))
    under_way: list[Any] = []
    while waiting or under_way:
        while waiting and len(under_way) < side_by_side:
            under_way.append(task.remote(carry_out, book, waiting.popleft()))
        done, under_way = ray.wait(under_way)
        try:
            ray.get(done)
        except RayError as error:
            raise told(error) or error from None
    return {chain[0].trial: kept(book, chain) for chain in chains}


def follow(carry_out: Callable[[Order], Round], book: Book, chain: Sequence[Order]) -> None:
    """Carry out what the book lacks of a chain."""
    while not has_ended(chain, rounds := kept(book, chain)):
        book.add(carry_out(chain[len(rounds)]))


def kept(book: Book, chain: Sequence[Order]) -> list[Round]:
    """The rounds of a chain that are in the book, from the first one on."""
    found = [book.find(order) for order in chain]
    return [one for one in itertools.takewhile(lambda one: one is not None, found) if one is not None]


def has_ended(chain: Sequence[Order], rounds: Sequence[Round]) -> bool:
    """Whether nothing is left to do: all of it is there, or training failed on the way."""
    return len(rounds) == len(chain) or (len(rounds) > 0 and rounds[-1].failed is not None)


def told(error: Exception) -> TpoError | RunFailedError | None:
    """The line for people in what Ray raises for a process that carried out orders: its own, or that it was lost. None
    for any other exception, which is a bug."""
    cause = error.cause if isinstance(error, RayTaskError) else error
    if isinstance(cause, TpoError | RunFailedError):
        return cause
    if isinstance(cause, RayError) and not isinstance(cause, RayTaskError):
        return RunFailedError(
            f"a process of the sweep was lost ({in_one_line(cause)[:300]}): the same command goes on once the reason is"
            " mended (too little memory is a frequent one)"
        )
    return None


def search(sweep: Sweep, echo: Callable[[str], None]) -> list[Round]:
    """Run all trials, or those that an earlier call with the same folder has not finished; the rounds of all.

    Needs a Ray that the caller has initialised. Raises TpoError when a trial failed by a mistake of the user, and
    RunFailedError when one failed by anything else, once all others have ended: the next call tries it again.
    """
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with environment():
        grid = tuner(sweep, echo).fit()
    causes = [told(error) or getattr(error, "cause", None) or error for error in grid.errors]
    for cause in causes:
        if isinstance(cause, TpoError):
            raise cause
    if causes:
        raise RunFailedError(
            f"{len(causes)} of {len(grid)} trials failed, the same command tries them again: {in_one_line(causes[0])}"
        ) from causes[0]
    results = [grid[place] for place in range(len(grid))]
    known = {result.metrics["trial_id"] for result in results if result.metrics}
    return [one for one in sweep.book.all() if one.trial in known]


@contextmanager
def environment() -> Iterator[None]:
    """What Tune reads; what the user has set stays."""
    added = {name: value for name, value in TUNE_ENVIRONMENT.items() if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


def tuner(sweep: Sweep, echo: Callable[[str], None]) -> tune.Tuner:
    """A new search, or the one in the folder where it was."""
    config = sweep.config
    population = config.scheduler == "pbt"
    slots = Slots(config.concurrent_trials) if population else nullcontext()
    trainable = tune.with_resources(trainable_of(sweep, slots), dict(sweep.driver))
    path, file_system = as_tune_takes(join(sweep.folder, "tune"))
    if tune.Tuner.can_restore(f"{path}/{NAME}", file_system):
        return tune.Tuner.restore(f"{path}/{NAME}", trainable, resume_errored=True, storage_filesystem=file_system)
    random.seed(config.seed)  # PBT draws its changes from both
    np.random.seed(config.seed)
    return tune.Tuner(
        trainable,
        param_space=domains(config) if population else {},
        tune_config=tune.TuneConfig(
            num_samples=config.trials,
            max_concurrent_trials=None if population else config.concurrent_trials,
            search_alg=searcher_of(sweep),
            scheduler=scheduler_of(config, sweep.rungs, sweep.reported),
        ),
        run_config=tune.RunConfig(
            name=NAME,
            storage_path=path,
            storage_filesystem=file_system,
            stop={"step": sweep.rungs[-1]},  # before PBT thinks of one that has come to the end
            verbose=0,
            callbacks=[Teller(sweep, echo)],
        ),
    )


def as_tune_takes(uri: str) -> tuple[str, pyarrow.fs.FileSystem | None]:
    """A path, and the file system that it is of where that is not the local one: ours, which knows the endpoint."""
    if is_local(uri):
        return uri, None
    from tpo_core.storage import s3  # boto3 takes 0.3 s to import, and most runs are local

    return "/".join(s3.split(uri)), s3.file_system()


def trainable_of(sweep: Sweep, slots: AbstractContextManager[None]) -> Callable[[dict[str, Any]], None]:
    """The function that Tune calls with the weights of a trial."""

    def trial(config: dict[str, Any]) -> None:
        name = tune.get_context().get_trial_id()
        weights = {loss: float(config[loss]) for loss in sweep.config.space}
        at = read_place(tune.get_checkpoint())
        for step in sweep.rungs:
            if at is not None and step <= at.step:
                continue
            order = Order(trial=name, weights=weights, step=step, origin=at)
            one = sweep.book.find(order)
            if one is None:
                with slots:
                    one = sweep.carry_out(order)
                sweep.book.add(one)
            values = sweep.objective.values(one.metrics)
            sweep.record(one, values)
            at = Place(trial=name, step=step, weights=weights)
            report(at, values)
            if one.failed is not None:
                return

    return trial


def report(at: Place, values: dict[str, float]) -> None:
    """Tell the scheduler, who may end this process here, and leave a word on where the trial stands."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / PLACE).write_text(json.dumps(asdict(at)))
        tune.report({"step": at.step, **values}, checkpoint=tune.Checkpoint.from_directory(folder))


def read_place(checkpoint: tune.Checkpoint | None) -> Place | None:
    """Where the trial stands that a checkpoint is of."""
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as folder:
        return Place(**json.loads((Path(folder) / PLACE).read_text()))


def searcher_of(sweep: Sweep) -> Searcher | SearchAlgorithm:
    """Where weights come from. PBT takes no searcher beside it but the one that draws from its own space."""
    config = sweep.config
    if config.scheduler == "pbt":
        return BasicVariantGenerator(random_state=config.seed)
    startup = max(LEAST_STARTUP, round(STARTUP_FRACTION * config.trials))
    several = config.search == "tpe_multi"
    return OptunaSearch(
        space={name: optuna.distributions.FloatDistribution(low, high, log=True)
               for name, (low, high) in config.space.items()},
        metric=PARETO if several else VALUE,
        mode=[MODE] * len(PARETO) if several else MODE,
        points_to_evaluate=None if sweep.first is None else [sweep.first],
        sampler=optuna.samplers.RandomSampler(config.seed)
        if config.search == "random"
        else optuna.samplers.TPESampler(seed=config.seed, n_startup_trials=startup),
    )  # fmt: skip


class Teller(tune.Callback):
    """A line for each round, and what a trial left goes when it has ended."""

    def __init__(self, sweep: Sweep, echo: Callable[[str], None]) -> None:
        self.sweep, self.echo = sweep, echo

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """The weights, and what they are worth."""
        ended = sum(each.is_finished() for each in trials)
        weights = "  ".join(f"{name} {result['config'][name]:.3g}" for name in self.sweep.config.space)
        self.echo(
            f"sweep  {trial.trial_id}  {result['step']}/{self.sweep.rungs[-1]}  objective {result[VALUE]:.3f}  qa"
            f" {result['qa']:.3f}  {weights}  ({ended} of {self.sweep.config.trials} trials ended)"
        )

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Nothing will go on from there."""
        self.sweep.forget(trial.trial_id)
