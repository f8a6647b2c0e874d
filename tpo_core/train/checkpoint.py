"""Training state on disk: written aside, committed last, verified when read.

A checkpoint is a directory `step-<8 digits>` of `state.pt` (Strategy.state: the same names and shapes whatever the
strategy), `progress.json` and `checksums.json`. It is written as `step-<8 digits>.partial`, synced to disk and
renamed, which is atomic on a POSIX file system: a process killed at any moment leaves either the whole directory or a
partial one that no reader looks at. The checksums catch what a rename cannot (a disk that lost pages, a bad copy).

There is no generator state in it, because the loop derives all randomness from the step (loop.seed_step), and no
position in the data beyond the step, because sample order is a function of it.
"""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import torch

from tpo_core.storage import local
from tpo_core.storage.uri import sha256_file
from tpo_core.train.loop import Progress
from tpo_core.train.strategies.base import Strategy

KEEP = 2
PARTIAL = ".partial"
CHECKSUMS = "checksums.json"


def save_checkpoint(root: Path, strategy: Strategy, progress: Progress) -> None:
    """Commit the state after `progress.step` updates under `root`, then drop all but the newest KEEP; on all ranks.

    Raises TpoError when the disk is full, OSError when it fails otherwise; what was committed before stays.
    """
    state = {name: tensor.cpu().clone() for name, tensor in strategy.state()}
    if strategy.rank == 0:
        write(root, state, progress)


def write(root: Path, state: dict[str, torch.Tensor], progress: Progress) -> None:
    final = root / f"step-{progress.step:08d}"
    staging = final.with_name(final.name + PARTIAL)
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    with local.disk_full_told(staging):
        with (staging / "state.pt").open("wb") as file:  # torch's own writer hides the errno of a full disk
            torch.save(state, file)
        (staging / "progress.json").write_text(json.dumps(asdict(progress)))
        sums = {path.name: sha256_file(path) for path in sorted(staging.iterdir())}
        (staging / CHECKSUMS).write_text(json.dumps(sums, indent=1))
        local.sync_tree(staging)
    if final.exists():  # written by an earlier attempt and found damaged, else the run would have resumed after it
        shutil.rmtree(final)
    staging.rename(final)
    local.sync(root)
    retain(root)


def newest_checkpoint(root: Path) -> Path | None:
    """The newest directory under `root` whose checksums hold, or None. Partial and damaged ones are passed over."""
    for path in reversed(committed(root)):
        if is_intact(path):
            return path
    return None


def load_checkpoint(path: Path, strategy: Strategy) -> Progress:
    """Put the state of `path` into model and optimizer and return where it stood."""
    saved = torch.load(path / "state.pt", map_location="cpu", weights_only=True)
    progress = Progress.from_dict(json.loads((path / "progress.json").read_text()))
    strategy.set_state(saved.__getitem__, progress.updates)
    return progress


def committed(root: Path) -> list[Path]:
    """Committed checkpoint directories, oldest first."""
    return sorted(path for path in root.glob("step-*") if path.is_dir() and path.suffix != PARTIAL)


def is_intact(path: Path) -> bool:
    """Whether every file is there with the checksum it was written with."""
    sums_path = path / CHECKSUMS
    if not sums_path.is_file():
        return False
    try:
        sums = json.loads(sums_path.read_text())
    except ValueError:  # the list of checksums is itself damaged
        return False
    return all((path / name).is_file() and sha256_file(path / name) == sum_ for name, sum_ in sums.items())


def retain(root: Path) -> None:
    """Delete all but the newest KEEP checkpoints, and what interrupted writes left behind."""
    for path in [*committed(root)[:-KEEP], *root.glob(f"step-*{PARTIAL}")]:
        shutil.rmtree(path)
