"""python -m tpo_core.plan.scale [--failures 2000] [--assume node_mtbf_h=2000] [--plot docs/images/scale.png]

The chain on 8, 64, 512 and 4,096 GPUs whose nodes fail, simulated event by event: which checkpoint interval is best,
beside the formulas of Young and Daly; how much of the time is work; what a lost node costs, with and without elastic
workers. Data grow with the number of GPUs, so that stages take the same hours at every size. Intervals and the cost of
a loss come from one long run, hours of the chain from many chains, stage by stage.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.execution.cli import main_guard
from tpo_core.plan.faults import Faults, assume_faults, daly_s, expected_wall_s, young_s
from tpo_core.plan.simulate import Training, preprocessing_s
from tpo_core.plan.table import markdown

SIZES = (8, 64, 512, 4096)  # GPUs
SEED = 17  # of every run, so that the failures of all that are compared come alike
CHAINS = 1000  # that the hours of a chain are the mean of: few of them lose a node
INTERVALS_S = tuple(30.0 * 2.0 ** (place / 2) for place in range(17))  # half a minute to two hours


@dataclass(frozen=True)
class Run:
    """A long run. goodput: the share of its time that is work which stays. hours_a_loss: what a lost node costs, in
    hours of the whole run."""

    goodput: float
    hours_a_loss: float


def nodes_of(gpus: int, faults: Faults) -> int:
    """GPU nodes."""
    return max(1, gpus // faults.node_gpus)


def simulate(gpus: int, interval_s: float, faults: Faults, *, elastic: bool, failures: int) -> Run:
    """A run that is long enough for about so many failures, since most chains are through before the first one."""
    nodes = nodes_of(gpus, faults)
    work_s = failures * faults.mtbf_s(nodes)
    run = Training(work_s, nodes, faults, interval_s, elastic, np.random.default_rng([SEED, gpus])).run()
    spent_s = run.lost_s + run.down_s + run.slow_s
    return Run(work_s / run.time_s, spent_s / max(1, run.failures) / 3600)


@dataclass(frozen=True)
class Chain:
    """Means of many chains: hours of all stages, and nodes that they lose."""

    hours: float
    lost: float


def simulate_chain(gpus: int, interval_s: float, faults: Faults, *, elastic: bool) -> Chain:
    """Stages one after another; each starts its workers, and hands on a model that no later failure takes away."""
    nodes = nodes_of(gpus, faults)
    seconds = failures = 0.0
    for number in range(CHAINS):
        rng = np.random.default_rng([SEED, gpus, 2, number])
        for hours in faults.stage_hours.values():
            stage = Training(hours * 3600, nodes, faults, interval_s, elastic, rng).start().run()
            seconds += stage.time_s
            failures += stage.failures
    return Chain(seconds / CHAINS / 3600, failures / CHAINS)


def preprocess_hours(gpus: int, faults: Faults) -> float:
    """Hours of preprocessing, on a cpu group in proportion."""
    nodes = max(1, round(nodes_of(gpus, faults) * faults.cpu_nodes_per_gpu_node))
    files = round(faults.files_per_gpu * gpus)
    return preprocessing_s(files, nodes, faults, np.random.default_rng([SEED, gpus, 1])) / 3600


def curves(faults: Faults, failures: int) -> dict[tuple[int, bool], list[Run]]:
    """A run for each of INTERVALS_S, by GPUs and elastic."""
    return {
        (gpus, elastic): [simulate(gpus, each, faults, elastic=elastic, failures=failures) for each in INTERVALS_S]
        for gpus in SIZES
        for elastic in (False, True)
    }


def best(runs: Sequence[Run]) -> int:
    """Which has the highest goodput."""
    return max(range(len(runs)), key=lambda place: runs[place].goodput)


def closed_goodput(gpus: int, interval_s: float, faults: Faults) -> float:
    """Goodput of a run of fixed size by Daly's formula; write_s, which it does not know, is taken for a part of R."""
    mtbf_s, down_s = faults.mtbf_s(nodes_of(gpus, faults)), faults.down_s(elastic=False) + faults.write_s
    return interval_s / expected_wall_s(interval_s, interval_s, faults.pause_s, down_s, mtbf_s)


def interval_table(found: dict[tuple[int, bool], list[Run]], faults: Faults) -> list[str]:
    """The best interval by simulation and by formula."""
    rows = []
    for gpus in SIZES:
        mtbf_s = faults.mtbf_s(nodes_of(gpus, faults))
        runs = found[gpus, False]
        place = best(runs)
        rows.append(
            (
                f"{gpus:,}",
                f"{mtbf_s / 3600:,.1f}",
                f"{INTERVALS_S[place] / 60:.1f}",
                f"{young_s(faults.pause_s, mtbf_s) / 60:.1f}",
                f"{daly_s(faults.pause_s, mtbf_s) / 60:.1f}",
                f"{runs[place].goodput:.2%}",
                f"{closed_goodput(gpus, INTERVALS_S[place], faults):.2%}",
                f"{runs[-1].goodput:.2%}",
            )
        )
    head = ("GPUs", "a failure each h", "best interval, min", "Young", "Daly", "goodput", "formula", "every 128 min")
    return markdown(head, rows)


def cost_table(found: dict[tuple[int, bool], list[Run]], faults: Faults) -> list[str]:
    """The chain at the best interval: hours, nodes that it loses, and what one of them costs in a long run."""
    rows = []
    for (gpus, elastic), runs in found.items():
        place = best(runs)
        run, chain = runs[place], simulate_chain(gpus, INTERVALS_S[place], faults, elastic=elastic)
        rows.append(
            (
                f"{gpus:,}",
                "elastic" if elastic else "fixed",
                f"{preprocess_hours(gpus, faults):.2f}",
                f"{chain.hours:.2f}",
                f"{chain.lost:.2f}",
                f"{sum(faults.stage_hours.values()) / chain.hours:.2%}",
                f"{60 * run.hours_a_loss:.1f}",
                f"{gpus * run.hours_a_loss:,.0f}",
            )
        )
    head = ("GPUs", "workers", "preprocess, h", "stages, h", "lost nodes", "goodput", "min a loss", "GPU hours a loss")
    return markdown(head, rows)


def plot(found: dict[tuple[int, bool], list[Run]], faults: Faults, path: str) -> None:
    """Goodput against interval: simulated, by formula, and where Daly's optimum lies."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    minutes = [each / 60 for each in INTERVALS_S]
    for gpus in SIZES:
        (line,) = axes.plot(minutes, [run.goodput for run in found[gpus, False]], marker=".", label=f"{gpus:,} GPUs")
        colour = line.get_color()
        axes.plot(minutes, [run.goodput for run in found[gpus, True]], color=colour, linestyle=":")
        axes.plot(minutes, [closed_goodput(gpus, each, faults) for each in INTERVALS_S], color=colour, linestyle="--")
        optimum_s = daly_s(faults.pause_s, faults.mtbf_s(nodes_of(gpus, faults)))
        axes.plot(optimum_s / 60, closed_goodput(gpus, optimum_s, faults), marker="v", color=colour)
    axes.set(xscale="log", xlabel="work between two checkpoints, minutes", ylabel="goodput")
    axes.set_title("fixed (line), elastic (dots), formula (dashes), Daly's optimum (triangle)", fontsize="medium")
    axes.legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(argv: Sequence[str], echo: Callable[[str], None] = print) -> int:
    """Simulates and prints."""
    fields = "\n".join(f"  {name:<23} {field.description}" for name, field in Faults.model_fields.items())
    parser = argparse.ArgumentParser(
        prog="python -m tpo_core.plan.scale",
        description=__doc__,
        epilog=f"--assume takes:\n{fields}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--failures", type=int, default=2000, metavar="N", help="so long a run (default: 2000)")
    parser.add_argument("--assume", action="append", default=[], metavar="KEY=VALUE", help="replaces an assumption")
    parser.add_argument("--plot", metavar="PNG", help="where to draw the curves")
    args = parser.parse_args(argv)
    if args.failures < 1:
        raise TpoError(f"--failures {args.failures}: must be >= 1")
    faults = assume_faults(args.assume)
    found = curves(faults, args.failures)
    for lines in (interval_table(found, faults), cost_table(found, faults)):
        echo("\n".join(lines) + "\n")
    values = {name: value for name, value in faults.model_dump().items() if name != "stage_hours"}
    echo(
        f"Assumed: {', '.join(f'{name}={value:g}' for name, value in values.items())}; {args.failures} failures a run,"
        f" {CHAINS} chains."
    )
    if args.plot:
        plot(found, faults, args.plot)
    return 0


if __name__ == "__main__":
    main_guard(lambda: main(sys.argv[1:]))
