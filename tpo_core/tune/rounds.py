"""The rounds of a sweep: what a trial is asked for up to a rung, what came of it, and the book that keeps that.

The book, and not the state of the scheduler, says what was measured: a round that is in it is never run again, even if
the process died before it could say so to anyone.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tpo_core.storage import local


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
    """The rounds below a folder, a file each; written by one process a trial."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, one: Round) -> None:
        """Keep a round, behind all others of its trial."""
        path = self.folder / one.trial / f"{len(self.of(one.trial)):04d}.json"
        local.write_bytes(str(path), json.dumps(asdict(one), indent=1).encode())

    def of(self, trial: str) -> list[Round]:
        """The rounds of a trial, in order."""
        return [Round(**json.loads(path.read_text())) for path in sorted((self.folder / trial).glob("*.json"))]

    def find(self, order: Order) -> Round | None:
        """The round that answers an order, if it was carried out before."""
        return next((one for one in reversed(self.of(order.trial)) if one.answers(order)), None)

    def all(self) -> list[Round]:
        """The rounds of all trials."""
        trials = sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else []
        return [one for trial in trials for one in self.of(trial)]
