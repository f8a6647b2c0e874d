"""Pictures of a sweep: every trial as a line through its weights, and tasks against general ability; and of two ways of
searching: what each had found by when."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tpo_core.tune.compare import Comparison
from tpo_core.tune.objective import front
from tpo_core.tune.results import Outcome
from tpo_core.tune.rounds import Round

INK, MUTED, REFUSED, WON = "#1C212B", "#687180", "#D55E00", "#009E73"
SCALE = "viridis"


def draw_parallel(outcome: Outcome, out: Path) -> None:
    """A PNG with one log axis a weight and one for the score: trials that ended bold, stopped ones faint, those that
    lost too much QA dashed, the winner marked."""
    shown = [one for one in outcome.last().values() if outcome.objective.is_complete(one.metrics)]
    names = sorted({name for one in shown for name in one.weights})
    figure, axes = _figure((1.6 * (len(names) + 2), 4.4))
    scores = np.array([outcome.objective.score(one.metrics) for one in shown])
    weights = np.log10([[one.weights[name] for name in names] for one in shown]).reshape(len(shown), len(names))
    columns = np.column_stack([weights, scores])
    low, high = columns.min(0), columns.max(0)
    heights = (columns - low) / np.where(high > low, high - low, 1.0)
    for one, height in zip(shown, heights, strict=True):
        axes.plot(range(len(height)), height, color=colormaps[SCALE](0.9 * height[-1]), **_manner(outcome, one))
    labels = [f"{name}\n{10 ** low[i]:.2g} to {10 ** high[i]:.2g}" for i, name in enumerate(names)]
    axes.set_xticks(range(len(names) + 1), [*labels, f"score\n{low[-1]:.3f} to {high[-1]:.3f}"], color=INK)
    axes.set_yticks([])
    axes.grid(axis="x", color=MUTED, linewidth=0.8)
    _save(figure, out, f"{len(shown)} trials: weights (log) and score; dashed: QA too low, faint: stopped early")


def _manner(outcome: Outcome, one: Round) -> dict[str, Any]:
    won = outcome.winner()
    return {
        "alpha": 0.95 if one.step == outcome.rungs[-1] else 0.35,
        "linestyle": "-" if outcome.objective.keeps_qa(one.metrics) else "--",
        "linewidth": 3.0 if won is not None and one is won else 1.4,
        "marker": "o" if won is not None and one is won else "",
    }


def draw_pareto(outcome: Outcome, out: Path) -> None:
    """A PNG with QA across and the score upwards: trials that ended, those that no other beats in both joined by a
    line, the references by name, and the floor of QA."""
    objective, ended = outcome.objective, outcome.finalists()
    figure, axes = _figure((7.0, 4.8))
    points = [(one.metrics[objective.qa], objective.score(one.metrics)) for one in ended]
    for one, (qa, score) in zip(ended, points, strict=True):
        axes.scatter(qa, score, color=WON if objective.keeps_qa(one.metrics) else REFUSED, s=36, zorder=3)
    best = [points[place] for place in front(points)]
    axes.plot([qa for qa, _ in best], [score for _, score in best], color=INK, linewidth=1.2, zorder=2)
    for name, one in outcome.references.items():
        if objective.is_complete(one.metrics):
            at = (one.metrics[objective.qa], objective.score(one.metrics))
            axes.scatter(*at, color=MUTED, marker="s", s=30, zorder=3)
            axes.annotate(name, at, xytext=(5, 5), textcoords="offset points", fontsize=8, color=MUTED)
    axes.axvline(objective.qa_floor, color=REFUSED, linestyle=":", linewidth=1.2)
    axes.set_xlabel(f"{objective.qa}; dotted: the least that a winner may have", color=INK)
    axes.set_ylabel("score (1: unit weights)", color=INK)
    _save(figure, out, f"{len(ended)} trials that ended: tasks against general ability")


def draw_climbs(rows: Sequence[Comparison], names: tuple[str, str], out: Path) -> None:
    """A PNG with a panel a seed: the best score so far over the optimizer steps of all trials, for both ways; a dotted
    line where the steps of the first end."""
    figure, panels = _panels((3.2 * len(rows) + 0.8, 3.4), len(rows))
    for axes, row in zip(panels, rows, strict=True):
        for name, path, color in ((names[0], row.path, MUTED), (names[1], row.other_path, WON)):
            steps, best = [cost for cost, _ in path], [score for _, score in path]
            axes.step(steps, best, where="post", color=color, linewidth=1.8, marker="o", markersize=3, label=name)
        axes.axvline(row.cost, color=REFUSED, linestyle=":", linewidth=1.2)
        axes.set_xlim(left=0)
        axes.set_title(f"seed {row.seed}", fontsize=9, color=INK)
        axes.set_xlabel("optimizer steps of all trials", color=INK, fontsize=8)
    panels[0].set_ylabel("best score so far (1: unit weights)", color=INK, fontsize=8)
    panels[-1].legend(frameon=False, fontsize=8, loc="lower right")
    _save(figure, out, f"What a search had found by when; dotted: the steps of {names[0]}")


def _figure(size_in: tuple[float, float]) -> tuple[Figure, Axes]:
    figure, [axes] = _panels(size_in, 1)
    return figure, axes


def _panels(size_in: tuple[float, float], count: int) -> tuple[Figure, list[Axes]]:
    """Panels side by side, with one scale upwards."""
    figure = Figure(figsize=size_in, layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(MUTED)
        axes.tick_params(colors=MUTED, labelsize=8)
    return figure, panels


def _save(figure: Figure, out: Path, title: str) -> None:
    figure.suptitle(title, fontsize=10, color=INK)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)
