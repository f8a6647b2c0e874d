"""Whether the model calls a task head exactly when it should."""

from collections.abc import Collection, Sequence

import numpy as np


def rates(asked: Sequence[tuple[Collection[str], str | None]]) -> dict[str, float]:
    """Shares in [0, 1] from pairs (heads that the answer activated, head that was asked for or None in conversation).

    `false`: of the plain-conversation requests, those whose answer activates a head. `missed`: of the task requests,
    those whose answer does not activate the right head, or activates another one. `quiet` = 1 - false and
    `called` = 1 - missed are the same with higher being better. A kind of request that is not there has no entry.
    """
    talk = [bool(heads) for heads, expected in asked if expected is None]
    task = [set(heads) != {expected} for heads, expected in asked if expected is not None]
    found: dict[str, float] = {}
    if talk:
        found |= {"false": float(np.mean(talk)), "quiet": 1.0 - float(np.mean(talk))}
    if task:
        found |= {"missed": float(np.mean(task)), "called": 1.0 - float(np.mean(task))}
    return found
