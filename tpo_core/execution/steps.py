"""A step is data around a plain function."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_core.config.names import nearest
from tpo_core.errors import TpoError
from tpo_core.execution.artifact import Artifact
from tpo_core.execution.fingerprint import fingerprint


@dataclass(frozen=True)
class StepContext:
    """What a step's function gets.

    `output` is the local folder to write to; it is kept when the step fails, and `resumed` says that an earlier try
    left something in it. `inputs` holds the artifacts of the input steps by name. `fingerprint`: of what is made.
    `position` says where the chain stands, for a line of a step that takes long.
    """

    output: Path
    inputs: dict[str, Artifact]
    resumed: bool
    fingerprint: str
    position: Callable[[], str]


@dataclass(frozen=True)
class Step:
    """One node of the chain.

    `fn` writes to `ctx.output` and returns a JSON result. `identity` is everything that determines that output beside
    the inputs, as JSON. Raise `version` when the code of the step changes what it computes. `load` tells, by the
    results so far, how much there is to do, as (kind, amount), if that is known: of steps of one kind, the time that
    one took tells about that of the others.
    """

    name: str
    fn: Callable[[StepContext], dict[str, Any]]
    identity: dict[str, Any]
    inputs: tuple[str, ...] = ()
    version: int = 1
    load: Callable[[Mapping[str, Artifact]], tuple[str, float] | None] = lambda artifacts: None


def fingerprints(steps: Sequence[Step]) -> dict[str, str]:
    """The fingerprint of every step by name; an input must be listed before the step that reads it."""
    made: dict[str, str] = {}
    for step in steps:
        assert re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", step.name), (
            f"step name {step.name!r} does not make a folder"
        )
        assert step.name not in made, f"two steps are called {step.name!r}"
        for name in step.inputs:
            assert name in made, f"step {step.name!r} reads {name!r}, which is not listed before it"
        inputs = {name: made[name] for name in step.inputs}
        made[step.name] = fingerprint(step.name, step.version, step.identity, inputs)
    return made


def select(steps: Sequence[Step], from_step: str | None, until_step: str | None) -> tuple[list[Step], list[Step]]:
    """Steps only looked up (inputs that lie before `from_step`), and steps to run up to `until_step`, both in order."""
    names = [step.name for step in steps]
    for name in (from_step, until_step):
        if name is not None and name not in names:
            raise TpoError(f"unknown step {name!r}; {nearest(name, names)}")
    start = names.index(from_step) if from_step is not None else 0
    stop = names.index(until_step) + 1 if until_step is not None else len(steps)
    if stop <= start:
        raise TpoError(f"step {until_step!r} comes before {from_step!r}: nothing to run")
    needed = {name for step in steps[start:stop] for name in step.inputs}
    return [step for step in steps[:start] if step.name in needed], list(steps[start:stop])
