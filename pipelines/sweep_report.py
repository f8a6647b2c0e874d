"""from pipelines.sweep_report import write_outputs: the files that a sweep leaves, and its run in MLflow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import yaml

from tpo_core.config.schema import Recipe, identity
from tpo_core.storage.uri import write_json
from tpo_core.tracking.sweep import SweepRuns, in_words
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
    unit, by_rung = costs(recipe, outcome)
    metrics = {f"{unit.replace('-', '_')}/{rung}": spent for rung, spent in by_rung.items()}
    metrics |= {"idle_share": outcome.idle_share(), "start_up_share": outcome.start_up_share()}
    if won is not None:
        metrics |= {f"winner/{name}": value for name, value in outcome.objective.values(won.metrics).items()}
        metrics |= {f"winner/weight/{name}": weight for name, weight in won.weights.items()}
    note, tags = told(recipe, outcome)
    files = [folder / name for name in (BEST, REPORT, NUMBERS, PARALLEL, PARETO) if (folder / name).exists()]
    if lost := runs.finish({"sweep": identity(recipe.sweep)}, metrics, files, note, tags):
        echo(lost)


def costs(recipe: Recipe, outcome: Outcome) -> tuple[str, dict[int, float]]:
    """What trials cost by rung, in a unit: seconds of GPUs, where workers have any or a share of one, else of
    workers."""
    spent, each = outcome.worker_seconds(), recipe.train.gpus_per_worker
    if each:
        return "GPU-seconds", {rung: each * amount for rung, amount in spent.items()}
    return "worker-seconds", spent


def warning(outcome: Outcome) -> str | None:
    """A line for when the search has found nothing that was not known before."""
    won, better = outcome.winner(), outcome.unbeaten()
    if won is None or not better:
        return None
    scores = [f"{name} ({outcome.objective.score(outcome.references[name].metrics):.3f})" for name in better]
    return (
        f"no trial beats {', '.join(scores)}: the best one has {outcome.objective.score(won.metrics):.3f}; give the"
        " search more trials or steps, or other bounds, before you train with its weights"
    )


def told(recipe: Recipe, outcome: Outcome) -> tuple[str, dict[str, str]]:
    """The note and the tags of the run of the sweep."""
    assert recipe.sweep is not None
    won = outcome.winner()
    about = f"Loss weights of `{recipe.sweep.stage}`, recipe `{recipe.name}`: {len(outcome.last())} trials."
    if won is None:
        return f"{about} None came to the end and kept `{recipe.sweep.qa_metric}`: no winner.", {}
    said = f"{about} The winner is `{won.trial}` ({in_words(won.weights)}): score"
    said += f" {outcome.objective.score(won.metrics):.3f}, where 1 is as good as all searched weights at 1."
    if (warned := warning(outcome)) is not None:
        said += f" But {warned}."
    tags = {f"winner/weight/{name}": f"{weight:.4g}" for name, weight in won.weights.items()}
    return said, {"winner": won.trial, **tags}


def report(recipe: Recipe, outcome: Outcome) -> list[str]:
    """The table, and what the search itself was like, in markdown."""
    sweep, rungs = recipe.sweep, outcome.rungs
    assert sweep is not None
    last = outcome.last()
    stopped = sum(one.step < rungs[-1] for one in last.values())
    unit, by_rung = costs(recipe, outcome)
    spent = ", ".join(f"{amount:.0f} up to step {rung}" for rung, amount in by_rung.items())
    warned = warning(outcome)
    kept = [
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
        *([f"**Warning**: {warned}.", ""] if warned is not None else []),
        *table(outcome),
        "",
        f"- {unit} of training and measuring in trials: {spent}",
        f"- rank correlation of values at a rung with those in the end: {'; '.join(kept) or 'too few have both'}",
        f"- slots were idle {100 * outcome.idle_share():.0f} % of the {launch.ended_s - launch.began_s:.0f} s of the"
        f" last launch; {100 * outcome.start_up_share():.0f} % of the time of rounds went into waiting for workers and"
        " starting them",
    ]
