"""Two ways of searching, compared at equal cost: how much of its budget one needs to reach the best of the other."""

from collections.abc import Sequence
from dataclasses import dataclass

from tpo_core.tune.results import Outcome


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Of one seed. cost: optimizer steps of all trials. best: score of the winner; None without one.

    other_best: of what the other way had finished at the cost of the first, which it may exceed: how many go on is
    known when they do. reached: the cost after which it had a finished trial as good as the best of the first; None
    where it had none by then. worker_s, other_worker_s: seconds that training workers were held, measuring included.
    path, other_path: what `climb` says of the two.
    """

    seed: int
    cost: int
    best: float | None
    worker_s: float
    other_cost: int
    other_best: float | None
    other_worker_s: float
    reached: int | None
    path: list[tuple[int, float]]
    other_path: list[tuple[int, float]]


def compare(seed: int, first: Outcome, other: Outcome) -> Comparison:
    """What `other` needed to be as good as `first`; both of one seed."""
    budget, path, other_path = cost_of(first), climb(first), climb(other)
    goal = path[-1][1] if path else None
    within = [(cost, best) for cost, best in other_path if cost <= budget]
    return Comparison(
        seed=seed,
        cost=budget,
        best=goal,
        worker_s=sum(first.worker_seconds().values()),
        other_cost=cost_of(other),
        other_best=within[-1][1] if within else None,
        other_worker_s=sum(other.worker_seconds().values()),
        reached=None if goal is None else next((cost for cost, best in within if best >= goal), None),
        path=path,
        other_path=other_path,
    )


def climb(outcome: Outcome) -> list[tuple[int, float]]:
    """The cost so far, and the best score so far, after each trial that came to the end and keeps QA; in order."""
    found: list[tuple[int, float]] = []
    cost = 0
    for one in sorted(outcome.rounds, key=lambda each: each.ended_s):
        begun = one.origin["step"] if one.origin is not None else 0
        cost += one.step - begun
        if one.step == outcome.rungs[-1] and one.metrics and outcome.objective.keeps_qa(one.metrics):
            score = outcome.objective.score(one.metrics)
            found.append((cost, max(score, found[-1][1] if found else score)))
    return found


def cost_of(outcome: Outcome) -> int:
    """Optimizer steps of all trials."""
    return sum(one.step - (one.origin["step"] if one.origin is not None else 0) for one in outcome.rounds)


def trials_of_equal_cost(trials: int, rungs: Sequence[int], factor: int) -> int:
    """How many trials successive halving may begin for the steps that `trials` whole ones cost: of each rung, one in
    `factor` goes on."""
    cost, share, before = 0.0, 1.0, 0
    for rung in rungs:
        cost += share * (rung - before)
        share, before = share / factor, rung
    return max(trials, int(trials * rungs[-1] / cost))


def table(rows: Sequence[Comparison], names: tuple[str, str]) -> list[str]:
    """A markdown table, a row a seed."""
    first, other = names
    lines = [
        f"| seed | {first}: steps | worker-seconds | best score | {other}: steps | worker-seconds |"
        f" best score within the steps of {first} | steps to reach the best of {first} |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = "" if row.reached is None else f" ({100 * row.reached / row.cost:.0f} % of {row.cost})"
        cells = [row.seed, row.cost, f"{row.worker_s:.0f}", _score(row.best)]
        cells += [row.other_cost, f"{row.other_worker_s:.0f}", _score(row.other_best)]
        lines.append(f"| {' | '.join(map(str, cells))} | {'never' if row.reached is None else row.reached}{share} |")
    return lines


def _score(score: float | None) -> str:
    return "none" if score is None else f"{score:.3f}"
