"""Two ways of searching, compared at equal cost: how much of its budget one needs to reach the best of the other."""

from collections.abc import Sequence
from dataclasses import dataclass

from tpo_core.tune.results import Outcome


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Of one seed. cost: optimizer steps of all trials. best: score of the winner; None without one. reached: the cost
    after which the other way had a finished trial as good as the best of the first; None where it never had."""

    seed: int
    cost: int
    best: float | None
    other_cost: int
    other_best: float | None
    reached: int | None


def compare(seed: int, first: Outcome, other: Outcome) -> Comparison:
    """What `other` needed to be as good as `first`; both of one seed."""
    bests = [path[-1][1] if (path := climb(outcome)) else None for outcome in (first, other)]
    goal = bests[0]
    reached = None if goal is None else next((cost for cost, best in climb(other) if best >= goal), None)
    return Comparison(
        seed=seed, cost=cost_of(first), best=goal, other_cost=cost_of(other), other_best=bests[1], reached=reached
    )  # fmt: skip


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
        f"| seed | {first}: steps | best score | {other}: steps | best score | steps of {other} to reach the best of"
        f" {first} |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        share = "" if row.reached is None else f" ({100 * row.reached / row.cost:.0f} % of {row.cost})"
        cells = [row.seed, row.cost, _score(row.best), row.other_cost, _score(row.other_best)]
        lines.append(f"| {' | '.join(map(str, cells))} | {'never' if row.reached is None else row.reached}{share} |")
    return lines


def _score(score: float | None) -> str:
    return "none" if score is None else f"{score:.3f}"
