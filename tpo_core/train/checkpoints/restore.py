"""Put a checkpoint into model and optimizer, after seeing that it is theirs."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.train.checkpoints.reader import Checkpoint
from tpo_core.train.strategies.base import Strategy

ABSENT = "nothing"
SHOWN_CHARACTERS = 48


def restore(checkpoint: Checkpoint, strategy: Strategy, run: Mapping[str, Any]) -> None:
    """Load the state on all ranks. TpoError when the checkpoint is of another run, or does not fit the model."""
    difference = next(differences(checkpoint.manifest.run, run), None)
    if difference is not None:
        raise TpoError(
            f"{checkpoint.uri} is of another run ({difference}): give this one a folder of its own, or delete that one"
        )
    require_fit(checkpoint, {name: list(tensor.shape) for name, tensor in strategy.state()})
    with checkpoint.tensors() as read:
        strategy.set_state(read, checkpoint.progress.updates)


def require_fit(checkpoint: Checkpoint, wanted: Mapping[str, list[int]]) -> None:
    """TpoError that names the first tensor that checkpoint and model do not have alike; wanted: shapes by name."""
    held = {name: told["shape"] for name, told in checkpoint.index().items()}
    for name in dict.fromkeys([*wanted, *held]):
        if held.get(name) != wanted.get(name):
            has, needs = (f"shape {each[name]}" if name in each else "none" for each in (held, wanted))
            raise TpoError(
                f"{checkpoint.uri} is of another model ({name}: {has} in it, {needs} in the model):"
                " use the recipe and the stage that it was made with"
            )


def differences(old: Any, new: Any, path: str = "") -> Iterator[str]:
    """`a.b 1 -> 2` for each field in which two JSON values differ."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in dict.fromkeys([*old, *new]):
            yield from differences(old.get(key, ABSENT), new.get(key, ABSENT), f"{path}.{key}" if path else key)
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for place, (left, right) in enumerate(zip(old, new, strict=True)):
            yield from differences(left, right, f"{path}[{place}]")
    elif old != new:
        yield f"{path} {_short(old)} -> {_short(new)}"


def _short(value: Any) -> str:
    text = value if value is ABSENT else json.dumps(value)
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."
