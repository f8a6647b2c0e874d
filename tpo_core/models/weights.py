"""Tensors in the safetensors files of a folder, and whether they are those of a model."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tpo_core.errors import TpoError


def read_folder(path: Path) -> dict[str, Tensor]:
    """The tensors of all safetensors files of a folder, by name. TpoError that names a file which cannot be read."""
    state: dict[str, Tensor] = {}
    for file in sorted(path.glob("*.safetensors")):
        try:
            state.update(load_file(file))
        except SafetensorError as error:
            raise TpoError(f"{file} is damaged or cut off ({error}): copy it again") from error
    return state


def require_fit(own: Mapping[str, Tensor], state: Mapping[str, Tensor], *, may_lack: tuple[str, ...], of: str) -> None:
    """TpoError unless `state` holds the tensors that a model has, in their shapes, but for names that begin with one of
    `may_lack`. It names the first tensor that is missing, unknown or of another shape, and how many are; `of` says
    whose they are."""
    missing = [name for name in sorted(own.keys() - state.keys()) if not name.startswith(may_lack)]
    unknown = sorted(state.keys() - own.keys())
    misshaped = [name for name in sorted(own.keys() & state.keys()) if own[name].shape != state[name].shape]
    if missing:
        what = f"lacks {missing[0]}"
    elif unknown:
        what = f"holds {unknown[0]}, which the model does not have"
    elif misshaped:
        name = misshaped[0]
        what = f"holds {name} as {tuple(state[name].shape)} where the model has {tuple(own[name].shape)}"
    else:
        return
    count = len(missing) + len(unknown) + len(misshaped)
    raise TpoError(f"{of} does not fit its settings: it {what} ({count} tensors differ); save the model again")
