"""python pipelines/compare_sweeps.py --recipe quickstart [--seeds 1,2,3] [--output PATH] [key.path=value ...]

Is the search worth it? For each seed two sweeps, as the recipe says: random weights, each trained to the end, and
TPE with successive halving (ASHA), which begins as many trials as the same optimizer steps pay for. Neither is told the
weights of the recipe, and they draw apart. The table says how many steps the second needed to reach the best of the
first, what it had found when it had taken as many, and how long the workers of each were at it, measuring included. A
sweep is a step of the chain: the same command repeats none that is finished.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.ablate import numbers
from pipelines.checks import check_writable
from pipelines.cluster import connect
from pipelines.sweep_loss_weights import STEP, Plan, check, clear, plan_of, require_cluster
from pipelines.sweep_report import NUMBERS
from pipelines.usage import OVERRIDES, RECIPE, STATUSES, echo
from tpo_core.config.load import load_recipe
from tpo_core.execution.cli import main_guard
from tpo_core.execution.runner import run_steps
from tpo_core.storage.uri import absolute, read_json
from tpo_core.tune.compare import compare, table, trials_of_equal_cost
from tpo_core.tune.plots import draw_climbs
from tpo_core.tune.results import Outcome

RANDOM, HALVING = ("random", "none"), ("tpe", "asha")
APART = 1000  # between the seeds of the two: with the same one TPE would begin with the draws of the random search
NAMES = ("random", "TPE with ASHA")


def main(argv: Sequence[str]) -> int:
    """Parses, checks, runs the sweeps that are not finished, writes and prints the table."""
    args = parse(argv)
    plans = {seed: plans_of(args.recipe, args.overrides, seed) for seed in args.seeds}
    recipe = plans[args.seeds[0]][0].recipe
    work = absolute(recipe.work_uri)
    for pair in plans.values():
        for plan in pair:
            check(plan, None)
    rows = []
    check_writable(recipe, work)
    with connect(recipe):
        for seed, pair in plans.items():
            outcomes = [outcome_of(plan, work) for plan in pair]
            rows.append(compare(seed, outcomes[0], outcomes[1]))
    lines = table(rows, NAMES)
    for line in lines:
        echo(line)
    if args.output is not None:
        args.output.write_text("\n".join(lines) + "\n")
        draw_climbs(rows, NAMES, args.output.with_suffix(".png"))
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=STATUSES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", required=True, help=RECIPE)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)
    parser.add_argument("--seeds", type=numbers, default=[1, 2, 3], help="seeds of the search; 1,2,3")
    parser.add_argument("--output", type=Path, help="file for the table; a picture goes beside it, as .png")
    args = parser.parse_intermixed_args(argv)
    if args.output is not None and args.output.suffix == ".png":
        parser.error(f"--output {args.output}: the table is text, and its picture takes that name: name it .md")
    return args


def plans_of(recipe: str, overrides: Sequence[str], seed: int) -> list[Plan]:
    """The two sweeps of a seed. TpoError as of one sweep."""
    plan_of(load_recipe(recipe, overrides))  # says what is missing where there is no section to override
    first = plan_of(load_recipe(recipe, [*overrides, *ways(RANDOM, seed)]))
    config = first.config
    rungs = plan_of(load_recipe(recipe, [*overrides, *ways(HALVING, seed)])).rungs
    begun = trials_of_equal_cost(config.trials, rungs, config.reduction_factor)
    other = plan_of(load_recipe(recipe, [*overrides, *ways(HALVING, seed + APART), f"sweep.trials={begun}"]))
    return [replace(plan, tries_own=False) for plan in (first, other)]


def ways(way: tuple[str, str], seed: int) -> list[str]:
    """The overrides that make a sweep search in one of the ways, without the balancers, which are not asked about."""
    return [f"sweep.search={way[0]}", f"sweep.scheduler={way[1]}", f"sweep.seed={seed}", "sweep.baselines=[]"]


def outcome_of(plan: Plan, work: str) -> Outcome:
    """What came of a sweep, which is run if it was not."""
    require_cluster(plan.trial)
    result = run_steps(plan.steps(work), work, echo=echo)[STEP]
    clear(result, work)
    return Outcome.from_json(read_json(result.path / NUMBERS))


if __name__ == "__main__":
    main_guard(lambda: main(sys.argv[1:]))
