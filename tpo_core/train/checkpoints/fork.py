"""Let a run begin at a checkpoint of another one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tpo_core.storage import uri as uris
from tpo_core.train.checkpoints.manifest import COMMIT, Manifest, folder_name
from tpo_core.train.rows import Progress


def fork(root: str, step: int, into: Path, run: Mapping[str, Any]) -> Progress:
    """Copy the checkpoint of `step` below `root` to a local folder, as one of `run` (what a run computes, as JSON).
    Returns where it stands.

    The caller answers for it that the other run trains the same parameters. FileNotFoundError if there is no such
    checkpoint.
    """
    source, target = uris.join(root, folder_name(step)), into / folder_name(step)
    manifest = Manifest.read(source)
    target.mkdir(parents=True, exist_ok=True)
    for name in sorted(manifest.names - {COMMIT}):
        uris.copy_here(uris.join(source, name), target / name)
    uris.write_bytes(target / COMMIT, replace(manifest, run=dict(run)).to_bytes())
    return Progress.from_dict(manifest.progress)
