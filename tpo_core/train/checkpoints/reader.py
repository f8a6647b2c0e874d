"""Read a committed checkpoint at any number of ranks, one whole tensor at a time."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from tpo_core.errors import TpoError
from tpo_core.storage import local
from tpo_core.storage import uri as uris
from tpo_core.storage.cache import DamagedError, cached
from tpo_core.train.checkpoints.manifest import COMMIT, Manifest, step_folders
from tpo_core.train.checkpoints.part import DTYPES, File, owned
from tpo_core.train.rows import Progress
from tpo_core.train.strategies.base import Strategy

Read = Callable[[str], Tensor]
REMEDY = "use an older checkpoint"


class Checkpoint:
    """A committed checkpoint: `uri` is its folder."""

    def __init__(self, uri: str, manifest: Manifest) -> None:
        self.uri, self.manifest = uri, manifest

    @property
    def name(self) -> str:
        return self.uri.rstrip("/").rpartition("/")[2]

    @property
    def progress(self) -> Progress:
        return Progress.from_dict(self.manifest.progress)

    def damage(self, rank: int = 0, world: int = 1) -> str | None:
        """What is wrong with this rank's share of the files, if anything; the ranks share them out among each other.

        Raises TpoError when the storage does not answer, which says nothing about the checkpoint.
        """
        for file in [self.manifest.index, *self.manifest.parts][rank::world]:
            try:
                with self.file(file) as path:
                    if uris.is_local(self.uri):
                        require_whole(path, file)
            except DamagedError as error:
                return str(error).removesuffix(f": {REMEDY}")
        return None

    @contextmanager
    def file(self, file: File) -> Iterator[Path]:
        """A local path of one of the files, itself or a copy; open it inside. A copy is verified."""
        uri = uris.join(self.uri, file.name)
        if uris.is_local(uri):
            yield local.to_path(uri)
        else:
            with cached(uri, file.size_bytes, file.sha256, REMEDY) as path:
                yield path

    def index(self) -> dict[str, dict[str, Any]]:
        """dtype and shape of each tensor, by name."""
        with self.file(self.manifest.index) as path:
            return json.loads(path.read_text())

    @contextmanager
    def tensors(self) -> Iterator[Read]:
        """Gives a function from a name to the whole tensor, put together from the slices; the files are mapped, so that
        no more than that tensor is in memory."""
        index, world = self.index(), self.manifest.world
        with ExitStack() as stack:
            opened = []
            for part in self.manifest.parts:
                with self.file(part) as path:
                    opened.append(stack.enter_context(safe_open(path, framework="pt")))

            def read(name: str) -> Tensor:
                shape = index[name]["shape"]
                ranges = [owned(torch.Size(shape).numel(), rank, world) for rank in range(world)]
                slices = [each.get_tensor(name) for each, range_ in zip(opened, ranges, strict=True) if _some(range_)]
                dtype = next(dtype for dtype, told in DTYPES.items() if told == index[name]["dtype"])
                return torch.cat(slices).view(shape) if slices else torch.empty(shape, dtype=dtype)

            yield read


def _some(range_: slice) -> bool:
    return range_.stop > range_.start


def require_whole(path: Path, file: File) -> None:
    """DamagedError unless the file is there as it was written."""
    if not path.is_file():
        raise DamagedError(f"{file.name} is missing")
    if path.stat().st_size != file.size_bytes or uris.sha256_file(path) != file.sha256:
        raise DamagedError(f"{file.name} is damaged")


def committed(root: str) -> list[tuple[str, Manifest | str]]:
    """Committed folders below `root`, newest first, each with its manifest, or with what is wrong with that. Raises
    TpoError when another version of this program wrote one: to begin anew, or to delete it, is not for us to choose."""
    found: list[tuple[str, Manifest | str]] = []
    for folder in reversed(step_folders(root).values()):
        try:
            found.append((folder, Manifest.read(folder)))
        except FileNotFoundError:
            continue
        except DamagedError as error:
            found.append((folder, str(error)))
    return found


def newest(found: list[tuple[str, Manifest | str]], strategy: Strategy) -> tuple[Checkpoint | None, list[str]]:
    """The first of `found` (see `committed`) whose files all are what was written, and a line about each before it.

    Called on all ranks, which share the work and get the same. Raises TpoError when the storage cannot be read.
    """
    passed: list[str] = []
    for folder, manifest in found:
        if isinstance(manifest, str):
            wrong: str | None = manifest
        else:
            checkpoint = Checkpoint(folder, manifest)
            told = strategy.everyone(checkpoint.damage(strategy.rank, strategy.world))
            wrong = next((each for each in told if each is not None), None)
            if wrong is None:
                return checkpoint, passed
        passed.append(f"{folder} is damaged ({wrong}): passed over")
    return None, passed


def open_checkpoint(uri: str) -> Checkpoint:
    """A checkpoint by its folder, verified. TpoError if it is not there, not committed or damaged."""
    try:
        checkpoint = Checkpoint(uri, Manifest.read(uri))
    except FileNotFoundError:
        raise TpoError(
            f"{uri} is no checkpoint (no {COMMIT}): give a folder step-NNNNNNNN that was committed"
        ) from None
    except DamagedError as error:
        raise TpoError(f"{uri} is damaged ({error}): {REMEDY}") from None
    wrong = checkpoint.damage()
    if wrong is not None:
        raise TpoError(f"{uri} is damaged ({wrong}): {REMEDY}")
    return checkpoint
