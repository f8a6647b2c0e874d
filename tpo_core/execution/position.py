"""Where a chain stands, in words that a job's log can hold: `[####......] 4/8  12:05 so far, about 34:00 to go`."""

import time
from collections.abc import Callable, Sequence

CELLS = 10


class Position:
    """Counts the steps of one launch.

    names: of its steps, in order. to_run: those whose results are not there. earlier_s: how long steps took when they
    ran before in this work folder, as far as it is known. The estimate is made of these and of `loads`, the kind and
    amount of what steps have to do, as far as it is known; more may be told of both as time goes by.
    """

    def __init__(
        self,
        names: Sequence[str],
        to_run: Sequence[str],
        earlier_s: dict[str, float],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._names, self._to_run, self._clock = list(names), set(to_run), clock
        self.took_s = earlier_s
        self.loads: dict[str, tuple[str, float]] = {}
        self._began_s = clock()

    def before(self, name: str) -> str:
        """As step `name` begins, or is skipped."""
        return self._text(name, self._names.index(name), self._left(name, with_it=True))

    def after(self, name: str) -> str:
        """When it is done."""
        return self._text(name, self._names.index(name) + 1, self._left(name, with_it=False))

    def within(self, name: str) -> str:
        """While it runs, beside what it says itself: what is to go comes after it."""
        left = self._left(name, with_it=False)
        return self._text(name, self._names.index(name), left, then="then ")

    def _text(self, name: str, done: int, left: list[str], then: str = "") -> str:
        count = len(self._names)
        full = CELLS * done // count
        shown = f"[{'#' * full}{'.' * (CELLS - full)}] {self._names.index(name) + 1}/{count}"
        return f"{shown}  {duration(self._clock() - self._began_s)} so far{self._to_go(left, then)}"

    def _to_go(self, left: list[str], then: str) -> str:
        """The estimate; a floor where of a step nothing is known, nothing where that is so of all."""
        known = [seconds for seconds in map(self._expected_s, left) if seconds is not None]
        if not known:
            return ""
        return f", {then}{'about' if len(known) == len(left) else 'more than'} {duration(sum(known))} to go"

    def _expected_s(self, name: str) -> float | None:
        """What a step took before, or else what others of its kind took for as much as it has to do."""
        if name in self.took_s or name not in self.loads:
            return self.took_s.get(name)
        kind, amount = self.loads[name]
        alike = [each for each in self.took_s if self.loads.get(each, ("", 0.0))[0] == kind]
        done = sum(self.loads[each][1] for each in alike)
        return amount * sum(self.took_s[each] for each in alike) / done if done else None

    def _left(self, name: str, *, with_it: bool) -> list[str]:
        """Steps to run from here on."""
        start = self._names.index(name) + (not with_it)
        return [each for each in self._names[start:] if each in self._to_run]


def duration(seconds: float) -> str:
    """1:20, 12:05, 3:04:05."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
