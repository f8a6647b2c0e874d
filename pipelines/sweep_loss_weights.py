"""python pipelines/sweep_loss_weights.py --recipe quickstart [key.path=value ...] [--dry-run] [--train-winner]

Searches the loss weights of a stage, as the section `sweep` of the recipe says: the chain of full_tpo.py runs up to the
phase before, which all trials share; then trials train that phase, rung by rung, and are measured after each. What is
finished is skipped, what was cut off goes on: the same command repeats no trial.

What comes of it is in WORK/sweep/<id>: best_overrides.yaml (also in WORK, for full_tpo.py: @WORK/best_overrides.yaml),
report.md, parallel.png, pareto.png, sweep.json; and in MLflow, a run a trial below that of the sweep.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import ray

from pipelines.chain import EVALUATION_VERSION, TRAINING_VERSION, build_chain
from pipelines.checks import check_groups, check_phases, check_places, check_roots, check_writable
from pipelines.cluster import connect
from pipelines.full_tpo import run_chain
from pipelines.sweep_report import BEST, NUMBERS, REPORT, warning, write_outputs
from pipelines.sweep_trial import Trainee, phase_name, trial_recipe
from pipelines.usage import OVERRIDES, RECIPE, STATUSES, echo
from tpo_core.config.load import load_recipe, read_yaml
from tpo_core.config.nodes import group_resources
from tpo_core.config.schema import Recipe, identity
from tpo_core.config.sweep import SweepConfig
from tpo_core.data.shards import ShardSet
from tpo_core.errors import RunFailedError, TpoError
from tpo_core.execution.artifact import Artifact
from tpo_core.execution.cli import main_guard
from tpo_core.execution.runner import run_steps
from tpo_core.execution.steps import Step, StepContext
from tpo_core.storage.uri import absolute, delete, is_local, join, read_json, without_password, write_bytes
from tpo_core.tracking.publish import Publisher
from tpo_core.tracking.sweep import SweepRuns
from tpo_core.train.room import joins
from tpo_core.train.stages import PhaseRef, find_phase
from tpo_core.tune.loss_weights import Sweep, run_references, search
from tpo_core.tune.objective import Objective
from tpo_core.tune.packing import DRIVER, require_room
from tpo_core.tune.results import Launch, Outcome
from tpo_core.tune.rounds import Book, Order, Place, Round

STEP = "sweep"
SWEEP_VERSION = 1  # raise it when the same sweep would measure something else
BASE, UNIT = "base", "unit"


def main(argv: Sequence[str]) -> int:
    """Parses, checks, runs the chain up to the phase before, then the sweep; prints its table and what to do next."""
    args = parse(argv)
    recipe = load_recipe(args.recipe, args.overrides)
    plan = plan_of(recipe)
    work = absolute(recipe.work_uri)
    steps = plan.steps(work)
    there = run_steps(steps, work, dry_run=True, echo=lambda line: None)
    check(plan, there["preprocess"].uri if "preprocess" in there else None)
    if args.dry_run:
        for line in plan.describe():
            echo(line)
        run_steps(steps, work, dry_run=True, echo=echo)
        return 0
    if STEP not in there:
        check_writable(recipe, work)
        with connect(recipe):
            require_cluster(plan.trial)
            there = run_steps(steps, work, echo=echo)
    result = there[STEP]
    clear(result, work)
    echo((result.path / REPORT).read_text())
    if result.result["winner"] is None:
        raise RunFailedError(
            f"no trial came to the end and kept {plan.config.qa_metric} at {result.result['qa_floor']:.3f}: there is no"
            f" {BEST}; raise sweep.qa_tolerance, or search where talk weighs more"
        )
    best = join(work, BEST)
    write_bytes(best, (result.path / BEST).read_bytes())
    if (warned := warning(Outcome.from_json(read_json(result.path / NUMBERS)))) is not None:
        echo(f"{STEP}  warning: {warned}")
    winner = ["--recipe", args.recipe, *args.overrides, *winning(result.path / BEST, best)]
    told = without_password(shlex.join(["python", "pipelines/full_tpo.py", *winner]))
    echo(f"train the winner in full: {told}")
    return run_chain(winner, doc=__doc__) if args.train_winner else 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=STATUSES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", required=True, help=RECIPE)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)
    parser.add_argument("--dry-run", action="store_true", help="print the plan and what would run; touch nothing")
    parser.add_argument("--train-winner", action="store_true", help="run full_tpo.py with the winner in the end")
    return parser.parse_intermixed_args(argv)


def winning(here: Path, best: str) -> list[str]:
    """The winner as overrides: the file, where the next command finds it, else what is in it."""
    if is_local(best):
        return [f"@{best}"]
    return [f"{key}={value}" for key, value in read_yaml(here, "a file of overrides").items()]


def place_of(work: str, fingerprint: str, output: Path) -> str:
    """Where trials are, for all machines: below the output of the step, if they share the work folder."""
    return str(output) if is_local(work) else join(work, "exchange", STEP, fingerprint[:12])


def clear(result: Artifact, work: str) -> None:
    """What only served to go on, and is no part of the result of the sweep."""
    if not is_local(work):
        delete(place_of(work, result.fingerprint, result.path))


@dataclass(frozen=True)
class Plan:
    """A sweep before anything runs. trial: the recipe as trials have it. ref: the phase that they train. tries_own:
    whether the weights of the recipe are the first trial."""

    recipe: Recipe
    trial: Recipe
    ref: PhaseRef
    tries_own: bool = True

    @property
    def config(self) -> SweepConfig:
        """The section `sweep`."""
        assert self.recipe.sweep is not None
        return self.recipe.sweep

    @property
    def rungs(self) -> list[int]:
        """Steps after which a trial is measured."""
        return self.config.rungs(self.ref.phase)

    def steps(self, work: str) -> list[Step]:
        """Those of the chain up to the phase before, and the sweep."""
        chain = build_chain(self.recipe, Publisher(self.recipe, work), echo)
        names = [step.name for step in chain]
        swept = chain[names.index(self.ref.name)]
        needed = [step for step in chain[: names.index(self.ref.name)] if step.name != "evaluate_base"]
        what = {
            **swept.identity,
            "sweep": identity(self.config),
            "evaluation": identity(self.trial.evaluation),
            "versions": [TRAINING_VERSION, EVALUATION_VERSION],
            **({} if self.tries_own else {"tries_own": False}),
        }
        return [*needed, Step(STEP, self.run, what, swept.inputs, SWEEP_VERSION)]

    def describe(self) -> list[str]:
        """What will be tried, in lines."""
        config = self.config
        space = ", ".join(f"{name} {low:g} to {high:g}" for name, (low, high) in config.space.items())
        return [
            f"{config.trials} trials of {self.ref.name}, {config.concurrent_trials} at a time, measured on part"
            f" {config.part} after {', '.join(map(str, self.rungs))} steps; {config.search} and {config.scheduler}",
            f"weights: {space}",
            f"beside them, to the end: all of these at 1{''.join(f', {name}' for name in config.baselines)}",
        ]

    def first(self) -> dict[str, float] | None:
        """The weights of the recipe, if they are to be tried and lie in the space."""
        weights, space = self.ref.stage.loss_weights, self.config.space
        inside = self.tries_own and all(low <= weights[name] <= high for name, (low, high) in space.items())
        return {name: weights[name] for name in space} if inside else None

    def run(self, ctx: StepContext) -> dict[str, Any]:
        """The step: references, then trials, then what came of them. Its run in MLflow fails as it does."""
        publisher = Publisher(self.recipe, absolute(self.recipe.work_uri))
        runs = SweepRuns(
            publisher.uri, self.recipe.tracking.experiment, f"{self.recipe.name} sweep", ctx.fingerprint
        )  # fmt: skip
        runs.begin()
        try:
            return self.search(ctx, runs)
        except Exception:
            if trouble := runs.fail():
                echo(trouble)
            raise

    def search(self, ctx: StepContext, runs: SweepRuns) -> dict[str, Any]:
        """See `run`."""
        config = self.config
        began_s = time.time()
        last = next((name for name in ctx.inputs if name != "preprocess"), None)
        place = place_of(absolute(self.recipe.work_uri), ctx.fingerprint, ctx.output)
        trainee = Trainee(
            self.trial, self.ref.stage_name, self.ref.phase.name, ctx.inputs["preprocess"].uri,
            self.recipe.model.base if last is None else join(ctx.inputs[last].uri, "model"), place, runs,
        )  # fmt: skip
        references = self.references(trainee, place)
        ends = {name: rounds[-1] for name, rounds in references.items()}
        sweep = Sweep(
            config=config,
            rungs=self.rungs,
            folder=place,
            driver=driver_of(self.trial),
            objective=self.objective(ends),
            first=self.first(),
            carry_out=trainee,
            record=trainee.record,
            forget=trainee.forget,
        )
        for name, rounds in references.items():
            for one in rounds:
                trainee.record(one, sweep.objective.values(one.metrics))
            trainee.forget(name)
        rounds = search(sweep, echo)
        outcome = Outcome(
            objective=sweep.objective,
            rungs=self.rungs,
            rounds=rounds,
            references=ends,
            launch=Launch(began_s=began_s, ended_s=time.time(), slots=config.concurrent_trials),
            early=[one for rounds in references.values() for one in rounds[:-1]],
        )
        write_outputs(self.recipe, self.ref.stage_name, outcome, ctx.output, runs, echo)
        delete(join(place, "tune"))
        return {name: value for name, value in outcome.to_json().items() if name not in ("early", "rounds")}

    def references(self, trainee: Trainee, folder: str) -> dict[str, list[Round]]:
        """The base, and the runs with unit weights and with balancers, from rung to rung like trials. RunFailedError
        when that with unit weights failed."""
        config = self.config
        chains = [[Order(trial=BASE, weights={}, step=0)], self.chain(UNIT)]
        chains += [self.chain(name, balance=name) for name in config.baselines]
        echo(f"{STEP}  {', '.join([BASE, UNIT, *config.baselines])}: what trials are compared with")
        book, driver = Book(join(folder, "references")), driver_of(self.trial)
        found = run_references(chains, book, trainee, config.concurrent_trials, driver)
        if (failed := found[UNIT][-1].failed) is not None:
            raise RunFailedError(
                f"the run with all searched weights at 1 failed, which trials are compared with: {failed}"
            )
        return found

    def chain(self, trial: str, balance: str = "fixed") -> list[Order]:
        """The orders of a run with unit weights."""
        unit = dict.fromkeys(self.config.space, 1.0)
        places = [None, *(Place(trial=trial, step=step, weights=unit) for step in self.rungs)]
        return [
            Order(trial=trial, weights=unit, step=step, origin=at, balance=balance)
            for at, step in zip(places, self.rungs, strict=False)
        ]

    def objective(self, references: dict[str, Round]) -> Objective:
        """TpoError for a metric that is not measured."""
        config = self.config
        unit, base = references[UNIT].metrics, references[BASE].metrics
        for name in (*config.metrics, config.qa_metric):
            if name not in unit:
                raise TpoError(f"part {config.part} has no metric {name!r} (sweep); it has {', '.join(sorted(unit))}")
        return Objective(
            metrics=tuple(config.metrics),
            unit=unit,
            qa=config.qa_metric,
            qa_floor=base[config.qa_metric] - config.qa_tolerance,
        )


def plan_of(recipe: Recipe) -> Plan:
    """TpoError when the recipe says nothing of a sweep, or what it says does not fit."""
    if recipe.sweep is None:
        raise TpoError(f"recipe {recipe.name} has no section sweep: say which stage and weights (docs/sweeps.md)")
    try:
        recipe.sweep.require_fit(recipe.stages)
    except ValueError as error:
        raise TpoError(f"recipe {recipe.name}: {error}") from None
    ref = find_phase(recipe, recipe.sweep.stage, phase_name(recipe))
    return Plan(recipe, trial_recipe(recipe), ref)


def check(plan: Plan, shards_uri: str | None) -> None:
    """What can be told before a cluster is touched; TpoError for the first mistake."""
    recipe, sweep = plan.recipe, plan.config
    check_places(recipe, recipe.work_uri)
    check_groups(recipe)
    fed = sorted({source.part for source in recipe.data.sources})
    if sweep.part not in fed:
        raise TpoError(f"sweep.part {sweep.part}: no source feeds it; data.sources feed {', '.join(fed)}")
    if shards_uri is None:
        check_roots(recipe.data)
        return
    check_phases(recipe, shards_uri)
    if sweep.part not in ShardSet.open(shards_uri).parts:
        raise TpoError(f"sweep.part {sweep.part}: the shards at {shards_uri} hold no sample of it")


def driver_of(trial: Recipe) -> dict[str, float]:
    """What the process of a trial reserves, on a node of those that train: a group that works elsewhere may be gone
    when it has nothing to do."""
    return DRIVER | group_resources(trial.nodes.train)


def require_cluster(trial: Recipe) -> None:
    """TpoError when the trials that are to train side by side do not fit. A cluster that was joined may grow."""
    sweep, train = trial.sweep, trial.train
    assert sweep is not None
    each = {"CPU": train.cpus_per_worker, "GPU": train.gpus_per_worker}
    each = {name: amount for name, amount in each.items() if amount} | group_resources(trial.nodes.train)
    alive = sweep.trials if sweep.scheduler == "pbt" else 0
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    try:
        require_room(nodes, sweep.concurrent_trials, train.most_workers, each, alive, driver_of(trial))
    except TpoError as short:
        if not joins():
            raise
        echo(f"{STEP}  {short}; going on, because the cluster may have an autoscaler")


if __name__ == "__main__":
    main_guard(lambda: main(sys.argv[1:]))
