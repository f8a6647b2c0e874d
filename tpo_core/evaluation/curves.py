"""Loss curves of a whole run: one small panel a task over all stages, and the learning rates below them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8C6D31", "#5F6B7A")  # Okabe-Ito
INK, MUTED, BAND = "#1C212B", "#687180", "#F4F6F9"
FIRST = ("loss/lm", "loss/region", "loss/temporal", "loss/mask")
COLUMNS, PANEL_WH_IN = 2, (5.6, 2.5)
SMOOTHING = 0.5  # weight of the past in the running mean drawn over the raw values


def loss_curves(history: Mapping[str, Sequence[Mapping[str, Any]]], out: Path) -> None:
    """Writes a PNG. history: phase name -> its logged rows in order (`step`, `loss/<name>`, `lr/<group>`, ...).

    Steps of one phase follow those of the one before; each phase is a numbered band of the background. A task that a
    phase does not train has no curve there. Raw values are faint, a running mean is drawn over them.
    """
    spans = _spans(history)
    names = _names(history, "loss/")
    panels = [*names, "lr"]
    rows = -(-len(panels) // COLUMNS)
    figure = Figure(figsize=(PANEL_WH_IN[0] * COLUMNS, PANEL_WH_IN[1] * rows + 0.4), layout="constrained", dpi=120)
    FigureCanvasAgg(figure)
    figure.suptitle("     ".join(f"{n} {phase}" for n, phase in enumerate(history, start=1)), fontsize=10, color=MUTED)
    grid = figure.subplots(rows, COLUMNS, squeeze=False, sharex=True)
    for number, (panel, axes) in enumerate(zip(panels, grid.flat, strict=False)):
        _frame(axes, spans, last=number >= len(panels) - COLUMNS)
        if panel == "lr":
            _rates(axes, history, spans)
        else:
            _loss(axes, history, spans, panel, COLOURS[number % len(COLOURS)])
    for axes in grid.flat[len(panels) :]:
        axes.set_axis_off()
    rates = grid.flat[len(panels) - 1]
    figure.legend(
        *rates.get_legend_handles_labels(),
        loc="outside lower right",
        ncols=4,
        fontsize=8,
        frameon=False,
        labelcolor=INK,
        title="learning rate of",
        title_fontsize=8,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out)


def _spans(history: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, tuple[int, int]]:
    """First and last step of each phase on the common axis."""
    spans, start = {}, 0
    for phase, rows in history.items():
        end = start + max((int(row["step"]) for row in rows), default=0)
        spans[phase] = (start, end)
        start = end
    return spans


def _names(history: Mapping[str, Sequence[Mapping[str, Any]]], prefix: str) -> list[str]:
    found = {key for rows in history.values() for row in rows for key in row if key.startswith(prefix)}
    return [name for name in FIRST if name in found] + sorted(found - set(FIRST))


def _frame(axes: Axes, spans: Mapping[str, tuple[int, int]], *, last: bool) -> None:
    """Numbered bands of the phases, no box around the panel."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(MUTED)
    axes.tick_params(colors=MUTED, labelsize=8, labelbottom=last)
    axes.grid(axis="y", color="#E6E9EE", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_xlim(0, max(end for _, end in spans.values()) or 1)
    for number, (start, end) in enumerate(spans.values()):
        if number % 2 == 0:
            axes.axvspan(start, end, color=BAND, linewidth=0, zorder=-1)
        at = ((start + end) / 2, 0.93)
        axes.annotate(str(number + 1), at, xycoords=("data", "axes fraction"), ha="center", fontsize=8, color=MUTED)
    if last:
        axes.set_xlabel("optimizer step, all stages", fontsize=8, color=MUTED)


def _loss(axes: Axes, history: Mapping[str, Any], spans: Mapping[str, tuple[int, int]], key: str, colour: str) -> None:
    axes.set_title(f"{key.removeprefix('loss/')} loss", loc="left", fontsize=10, color=INK)
    for phase, rows in history.items():
        points = [(spans[phase][0] + row["step"], row[key]) for row in rows if key in row]
        steps, values = [step for step, _ in points], [value for _, value in points]
        axes.plot(steps, values, color=colour, alpha=0.3, linewidth=1)
        axes.plot(steps, _smooth(values), color=colour, linewidth=1.8, marker="o" if len(points) == 1 else "")
    axes.set_ylim(bottom=0)


def _rates(axes: Axes, history: Mapping[str, Any], spans: Mapping[str, tuple[int, int]]) -> None:
    axes.set_title("learning rate", loc="left", fontsize=10, color=INK)
    for number, key in enumerate(_names(history, "lr/")):
        steps, values = [], []
        for phase, rows in history.items():
            steps += [spans[phase][0] + row["step"] for row in rows] + [spans[phase][1]]
            values += [row.get(key, float("nan")) for row in rows] + [float("nan")]  # a gap between phases
        colour, dashes = COLOURS[number % len(COLOURS)], ("-", "--", ":")[number % 3]
        axes.plot(steps, values, color=colour, linewidth=1.4, linestyle=dashes, label=key.removeprefix("lr/"))
    axes.ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    axes.yaxis.get_offset_text().set(fontsize=8, color=MUTED)


def _smooth(values: Sequence[float]) -> list[float]:
    """Running mean that starts at the first value without a bias."""
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = SMOOTHING * total + value, SMOOTHING * weight + 1.0
        means.append(total / weight)
    return means
