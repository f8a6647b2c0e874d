"""from pipelines.sweep_trial import Trainee: what a trial of a sweep does in a round, wherever Ray Tune has put it."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayTaskError

from tpo_core.config.load import validated
from tpo_core.config.nodes import group_resources
from tpo_core.config.schema import Recipe
from tpo_core.errors import RunFailedError, TpoError, in_one_line
from tpo_core.evaluation.evaluate import evaluate_part
from tpo_core.storage.commit import forget_copies
from tpo_core.storage.local import to_path
from tpo_core.storage.uri import delete, exists, is_local, join, read_json, write_json
from tpo_core.tracking.sweep import SweepRuns, TrialRun
from tpo_core.train.checkpoints.fork import fork
from tpo_core.train.exchange import SUMMARY, output_here
from tpo_core.train.job import PhaseJob
from tpo_core.train.loop import DivergedError
from tpo_core.train.ray_trainer import START_TIMEOUT, run_phase
from tpo_core.tune.rounds import Order, Round

WAIT_FOR_ROOM_S = "86400"  # of workers: those of other trials end, and the room of all was seen to before


def trial_recipe(recipe: Recipe) -> Recipe:
    """The recipe as trials have it: their steps, workers and requests. TpoError where these do not fit."""
    sweep = recipe.sweep
    assert sweep is not None
    raw = recipe.model_dump()
    phase = next(each for each in raw["stages"][sweep.stage]["phases"] if each["name"] == phase_name(recipe))
    if sweep.steps is not None:
        phase |= {"steps": sweep.steps, "epochs": None}
    raw["train"] |= {
        name: value
        for name, value in (("workers", sweep.workers), ("torch_threads", sweep.torch_threads))
        if value is not None
    }
    raw["train"]["checkpoint_uri"] = None  # they lie where the trial does, and go when it is forgotten
    if sweep.scheduler == "pbt":  # another trial may begin at any rung
        raw["train"]["permanent_checkpoint_every_steps"] = sweep.first_rung_steps
    raw["evaluation"] |= {
        "parts": [sweep.part],
        "gallery_size": 0,
        "timed_requests": 0,
        "limit_per_task": sweep.limit_per_task,
        "limit_by_task": sweep.limit_by_task,
    }
    name = f"recipe {recipe.name}, in trials of the sweep"
    for balance in sweep.baselines:
        raw["stages"][sweep.stage]["balance"] = balance
        validated(Recipe, raw, f"{name}, baseline {balance}", "the recipe")
    raw["stages"][sweep.stage]["balance"] = "fixed"
    return validated(Recipe, raw, name, "the recipe")


def phase_name(recipe: Recipe) -> str:
    """Of the phase that trials train."""
    assert recipe.sweep is not None
    return recipe.sweep.phase_of(recipe.stages).name


def with_weights(recipe: Recipe, stage: str, weights: Mapping[str, float], balance: str) -> Recipe:
    """The recipe with other loss weights in a stage."""
    held = recipe.stages[stage]
    changed = held.model_copy(update={"loss_weights": {**held.loss_weights, **weights}, "balance": balance})
    return recipe.model_copy(update={"stages": {**recipe.stages, stage: changed}})


@dataclass(frozen=True)
class Trainee:
    """Carries out the orders of a sweep; picklable.

    recipe: of trials. folder: a URI that all machines see; below it trials/NAME has what a trial is made of: a folder
    for the life that it leads, phase-N, and life.json, which says of what weights and origin that is, and what time its
    steps had taken when each round began. A trial that is to go on with other weights, or from another's checkpoint,
    begins its next one.
    """

    recipe: Recipe
    stage: str
    phase: str
    shards_uri: str
    init_uri: str
    folder: str
    runs: SweepRuns

    def __call__(self, order: Order) -> Round:
        """Train and measure. Weights under which training diverges are a result, without metrics. TpoError for what the
        user can mend; RunFailedError and Ray's errors for what says nothing of the weights, such as lost workers."""
        began_s = time.time()
        failed, metrics, model, trained_s = None, {}, None, 0.0
        if order.step:
            job, before_s = self.prepare(order)
            model = join(job.handed_over, job.model.name)
            try:
                self.train(order, job)
            except DivergedError as error:
                failed = in_one_line(error)
            trained_s = max(0.0, seconds_of(job) - before_s)
        measuring_s = time.time()
        if failed is None:
            metrics = self.measure(model, join(self.home(order.trial), f"measured-{order.step}"))
        return Round.of(
            order,
            metrics=metrics,
            failed=failed,
            began_s=began_s,
            ended_s=time.time(),
            training_s=trained_s,
            measuring_s=time.time() - measuring_s,
            workers=self.recipe.train.most_workers,
        )

    def home(self, trial: str) -> str:
        """Where everything of a trial is."""
        return join(self.folder, "trials", trial)

    def life(self, trial: str) -> dict[str, Any] | None:
        """The one that the trial leads: its number, weights and origin."""
        mark = self.mark(trial)
        return read_json(mark) if exists(mark) else None

    def mark(self, trial: str) -> str:
        """The file that says which."""
        return join(self.home(trial), "life.json")

    def place(self, trial: str, number: int) -> str:
        """Where a life leaves its phase."""
        return join(self.home(trial), f"phase-{number}")

    def checkpoints(self, trial: str) -> str:
        """Those of the life that a trial leads, which another one may begin at. FileNotFoundError for one without."""
        return join(self.place(trial, read_json(self.mark(trial))["number"]), "checkpoints")

    def job(self, order: Order, life: int) -> PhaseJob:
        """The phase as this trial has it in one of its lives; machines that share no folder get it by an exchange."""
        recipe = with_weights(self.recipe, self.stage, order.weights, order.balance)
        phase = next(each for each in recipe.stages[self.stage].phases if each.name == self.phase)
        place = self.place(order.trial, life)
        shared = is_local(place)
        return PhaseJob(
            recipe=recipe, stage_name=self.stage, phase=phase, shards_uri=self.shards_uri, init_uri=self.init_uri,
            output=to_path(place) if shared else output_here(join(place, "driver")),
            exchange=None if shared else place, run_id=order.trial, until_step=order.step,
        )  # fmt: skip

    def prepare(self, order: Order) -> tuple[PhaseJob, float]:
        """The phase in the life that the order is about, which begins here if the trial led another one; and the
        seconds that were spent in its steps before this round."""
        origin, weights = order.origin if order.forks else None, dict(order.weights)
        begun = None if origin is None else {"trial": origin.trial, "step": origin.step}
        held = self.life(order.trial)
        if held is not None and held["weights"] == weights and begun in (None, held["origin"]):
            job, spent = self.job(order, held["number"]), held.setdefault("before_s", {})
            if str(order.step) not in spent:  # else an attempt was cut off in this round, maybe behind all its steps
                spent[str(order.step)] = seconds_of(job)
                write_json(self.mark(order.trial), held)
            return job, spent[str(order.step)]
        job = self.job(order, number := 0 if held is None else held["number"] + 1)
        delete(self.place(order.trial, number))  # of an attempt that was cut off here
        spent_s = 0.0
        if origin is not None:
            spent_s = fork(self.checkpoints(origin.trial), origin.step, job.checkpoints, job.identity).seconds
        life = {"number": number, "weights": weights, "origin": begun, "before_s": {str(order.step): spent_s}}
        write_json(self.mark(order.trial), life)
        if held is not None:
            delete(self.place(order.trial, held["number"]))
        return job, spent_s

    def train(self, order: Order, job: PhaseJob) -> None:
        """Up to the rung, from wherever the trial stands."""
        os.environ.setdefault(START_TIMEOUT, WAIT_FOR_ROOM_S)
        run_phase(
            job.recipe,
            job.stage_name,
            job.phase,
            shards_uri=self.shards_uri,
            init_uri=self.init_uri,
            output=job.output,
            open_tracker=TrialRun(self.runs, order.trial, order.weights, f"{self.about()}: up to step {order.step}."),
            resume=True,
            run_id=order.trial,
            exchange=job.exchange,
            collects=False,
            until_step=order.step,
            echo=lambda line: None,
        )
        if job.exchange is not None:
            shutil.rmtree(job.output, ignore_errors=True)

    def measure(self, model: str | None, place: str) -> dict[str, float]:
        """The metrics of the part that trials are measured on, without its name; in a task beside the trial, which
        itself reserves next to nothing. None is the base. place: for what is written on the way."""
        train = self.recipe.train
        task = ray.remote(measured).options(
            num_cpus=train.cpus_per_worker,
            num_gpus=train.gpus_per_worker,
            resources=group_resources(self.recipe.nodes.evaluate),
            max_retries=train.max_failures,
            scheduling_strategy="DEFAULT",  # not within the resources of the trial
        )
        try:
            result = ray.get(task.remote(self.recipe, model, self.shards_uri, place))
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, TpoError | RunFailedError) else error from None
        return {name.partition("/")[2]: value for name, value in result["metrics"].items()}

    def record(self, one: Round, values: Mapping[str, float]) -> None:
        """The weights, the metrics and what they are worth, in the run of the trial."""
        came = one.failed or ", ".join(f"{name} {value:.3f}" for name, value in values.items())
        tracker = TrialRun(self.runs, one.trial, one.weights, f"{self.about()}: after step {one.step}, {came}.")()
        tracker.log_params({"loss_weights": one.weights})
        weights = {f"weight/{name}": weight for name, weight in one.weights.items()}
        tracker.log_metrics({**one.metrics, **values, **weights}, step=one.step)
        tracker.close("FINISHED" if one.failed is None else "FAILED")

    def about(self) -> str:
        """How the note of its run begins."""
        return f"A trial of loss weights of `{self.stage}`, recipe `{self.recipe.name}`"

    def forget(self, trial: str) -> None:
        """What only serves to go on."""
        if (life := self.life(trial)) is not None:
            delete(self.place(trial, life["number"]))


def measured(recipe: Recipe, model: str | None, shards_uri: str, place: str) -> dict[str, Any]:
    """What evaluate_part returns, on whichever machine this task landed. What a remote place would have had, and the
    copy of a model that nobody else asks for, go again from there."""
    threads = recipe.train.torch_threads or 1
    output = to_path(place) if is_local(place) else output_here(place)
    asked = recipe.model.base if model is None else model
    result = evaluate_part(recipe, asked, shards_uri, recipe.evaluation.parts[0], output, threads=threads, echo=silent)
    if not is_local(place):
        shutil.rmtree(output)
        if model is not None:
            forget_copies(model)
    return result


def silent(line: str) -> None:
    """Nobody follows the evaluation of a trial."""


def seconds_of(job: PhaseJob) -> float:
    """Seconds that the phase has spent in steps so far."""
    summary = join(job.handed_over, SUMMARY)
    return read_json(summary)["seconds"] if exists(summary) else 0.0
