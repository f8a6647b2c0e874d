"""Folders of safetensors, read and written one tensor at a time: 16 GB pass through a few GB of memory.

Reading is strict. What a folder holds is compared, by headers alone, with what it must hold before any weight is read.
"""

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tpo_core.errors import TpoError
from tpo_core.models.source import local_path

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 4 << 30  # of one written file, which is held in memory until it is whole
FLOATS = ("BF16", "F16", "F32")
ITEM_BYTES = {"BF16": 2, "F16": 2, "F32": 4, "I64": 8}  # of the dtypes that are accepted


@dataclass(frozen=True)
class Header:
    """shape and dtype of a stored tensor; dtype as safetensors writes it."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class Wanted:
    """What a tensor must look like. shape: None is any length; dtypes: those that will do."""

    shape: tuple[int | None, ...]
    dtypes: tuple[str, ...] = FLOATS

    def fits(self, shape: tuple[int, ...]) -> bool:
        return len(shape) == len(self.shape) and all(
            want in (None, have) for want, have in zip(self.shape, shape, strict=True)
        )


class Checkpoint:
    """The safetensors files of a folder, as one.

    headers: of every tensor, by name, in the order of the files. One file is open at a time, so that those which are
    done with leave the memory.
    """

    def __init__(self, folder: Path, files: Mapping[Path, Mapping[str, Header]]) -> None:
        self.folder = folder
        self.headers = {name: header for held in files.values() for name, header in held.items()}
        self._file_of = {name: file for file, held in files.items() for name in held}
        self._opened: tuple[Path, Any] | None = None

    @classmethod
    def open(cls, uri: str | Path) -> "Checkpoint":
        """From a folder, URI or hub name. Raises TpoError when files are missing, cut short, or not those that the
        index names."""
        folder = Path(local_path(str(uri)))
        index = folder / INDEX
        if index.exists():
            return cls(folder, _indexed(index))
        found = {file: _headers(file) for file in sorted(folder.glob("*.safetensors"))}
        if not found:
            raise TpoError(f"{uri} is no checkpoint: it has neither {INDEX} nor *.safetensors")
        seen: dict[str, Path] = {}
        for file, held in found.items():
            for name in held:
                if name in seen:
                    raise TpoError(f"{file} and {seen[name].name} both hold {name}: leave the files of one model there")
                seen[name] = file
        return cls(folder, found)

    def read(self, name: str) -> Tensor:
        file = self._file_of[name]
        if self._opened is None or self._opened[0] != file:
            self._opened = file, safe_open(file, framework="pt")
        return self._opened[1].get_tensor(name)

    def require(self, wanted: Mapping[str, Wanted], remedy: str) -> None:
        """Raises TpoError that names the first tensor which is missing, extra, or of another shape or dtype."""
        wrong = differences(self.headers, wanted)
        if wrong:
            raise TpoError(f"{self.folder} {wrong[0]} ({len(wrong)} of {len(wanted)} tensors differ): {remedy}")


def differences(headers: Mapping[str, Header], wanted: Mapping[str, Wanted]) -> list[str]:
    """What is wrong, a phrase for each tensor: missing ones first, then extra ones, then shapes, then dtypes."""
    both = [name for name in wanted if name in headers]
    return [
        *(f"lacks {name}" for name in sorted(wanted.keys() - headers.keys())),
        *(f"holds {name}, which does not belong there" for name in sorted(headers.keys() - wanted.keys())),
        *(
            f"holds {name} of shape {_shape(headers[name].shape)} where {_shape(wanted[name].shape)} is needed"
            for name in both
            if not wanted[name].fits(headers[name].shape)
        ),
        *(
            f"holds {name} as {headers[name].dtype} where {' or '.join(wanted[name].dtypes)} is needed"
            for name in both
            if headers[name].dtype not in wanted[name].dtypes
        ),
    ]


def _shape(shape: Iterable[int | None]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def _headers(file: Path) -> dict[str, Header]:
    try:
        with safe_open(file, framework="pt") as opened:
            slices = {name: opened.get_slice(name) for name in opened.offset_keys()}
            return {name: Header(tuple(each.get_shape()), each.get_dtype()) for name, each in slices.items()}
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise TpoError(f"{file} is cut short or no safetensors file ({reason}): download it again") from error


def _indexed(index: Path) -> dict[Path, dict[str, Header]]:
    """The files that an index names, with their tensors; both must agree on each tensor."""
    try:
        named = {name: str(file) for name, file in json.loads(index.read_bytes())["weight_map"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TpoError(f"{index} is no index of safetensors files: download it again") from error
    found = {}
    for shard in sorted(set(named.values())):
        file = index.with_name(shard)
        if not file.is_file():
            raise TpoError(f"{index.parent} lacks {shard}, which {index.name} names: download it again")
        found[file] = _headers(file)
        promised = {name for name, place in named.items() if place == shard}
        for name in sorted(promised - found[file].keys()):
            raise TpoError(f"{file} lacks {name}, which {index.name} says is in it: download both again")
        for name in sorted(found[file].keys() - promised):
            raise TpoError(f"{file} holds {name}, which {index.name} does not name: download both again")
    return found


def write_shards(
    folder: Path,
    sizes_bytes: Mapping[str, int],
    make: Callable[[str], Mapping[str, Tensor]],
    told: Callable[[int], object],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write what `make` gives for each key, in the order of the keys, as shards with an index in Hugging Face's layout.

    sizes_bytes: about what `make(key)` gives, known beforehand. told: called with that size after each key.
    """
    shards = _split(sizes_bytes, shard_bytes)
    weight_map: dict[str, str] = {}
    total = 0
    for number, keys in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        tensors: dict[str, Tensor] = {}
        for key in keys:
            tensors |= make(key)
            told(sizes_bytes[key])
        save_file(tensors, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(tensors, file)
        total += sum(tensor.nbytes for tensor in tensors.values())
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
    (folder / INDEX).write_text(json.dumps(index, indent=1), encoding="utf-8")


def _split(sizes_bytes: Mapping[str, int], shard_bytes: int) -> list[list[str]]:
    """Keys in order, in groups of at most `shard_bytes`; a larger one is a group of its own."""
    shards: list[list[str]] = []
    room = 0
    for key, size in sizes_bytes.items():
        if not shards or size > room:
            shards.append([])
            room = shard_bytes
        shards[-1].append(key)
        room -= size
    return shards
