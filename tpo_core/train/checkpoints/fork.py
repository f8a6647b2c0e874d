"""Let a run begin at a checkpoint of another one."""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tpo_core.storage import local
from tpo_core.storage import uri as uris
from tpo_core.train.checkpoints.manifest import COMMIT, Manifest, folder_name
from tpo_core.train.rows import Progress


def fork(root: str, step: int, into: str, run: Mapping[str, Any]) -> Progress:
    """Copy the checkpoint of `step` below `root` to a place below `into`, as one of `run` (what a run computes, as
    JSON). Both are URIs; what is copied passes through this machine. Returns where it stands.

    The caller answers for it that the other run trains the same parameters. FileNotFoundError if there is no such
    checkpoint.
    """
    source, target = uris.join(root, folder_name(step)), uris.join(into, folder_name(step))
    manifest = Manifest.read(source)
    for name in sorted(manifest.names - {COMMIT}):
        _copy(uris.join(source, name), uris.join(target, name))
    uris.write_bytes(uris.join(target, COMMIT), replace(manifest, run=dict(run)).to_bytes())
    return Progress.from_dict(manifest.progress)


def _copy(source: str, target: str) -> None:
    """By a file beside a local target, or in the scratch folder."""
    beside = local.to_path(target).parent if uris.is_local(target) else uris.scratch_dir()
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside, prefix=".fork-") as folder:
        uris.copy_here(source, Path(folder) / "file")
        uris.put_file(Path(folder) / "file", target)
