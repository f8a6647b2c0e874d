"""What a sweep says in the end: the winner, what each rung cost, how far early scores tell late ones."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from scipy.stats import spearmanr

from tpo_core.tune.objective import Objective
from tpo_core.tune.rounds import Round

LEAST_FOR_CORRELATION = 3


@dataclass(frozen=True, kw_only=True)
class Launch:
    """One run of the command. slots: trials that may train side by side."""

    began_s: float
    ended_s: float
    slots: int


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """All that was measured. rounds: of trials; references: of the base ("base"), the unit weights ("unit") and the
    balancers, the last round of each; early: their rounds before that. rungs: steps; the last one is the end of a
    trial."""

    objective: Objective
    rungs: Sequence[int]
    rounds: Sequence[Round]
    references: Mapping[str, Round]
    launch: Launch
    early: Sequence[Round] = ()

    def last(self) -> dict[str, Round]:
        """The last round of each trial."""
        return {one.trial: one for one in self.rounds}

    def finalists(self) -> list[Round]:
        """The last rounds of trials that came to the end and measured there all that counts."""
        return [one for one in self.last().values() if self._ended(one)]

    def _ended(self, one: Round) -> bool:
        return one.step == self.rungs[-1] and self.objective.is_complete(one.metrics)

    def winner(self) -> Round | None:
        """The best of those that came to the end and keep the constraint; None when there is none."""
        able = [one for one in self.finalists() if self.objective.keeps_qa(one.metrics)]
        return max(able, key=lambda one: self.objective.score(one.metrics), default=None)

    def unbeaten(self) -> list[str]:
        """The references that keep the constraint and are as good as the winner, the best first; none without one."""
        won = self.winner()
        if won is None:
            return []
        able = {
            name: self.objective.value(one.metrics)
            for name, one in self.references.items()
            if self.objective.is_complete(one.metrics) and self.objective.keeps_qa(one.metrics)
        }
        better = [name for name, value in able.items() if value >= self.objective.score(won.metrics)]
        return sorted(better, key=lambda name: -able[name])

    def early_tells_late(self) -> dict[int, tuple[float, int]]:
        """For each rung but the last: Spearman's correlation of the values there with those in the end, and over how
        many trials, references among them. Left out: rungs that fewer than LEAST_FOR_CORRELATION have both of, or all
        alike."""
        ended = [*self.finalists(), *(one for one in self.references.values() if self._ended(one))]
        late = {one.trial: self.objective.value(one.metrics) for one in ended}
        found = {}
        for rung in self.rungs[:-1]:
            begun = [one for one in [*self.rounds, *self.early] if one.step == rung]
            early = {one.trial: self.objective.value(one.metrics) for one in begun}
            both = [trial for trial in late if trial in early]
            pairs = [early[trial] for trial in both], [late[trial] for trial in both]
            if len(both) >= LEAST_FOR_CORRELATION and all(len(set(each)) > 1 for each in pairs):
                found[rung] = (float(spearmanr(*pairs).statistic), len(both))
        return found

    def worker_seconds(self) -> dict[int, float]:
        """Seconds that workers were at work, by the rung that it was for; references apart. All of a trial train, one
        measures. Waiting for room and starting up are left out, see `start_up_share`; of attempts that were cut off,
        what came after their last checkpoint is."""
        spent = dict.fromkeys(self.rungs, 0.0)
        for one in self.rounds:
            spent[one.step] += one.training_s * one.workers + one.measuring_s
        return spent

    def idle_share(self) -> float:
        """Share of the time of all slots, in this launch, in which no round was under way there."""
        launch = self.launch
        mine = [one for one in self._every() if one.began_s >= launch.began_s]
        whole = (launch.ended_s - launch.began_s) * launch.slots
        return max(0.0, 1 - sum(one.seconds for one in mine) / whole)

    def start_up_share(self) -> float:
        """Share of the time of all rounds that went neither into steps nor into measuring: waiting for workers, and
        starting them."""
        every = self._every()
        whole = sum(one.seconds for one in every)
        return 1 - sum(one.training_s + one.measuring_s for one in every) / whole

    def _every(self) -> list[Round]:
        return [*self.rounds, *self.early, *self.references.values()]

    def to_json(self) -> dict[str, Any]:
        """Everything, with every round as it was."""
        won = self.winner()
        return {
            "winner": None if won is None else won.trial,
            "weights": None if won is None else won.weights,
            "unbeaten": self.unbeaten(),
            "trials": len(self.last()),
            "stopped_early": sum(one.step < self.rungs[-1] for one in self.last().values()),
            "qa_floor": self.objective.qa_floor,
            "objective": asdict(self.objective),
            "rungs": list(self.rungs),
            "values": {one.trial: self.objective.values(one.metrics) for one in self.last().values()},
            "rank_correlation": {str(rung): {"spearman": value, "trials": count}
                                 for rung, (value, count) in self.early_tells_late().items()},
            "worker_seconds_by_rung": {str(rung): spent for rung, spent in self.worker_seconds().items()},
            "idle_share": self.idle_share(),
            "start_up_share": self.start_up_share(),
            "launch": asdict(self.launch),
            "references": {name: asdict(one) for name, one in self.references.items()},
            "early": [asdict(one) for one in self.early],
            "rounds": [asdict(one) for one in self.rounds],
        }  # fmt: skip

    @classmethod
    def from_json(cls, told: Mapping[str, Any]) -> "Outcome":
        """The inverse of `to_json`; `early` is not there in a file of a release before it."""
        objective = Objective(**{**told["objective"], "metrics": tuple(told["objective"]["metrics"])})
        return cls(
            objective=objective,
            rungs=told["rungs"],
            rounds=[Round(**one) for one in told["rounds"]],
            references={name: Round(**one) for name, one in told["references"].items()},
            launch=Launch(**told["launch"]),
            early=[Round(**one) for one in told.get("early", [])],
        )


def table(outcome: Outcome) -> list[str]:
    """A markdown table of trials, the best value first, then the references."""
    names = sorted({name for one in outcome.rounds for name in one.weights})
    metrics = [*outcome.objective.metrics, outcome.objective.qa]
    lines = [
        f"| | {' | '.join(names)} | steps | score | {' | '.join(metrics)} | |",
        "|" + "---|" * (len(names) + len(metrics) + 4),
    ]
    won = outcome.winner()
    ranked = sorted(outcome.last().values(), key=lambda one: (-one.step, -outcome.objective.value(one.metrics)))
    for label, one in [*((one.trial, one) for one in ranked), *outcome.references.items()]:
        weights = [f"{one.weights[name]:.3g}" if name in one.weights else "-" for name in names]
        numbers = [f"{100 * one.metrics[name]:.1f}" if name in one.metrics else "-" for name in metrics]
        complete = outcome.objective.is_complete(one.metrics)
        score = f"{outcome.objective.score(one.metrics):.3f}" if complete else "-"
        note = one.failed or ("not all was measured" if not complete else "")
        note = note or ("" if outcome.objective.keeps_qa(one.metrics) else "QA too low")
        note = "winner" if won is not None and one is won else note
        lines.append(f"| {label} | {' | '.join(weights)} | {one.step} | {score} | {' | '.join(numbers)} | {note} |")
    return lines
