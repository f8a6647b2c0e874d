"""The rounds of a sweep: what a trial is asked for up to a rung, what came of it, and the book that keeps that.

The book, and not the state of the scheduler, says what was measured: a round that is in it is never run again, even if
the process died before it could say so to anyone.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from tpo_core.storage import uri as uris


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a trial stood: after `step` updates, with these weights."""

    trial: str
    step: int
    weights: Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Order:
    """Train `trial` with `weights` up to `step` and measure it. 0 steps: measure the base.

    origin: where it stands now, which may be the place of another trial, or its own with other weights; None is the
    beginning. balance: as stages.*.balance.
    """

    trial: str
    weights: Mapping[str, float]
    step: int
    origin: Place | None = None
    balance: str = "fixed"

    @property
    def forks(self) -> bool:
        """Whether it goes on from a checkpoint that was made by another trial or with other weights."""
        return self.origin is not None and (self.origin.trial, self.origin.weights) != (self.trial, self.weights)


@dataclass(frozen=True, kw_only=True)
class Round:
    """What came of an order.

    metrics: as measured; empty where training failed, `failed` says how. began_s, ended_s: Unix time. training_s: spent
    in optimizer steps; measuring_s: in the evaluation. workers: of training.
    """

    trial: str
    step: int
    weights: dict[str, float]
    metrics: dict[str, float]
    failed: str | None
    began_s: float
    ended_s: float
    training_s: float
    measuring_s: float
    workers: int
    origin: dict[str, Any] | None

    @property
    def seconds(self) -> float:
        """From the order to the measure."""
        return self.ended_s - self.began_s

    @classmethod
    def of(cls, order: Order, **came: Any) -> "Round":
        """The round of an order, with what came of it."""
        origin = None if order.origin is None else asdict(order.origin)
        return cls(trial=order.trial, step=order.step, weights=dict(order.weights), origin=origin, **came)

    def answers(self, order: Order) -> bool:
        """Whether it is what the order asks for."""
        return self.origin == (None if order.origin is None else asdict(order.origin)) and (
            self.trial, self.step, self.weights) == (order.trial, order.step, dict(order.weights))  # fmt: skip


class Book:
    """The rounds below a folder, a file each, for all machines; written by one process a trial. folder: a URI."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def add(self, one: Round) -> None:
        """Keep a round, behind all others of its trial."""
        uris.write_json(uris.join(self.folder, one.trial, f"{len(self.of(one.trial)):04d}.json"), asdict(one))

    def of(self, trial: str) -> list[Round]:
        """The rounds of a trial, in order."""
        home = uris.join(self.folder, trial)
        return [Round(**uris.read_json(uris.join(home, name))) for name in uris.list_names(home)]

    def find(self, order: Order) -> Round | None:
        """The round that answers an order, if it was carried out before."""
        return next((one for one in reversed(self.of(order.trial)) if one.answers(order)), None)

    def all(self) -> list[Round]:
        """The rounds of all trials."""
        return [one for trial in uris.list_names(self.folder) for one in self.of(trial)]
