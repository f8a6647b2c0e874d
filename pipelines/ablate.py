"""python pipelines/ablate.py --recipe ablation_quickstart [--rows base,text,TPO] [--seeds 1,2,3] [--equal samples]
    [key.path=value ...]

The table that decides whether task preference optimization is worth it: what heads, kinds of data and conversation each
add, at the same number of optimizer steps (or of samples of each kind), over several seeds. Each (row, seed, phase) is
a step of the chain of full_tpo.py: what is finished is skipped, what was cut off goes on, and what rows share (data,
task assignment) is made once. All rows and seeds that are finished are in the table, which is written anew after each
of them, with what the paper claims and whether it holds.

On a cluster: ray job submit --working-dir . -- python pipelines/ablate.py --recipe ablation_quickstart
work_uri=s3://bucket/ablation --output s3://bucket/ablation/results.md
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from pipelines.ablation_progress import Planned, Progress
from pipelines.ablation_rows import EQUAL, ROWS, Row, changes, choose_rows, require_equal_steps, row_recipe
from pipelines.ablation_table import MARKER, Result, Setting, table, write_results
from pipelines.chain import build_chain
from pipelines.checks import check_groups, check_phases, check_roots, check_workers
from pipelines.cluster import connect
from pipelines.usage import OVERRIDES, RECIPE, STATUSES, echo
from tpo_core.config.load import load_recipe
from tpo_core.config.schema import Recipe
from tpo_core.errors import TpoError
from tpo_core.execution.artifact import Artifact
from tpo_core.execution.cli import main_guard
from tpo_core.execution.runner import run_steps
from tpo_core.execution.steps import Step, StepContext, fingerprints
from tpo_core.storage.uri import absolute
from tpo_core.tracking.publish import Publisher

OUTPUT = {"steps": "docs/results.md", "samples": "docs/results_samples.md"}
EPILOG = f"""rows: {"; ".join(f"{row.name} ({row.label})" if row.name != row.label else row.name for row in ROWS)}.
R, M, T: region, mask, temporal head alone. Names with + need no quotes.

The recipe decides how long each phase is (stages.*.phases.*.steps) and what is asked (evaluation); every kind of data
must be in the mixture of every phase. A row leaves kinds, heads and their rates out and changes nothing else: --dry-run
prints these changes, which full_tpo.py takes as well. What is below the line

    {MARKER}

in --output is kept. The numbers of each row and seed go to a .json beside it.

{STATUSES}"""
EVALUATED = {False: "evaluate_base", True: "evaluate"}  # of a row that is trained, or not
QUIET: Callable[[str], None] = lambda line: None  # noqa: E731


@dataclass(frozen=True)
class Run:
    """A row with one seed, and its steps; the base is one run."""

    row: Row
    seed: int
    recipe: Recipe
    steps: list[Step]

    @property
    def name(self) -> str:
        return f"{self.row.name} seed {self.seed}" if self.row.trains else self.row.name


def main(argv: Sequence[str]) -> int:
    """Parses, plans all rows and seeds, runs those asked for, writes the table."""
    args = parse(argv)
    whole = load_recipe(args.recipe, args.overrides)
    work = absolute(whole.work_uri)
    asked = choose_rows(args.rows)
    runs = [plan(args, row, seed, echo) for row, seed in pairs(args.seeds)]
    steps = require_equal_steps([whole] if args.equal == "samples" else [run.recipe for run in runs])
    wanted = [run for run in runs if run.row in asked]
    check(wanted, work)
    progress = Progress([one for run in wanted for one in planned(run, work)])
    if args.dry_run:
        show_plan(wanted, whole, work, steps, progress, args.equal)
        return 0
    command = shlex.join(["python", "pipelines/ablate.py", *argv])
    with connect(whole):
        if any(run.row.trains and EVALUATED[True] not in found(run, work) for run in wanted):
            check_workers(whole, echo)
        for run in wanted:
            named = [watched(step, key, run, progress) for step, key in keyed(run)]
            run_steps(named, work, echo=lambda line, run=run: echo(f"{run.name:<20}  {line}"))
            tell(runs, work, Setting(command, whole.name, whole.model.base, args.equal, steps), whole, args.output)
    return 0


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--recipe", required=True, help=RECIPE)
    parser.add_argument("overrides", nargs="*", metavar="key.path=value", help=OVERRIDES)
    parser.add_argument("--rows", type=words, default=[row.name for row in ROWS], help="rows to measure; all")
    parser.add_argument("--seeds", type=numbers, default=[1, 2, 3], help="seeds of each row; 1,2,3")
    parser.add_argument(
        "--equal", choices=EQUAL, default=EQUAL[0],
        help="what rows have in common: the optimizer steps of each phase, or the samples of each kind; %(default)s",
    )  # fmt: skip
    parser.add_argument("--output", help=f"path or URI of the table; {OUTPUT[EQUAL[0]]}, or {OUTPUT[EQUAL[1]]}")
    parser.add_argument("--dry-run", action="store_true", help="print rows, steps and what would run; touch nothing")
    args = parser.parse_intermixed_args(argv)
    args.output = args.output or OUTPUT[args.equal]
    return args


def words(text: str) -> list[str]:
    """Names with commas between them."""
    return [word for word in text.split(",") if word]


def numbers(text: str) -> list[int]:
    """Seeds with commas between them. TpoError when one is no whole number, or comes twice."""
    found = words(text)
    if not found or not all(word.isdigit() for word in found) or len(set(found)) < len(found):
        raise TpoError(f"--seeds {text}: give different whole numbers with commas between them, as 1,2,3")
    return [int(word) for word in found]


def pairs(seeds: Sequence[int]) -> list[tuple[Row, int]]:
    """Rows with seeds, in the order in which they run: seed by seed, so that a table with one seed is there early."""
    trained = [(row, seed) for seed in seeds for row in ROWS if row.trains]
    return [(row, seeds[0]) for row in ROWS if not row.trains] + trained


def plan(args: argparse.Namespace, row: Row, seed: int, echo: Callable[[str], None]) -> Run:
    """The steps of a row: those of the chain, without the base's evaluation or with nothing behind it."""
    recipe = row_recipe(args.recipe, args.overrides, row, seed, args.equal)
    steps = build_chain(recipe, Publisher(recipe, absolute(recipe.work_uri)), lambda line: echo(f"{'':<20}  {line}"))
    names = [step.name for step in steps]
    if row.trains:
        return Run(row, seed, recipe, [step for step in steps if step.name not in (EVALUATED[False], "register")])
    return Run(row, seed, recipe, steps[: names.index(EVALUATED[False]) + 1])


def check(runs: Sequence[Run], work: str) -> None:
    """What can be told before a cluster is touched; TpoError for the first mistake."""
    for row in dict.fromkeys(run.row for run in runs):
        check_groups(next(run.recipe for run in runs if run.row == row))
    for run in runs[:1]:
        there = found(run, work)
        if "preprocess" in there:
            check_phases(run.recipe, there["preprocess"].uri)
        else:
            check_roots(run.recipe.data)


def found(run: Run, work: str) -> dict[str, Artifact]:
    """The results of a run that are there."""
    return run_steps(run.steps, work, dry_run=True, echo=QUIET)


def keyed(run: Run) -> list[tuple[Step, str]]:
    """Steps with their fingerprints."""
    prints = fingerprints(run.steps)
    return [(step, prints[step.name]) for step in run.steps]


def planned(run: Run, work: str) -> list[Planned]:
    """What the progress of the table has to know of a run."""
    there = found(run, work)
    return [Planned(key, run.row.name, step.name, step.name in there, took_s(there.get(step.name)))
            for step, key in keyed(run)]  # fmt: skip


def took_s(artifact: Artifact | None) -> float | None:
    """Seconds from the beginning of a step to its end; None where it was cut off in between, or is not done."""
    return None if artifact is None or artifact.provenance["resumed"] else artifact.provenance["seconds"]


def watched(step: Step, key: str, run: Run, progress: Progress) -> Step:
    """The step, which tells where the table stands, and notes on which machine it ran."""

    def fn(ctx: StepContext) -> dict[str, Any]:
        echo(f"{'table':<20}  {progress.before(key)}")
        began_s = time.monotonic()
        result = step.fn(replace(ctx, position=lambda: f"table {progress.within(key)}"))
        if not ctx.resumed:
            progress.finished(key, time.monotonic() - began_s)
        return result | {"machine": machine()}

    return replace(step, fn=fn)


def machine() -> str:
    """The processor of this machine, and how many cores of it there are."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        lines = []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"


def tell(runs: Sequence[Run], work: str, setting: Setting, whole: Recipe, output: str) -> None:
    """Writes the table of all rows that are finished, and prints it."""
    done = [(run, found(run, work)) for run in runs]
    finished = [(run, there) for run, there in done if EVALUATED[run.row.trains] in there]
    results = [result(run, there) for run, there in finished]
    last = finished[0][1][EVALUATED[finished[0][0].row.trains]].result
    parts = [part for part in whole.evaluation.parts if part in last["counts"]]
    setting = replace(setting, requests=last["counts"][parts[0]], parts=parts)
    constant = {name: value for _, there in finished for name, value in baseline(there).items()}
    write_results(output, setting, results, constant)
    for line in table(results, parts[0], constant):
        echo(line)
    echo(f"{len(finished)} of {len(runs)} rows and seeds measured: {output}")


def baseline(there: dict[str, Artifact]) -> dict[str, float]:
    """The best constant answers to the requests of a run."""
    return next(there[name].result["baseline"] for name in EVALUATED.values() if name in there)


def result(run: Run, there: dict[str, Artifact]) -> Result:
    """What was measured of a run."""
    measured = there[EVALUATED[run.row.trains]]
    own = [artifact for name, artifact in there.items() if name not in ("render", "preprocess")]
    return Result(
        row=run.row.name,
        seed=run.seed,
        metrics=measured.result["metrics"],
        seconds=sum(artifact.provenance["seconds"] for artifact in own),
        machine=measured.result["machine"],
        commit=(measured.provenance["commit"] or "unknown")[:12],
    )


def show_plan(
    runs: Sequence[Run], whole: Recipe, work: str, steps: dict[str, int], progress: Progress, equal: str
) -> None:  # fmt: skip
    """The changes of each row, and which steps would run."""
    whose = {"steps": "a row", "samples": "of the row TPO"}[equal]
    echo(f"{sum(steps.values())} optimizer steps {whose}: {', '.join(f'{n} of {name}' for name, n in steps.items())}")
    for row in dict.fromkeys(run.row for run in runs if run.row.trains):
        echo(f"\n{row.name}: {row.label}")
        for change in changes(row, whole, equal):
            echo(f"  {change}")
    echo("")
    seen: set[str] = set()
    for run in runs:
        there = found(run, work)
        told = []
        for step, key in keyed(run):
            verb = "SKIP" if step.name in there else "shared" if key in seen else "RUN"
            told.append(f"{step.name} {verb}")
            seen.add(key)
        echo(f"{run.name:<20}  {', '.join(told)}")
    to_go = progress.before(progress.to_run[0]) if progress.to_run else "nothing"
    echo(f"\n{len(progress.to_run)} steps to run: {to_go}")


if __name__ == "__main__":
    main_guard(lambda: main(sys.argv[1:]))
