"""Where a whole table stands: which of its steps are done, and about how long the rest will take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tpo_core.execution.position import Position


@dataclass(frozen=True)
class Planned:
    """A step of the table. key: its fingerprint, by which rows share it; took_s: how long it took, where it is done and
    was not cut off in between; there: whether it is done."""

    key: str
    row: str
    step: str
    there: bool
    took_s: float | None


class Progress:
    """Counts the steps of all rows and seeds, each once; in order of their first use.

    A step that is to run will take what it took for other seeds of its row, or else for other rows.
    """

    def __init__(self, planned: Sequence[Planned], clock: Callable[[], float] = time.monotonic) -> None:
        self._steps: dict[str, Planned] = {}
        for one in planned:
            self._steps.setdefault(one.key, one)
        self._took_s = [(one, one.took_s) for one in self._steps.values() if one.took_s is not None]
        self._expected_s: dict[str, float] = {}
        self.to_run = [one.key for one in self._steps.values() if not one.there]
        self._position = Position(list(self._steps), self.to_run, self._expected_s, clock)
        self._expect()

    def before(self, key: str) -> str:
        """As a step begins."""
        return self._position.before(key)

    def within(self, key: str) -> str:
        """While it runs, beside what it says itself."""
        return self._position.within(key)

    def finished(self, key: str, took_s: float) -> None:
        """Note how long a step took from its beginning to its end."""
        self._took_s.append((self._steps[key], took_s))
        self._expect()

    def _expect(self) -> None:
        for key in self.to_run:
            step, row = self._steps[key].step, self._steps[key].row
            alike = [took_s for one, took_s in self._took_s if one.step == step and one.row == row]
            alike = alike or [took_s for one, took_s in self._took_s if one.step == step]
            if alike:
                self._expected_s[key] = sum(alike) / len(alike)
