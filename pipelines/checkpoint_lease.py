"""checkpoint_lease(recipe, phase, run_id, echo): one process at a time where outputs share a place for checkpoints."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from tpo_core.config.schema import Recipe
from tpo_core.execution.lease import Lease
from tpo_core.train.job import shared_checkpoints


def checkpoint_lease(
    recipe: Recipe, phase: str, run_id: str, echo: Callable[[str], None]
) -> AbstractContextManager[Any]:
    """Held while the phase trains. The lease of an output does not cover `train.checkpoint_uri`: the same recipe in two
    work folders has two outputs and one place for checkpoints, where who ends first deletes what the other resumes
    from. Raises TpoError when a live process holds it."""
    place = shared_checkpoints(recipe, phase, run_id)
    return nullcontext() if place is None else Lease(f"{place}.lease", echo=echo)
