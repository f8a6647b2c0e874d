"""What a scorer gives back: the numbers under their official names, over how many items, and what was rejected."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

MAX_EXAMPLES = 5

# Why something in the files was not taken as it is. A rejected prediction is a miss that stays in the denominator.
REASONS = {
    "missing": "truths without a prediction",
    "empty": "predictions that hold nothing",
    "not_finite": "predictions with a NaN, an infinity or a value that is no number",
    "reversed": "predictions that end before they start",
    "zero_length": "predictions without extent",
    "out_of_range": "predictions beyond what the truth allows",
    "malformed": "predictions of another form than the benchmark's",
    "unranked": "rankings that lack a run of the truth; its rank is infinite",
    "unparsed": "replies in which no answer was found",
    "duplicate": "ids that occur twice among the predictions; the first is kept",
    "unknown": "predictions that belong to no truth; left out",
    "extra": "predictions that belong to no truth, which the official code scores all the same; counted in N",
    "resized": "lists of another length than the truth's; cut, or filled up with zeros",
    "zero_length_truth": "truths without extent; they stay in the denominator and nothing matches them",
    "bad_truth": "truths that nothing can match (empty, reversed, not finite, ...); left out of the denominator",
}


class Rejections:
    """Collects what is rejected, by reason code of REASONS, with the first examples."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._examples: dict[str, list[str]] = {}

    def add(self, reason: str, what: object) -> None:
        """Counts one; `what` names it, e.g. its id."""
        assert reason in REASONS, reason
        self._counts[reason] = self._counts.get(reason, 0) + 1
        examples = self._examples.setdefault(reason, [])
        if len(examples) < MAX_EXAMPLES:
            examples.append(str(what))

    def unknown(self, names: Iterable[object]) -> None:
        """Counts predictions that belong to no truth."""
        for name in names:
            self.add("unknown", name)

    def summary(self) -> dict[str, dict[str, Any]]:
        """`count`, `meaning` and the first `examples` by reason code, in the order of REASONS."""
        return {
            reason: {"count": self._counts[reason], "meaning": REASONS[reason], "examples": self._examples[reason]}
            for reason in REASONS
            if reason in self._counts
        }


@dataclass(frozen=True)
class Report:
    """`result` has the names, the nesting and the rounding of the official code; its leaves are numbers and curves.

    The numbers are means over `n` of the `N` items of the truth: n < N says that the denominator has shrunk. (Strictly
    official N has the `extra` ones too, so that it is never below n.) `rejected`
    is Rejections.summary(). `per_item` is the unrounded number behind each item, by its id, where there is one.
    """

    metric: str
    implementation: str
    strict_official: bool
    result: dict[str, Any]
    n: int
    N: int
    rejected: dict[str, dict[str, Any]]
    per_item: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        """Strict JSON: a float that is not finite is the string NaN, Infinity or -Infinity."""
        return json.dumps(_strict(vars(self)), indent=1, allow_nan=False)

    def as_text(self) -> str:
        """The same for people, without the items."""
        mode = ", strict official" if self.strict_official else ""
        lines = [f"{self.metric} ({self.implementation}{mode})"]
        lines += [f"  {name:<32}{value:>12g}" for name, value in flat(self.result).items()]
        lines.append(f"scored {self.n}/{self.N}")
        for reason, entry in self.rejected.items():
            first = ", ".join(entry["examples"])
            lines.append(f"  {reason}: {entry['count']} {entry['meaning']} (first: {first})")
        if not self.rejected:
            lines.append("  nothing rejected")
        return "\n".join(lines)


def flat(result: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a nested result by path: `full/MR-R1/0.5`; curves, which are lists, are left out."""
    leaves: dict[str, float] = {}
    for name, value in result.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping):
            leaves |= flat(value, f"{path}/")
        elif not isinstance(value, list):
            leaves[path] = value
    return leaves


def _strict(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _strict(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else f"{'-' if value < 0 else ''}Infinity"
    return value
