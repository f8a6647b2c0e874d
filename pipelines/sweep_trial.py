"""from pipelines.sweep_trial import Trainee: what a trial of a sweep does in a round, wherever Ray Tune has put it."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayTaskError

from tpo_core.config.load import validated
from tpo_core.config.nodes import group_resources
from tpo_core.config.schema import Recipe
from tpo_core.errors import RunFailedError, TpoError, in_one_line
from tpo_core.evaluation.evaluate import evaluate_part
from tpo_core.storage.uri import write_json
from tpo_core.tracking.sweep import SweepRuns, TrialRun
from tpo_core.train.checkpoints.fork import fork
from tpo_core.train.job import PhaseJob
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

    recipe: of trials. folder: shared by all machines; below it trials/NAME has what a trial is made of.
    """

    recipe: Recipe
    stage: str
    phase: str
    shards_uri: str
    init_uri: str
    folder: Path
    runs: SweepRuns

    def __call__(self, order: Order) -> Round:
        """Train and measure. TpoError for what the user can mend; weights under which training diverges are a result,
        without metrics."""
        began_s, home = time.time(), self.folder / "trials" / order.trial
        job = self.job(order, home)
        before_s = self.prepare(order, job)
        failed, metrics, model = None, {}, self.recipe.model.base
        if order.step:
            model = str(job.model)
            try:
                self.train(order, job)
            except RunFailedError as error:
                failed = in_one_line(error)
        measuring_s = time.time()
        if failed is None:
            metrics = self.measure(model, home / f"measured-{order.step}")
        return Round.of(
            order,
            metrics=metrics,
            failed=failed,
            began_s=began_s,
            ended_s=time.time(),
            training_s=max(0.0, trained_s(job) - before_s) if order.step else 0.0,
            measuring_s=time.time() - measuring_s,
            workers=self.recipe.train.most_workers,
        )

    def job(self, order: Order, home: Path) -> PhaseJob:
        """The phase as this trial has it."""
        recipe = with_weights(self.recipe, self.stage, order.weights, order.balance)
        phase = next(each for each in recipe.stages[self.stage].phases if each.name == self.phase)
        return PhaseJob(
            recipe=recipe, stage_name=self.stage, phase=phase, shards_uri=self.shards_uri, init_uri=self.init_uri,
            output=home / "phase", run_id=order.trial, until_step=order.step,
        )  # fmt: skip

    def prepare(self, order: Order, job: PhaseJob) -> float:
        """Have the folder of the trial be of this life of it: with other weights than before, it begins anew, at the
        checkpoint that it is told to. Returns the seconds that were spent in steps before this round."""
        life = job.output.parent / "life.json"
        asked: dict[str, Any] = {"weights": dict(order.weights), "origin": None}
        if order.forks:
            assert order.origin is not None
            asked["origin"] = {"trial": order.origin.trial, "step": order.origin.step}
        held = json.loads(life.read_text()) if life.exists() else None
        if held == asked or (held is not None and not order.forks and held["weights"] == asked["weights"]):
            return trained_s(job)
        aside = job.output.parent / "forked"
        shutil.rmtree(aside, ignore_errors=True)
        spent_s = 0.0
        if order.forks:
            assert order.origin is not None
            source = self.folder / "trials" / order.origin.trial / "phase" / "checkpoints"
            spent_s = fork(str(source), order.origin.step, aside, job.identity).seconds
        shutil.rmtree(job.output, ignore_errors=True)
        if order.forks:
            job.output.mkdir(parents=True)
            aside.rename(job.output / "checkpoints")
        write_json(life, asked)
        return spent_s

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
            open_tracker=TrialRun(self.runs, order.trial),
            resume=True,
            run_id=order.trial,
            until_step=order.step,
            echo=lambda line: None,
        )

    def measure(self, model: str, output: Path) -> dict[str, float]:
        """The metrics of the part that trials are measured on, without its name; in a task beside the trial, which
        itself reserves next to nothing."""
        train = self.recipe.train
        part = self.recipe.evaluation.parts[0]
        threads = train.torch_threads or 1
        job = partial(
            evaluate_part, self.recipe, model, self.shards_uri, part, output, threads=threads, echo=silent
        )  # fmt: skip
        task = ray.remote(job_of).options(
            num_cpus=train.cpus_per_worker,
            num_gpus=train.gpus_per_worker,
            resources=group_resources(self.recipe.nodes.evaluate),
            max_retries=train.max_failures,
            scheduling_strategy="DEFAULT",  # not within the resources of the trial
        )
        try:
            result = ray.get(task.remote(job))
        except RayTaskError as error:
            raise error.cause if isinstance(error.cause, TpoError) else error from None
        return {name.partition("/")[2]: value for name, value in result["metrics"].items()}

    def record(self, one: Round, values: Mapping[str, float]) -> None:
        """The weights, the metrics and what they are worth, in the run of the trial."""
        tracker = TrialRun(self.runs, one.trial)()
        tracker.log_params({"loss_weights": one.weights})
        weights = {f"weight/{name}": weight for name, weight in one.weights.items()}
        tracker.log_metrics({**one.metrics, **values, **weights}, step=one.step)
        tracker.close("FINISHED" if one.failed is None else "FAILED")

    def forget(self, trial: str) -> None:
        """What only serves to go on."""
        shutil.rmtree(self.folder / "trials" / trial / "phase", ignore_errors=True)


def job_of(job: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a Ray task calls: it takes no partial itself."""
    return job()


def silent(line: str) -> None:
    """Nobody follows the evaluation of a trial."""


def trained_s(job: PhaseJob) -> float:
    """Seconds that the phase has spent in steps so far."""
    return json.loads(job.summary.read_text())["seconds"] if job.summary.exists() else 0.0
