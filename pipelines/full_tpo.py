"""python pipelines/full_tpo.py --recipe quickstart [key.path=value ...] [--dry-run]

The whole chain: render (of generated data) > preprocess > evaluate_base > task_assignment > vision_task > multitask >
evaluate > register. A step whose result is there already is skipped, one that was cut off goes on where it was; each
says so in one line, with the reason.

On a cluster: ray job submit --working-dir . -- python pipelines/full_tpo.py --recipe mine.yaml data.root=s3://...
"""

import argparse
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.chain import build_chain
from pipelines.checks import check_groups, check_phases, check_places, check_roots, check_workers, check_writable
from pipelines.cluster import connect
from pipelines.gauges import watched
from pipelines.report import print_report
from pipelines.usage import OVERRIDES, RECIPE, STATUSES, echo
from tpo_core.config.load import load_recipe
from tpo_core.execution.cli import main_guard
from tpo_core.execution.runner import run_steps
from tpo_core.execution.steps import select
from tpo_core.tracking.publish import Publisher
from tpo_core.train.stages import phases_of

EPILOG = f"""steps: render, preprocess, evaluate_base, task_assignment, vision_task, multitask, evaluate, register;
STAGE.PHASE where a stage has phases of other names. --dry-run lists those of a recipe.

{STATUSES}"""


def run_chain(argv: Sequence[str], *, doc: str | None, until_step: str | None = None) -> int:
    """Parses, runs the chain (or its beginning, up to `until_step`), prints the table of the evaluation."""
    parser = argparse.ArgumentParser(
        description=doc, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", required=True, help=RECIPE)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)
    parser.add_argument("--dry-run", action="store_true", help="print the graph and what would run; touch nothing")
    parser.add_argument("--from-step", metavar="STEP", help="start here; the steps before that it reads must be done")
    parser.add_argument("--until-step", metavar="STEP", default=until_step, help="stop after this step")
    args = parser.parse_intermixed_args(argv)
    recipe = load_recipe(args.recipe, args.overrides)
    check_places(recipe, recipe.work_uri)
    work = recipe.work_uri if "://" in recipe.work_uri else os.path.abspath(recipe.work_uri)
    steps = build_chain(recipe, Publisher(recipe, work), echo)
    window = {"from_step": args.from_step, "until_step": args.until_step}
    _, chosen = select(steps, **window)  # a mistyped step is refused before a cluster is touched
    check_groups(recipe)
    # Roots are looked at only if they will be read: of data preprocessed once, nothing but the shards need be left.
    there = run_steps(steps, work, dry_run=True, echo=lambda line: None)
    if "preprocess" in there:
        check_phases(recipe, there["preprocess"].uri)
    else:
        check_roots(recipe.data)
    if args.dry_run:
        for step in steps:
            echo(f"{step.name:<16} reads {', '.join(step.inputs) or 'nothing'}")
        run_steps(steps, work, dry_run=True, echo=echo, **window)
        return 0
    began = time.monotonic()
    check_writable(recipe, work)
    with connect(recipe):
        phases = [ref.name for ref in phases_of(recipe)]
        if any(step.name in phases and step.name not in there for step in chosen):
            check_workers(recipe, echo)
        done = run_steps(watched(steps, phases), work, echo=echo, **window)
    if "register" in done:
        print_report(done, echo)
    echo(f"chain ended after {time.monotonic() - began:.0f} s")
    return 0


if __name__ == "__main__":
    main_guard(lambda: run_chain(sys.argv[1:], doc=__doc__))
