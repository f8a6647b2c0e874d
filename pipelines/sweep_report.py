"""from pipelines.sweep_report import write_outputs: the files that a sweep leaves, and its run in MLflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from tpo_core.config.schema import Recipe, identity
from tpo_core.storage.uri import write_json
from tpo_core.tracking.sweep import SweepRuns
from tpo_core.tune.plots import draw_parallel, draw_pareto
from tpo_core.tune.results import Outcome, table

BEST, REPORT, NUMBERS = "best_overrides.yaml", "report.md", "sweep.json"
PARALLEL, PARETO = "parallel.png", "pareto.png"


def write_outputs(
    recipe: Recipe, stage: str, outcome: Outcome, folder: Path, runs: SweepRuns, echo: Callable[[str], None]
) -> None:
    """best_overrides.yaml (where there is a winner), report.md, sweep.json and the two pictures, here and in MLflow."""
    won = outcome.winner()
    if won is not None:
        weights = {f"stages.{stage}.loss_weights.{name}": weight for name, weight in sorted(won.weights.items())}
        (folder / BEST).write_text(yaml.safe_dump(weights))
    write_json(folder / NUMBERS, outcome.to_json())
    draw_parallel(outcome, folder / PARALLEL)
    draw_pareto(outcome, folder / PARETO)
    (folder / REPORT).write_text("\n".join(report(recipe, outcome)) + "\n")
    assert recipe.sweep is not None
    metrics = {f"worker_seconds/{rung}": spent for rung, spent in outcome.worker_seconds().items()}
    metrics |= {"idle_share": outcome.idle_share(), "start_up_share": outcome.start_up_share()}
    if won is not None:
        metrics |= {f"winner/{name}": value for name, value in outcome.objective.values(won.metrics).items()}
        metrics |= {f"winner/weight/{name}": weight for name, weight in won.weights.items()}
    files = [folder / name for name in (BEST, REPORT, NUMBERS, PARALLEL, PARETO) if (folder / name).exists()]
    if lost := runs.finish({"sweep": identity(recipe.sweep)}, metrics, files):
        echo(lost)


def report(recipe: Recipe, outcome: Outcome) -> list[str]:
    """The table, and what the search itself was like, in markdown."""
    sweep, rungs = recipe.sweep, outcome.rungs
    assert sweep is not None
    device = "GPU" if recipe.train.gpus_per_worker else "CPU worker"
    last = outcome.last()
    stopped = sum(one.step < rungs[-1] for one in last.values())
    spent = ", ".join(f"{seconds:.0f} up to step {rung}" for rung, seconds in outcome.worker_seconds().items())
    told = [
        f"step {rung} against {rungs[-1]}: {value:.2f} ({count} trials)"
        for rung, (value, count) in outcome.early_tells_late().items()
    ]
    launch = outcome.launch
    return [
        f"# Loss weights of {sweep.stage}, recipe {recipe.name}",
        "",
        f"{len(last)} trials ({sweep.search}, {sweep.scheduler}), {stopped} of them stopped early; part {sweep.part}."
        f" A score of 1 is as good as all searched weights at 1; {sweep.qa_metric} must not be below"
        f" {outcome.objective.qa_floor:.3f}. Metrics in percent.",
        "",
        *table(outcome),
        "",
        f"- seconds of {device}s in trials: {spent}",
        f"- rank correlation of values at a rung with those in the end: {'; '.join(told) or 'too few have both'}",
        f"- slots were idle {100 * outcome.idle_share():.0f} % of the {launch.ended_s - launch.began_s:.0f} s of the"
        f" last launch; {100 * outcome.start_up_share():.0f} % of the time of rounds went neither into steps nor into"
        " measuring",
    ]
