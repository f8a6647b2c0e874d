"""What says that a checkpoint is whole: `checkpoint.json`, written last.

A checkpoint is a folder `step-<8 digits>` below the root of a run, on a disk or on S3:

    <token>-<rank>.safetensors   one a rank: of each tensor of n numbers, flattened, those from rank * n // world on, up
                                 to (rank + 1) * n // world (part.owned); a tensor of which a rank owns nothing is left
                                 out of its file
    <token>-index.json           dtype and shape of every whole tensor, by name
    checkpoint.json              all files with size and SHA-256, where training stood, what run it is of

The token is that of one attempt to write: files of an attempt that died are never taken for those of another. A reader
ignores a folder without `checkpoint.json`, and passes over one whose files are not what it says.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.storage import uri as uris
from tpo_core.storage.cache import DamagedError
from tpo_core.train.checkpoints.part import File

COMMIT = "checkpoint.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `checkpoint.json` says.

    step: updates done. strategy: the name of the one that wrote it. run: what the run computes, as JSON. progress: of
    the loop (loop.Progress). losses: of the last row that was logged, by name. parts: in the order of ranks.
    """

    step: int
    strategy: str
    run: dict[str, Any]
    progress: dict[str, Any]
    losses: dict[str, float]
    index: File
    parts: list[File]

    @property
    def world(self) -> int:
        """Ranks that wrote it."""
        return len(self.parts)

    @property
    def names(self) -> set[str]:
        """All files of the folder."""
        return {COMMIT, self.index.name, *(part.name for part in self.parts)}

    def to_bytes(self) -> bytes:
        body = {"format": FORMAT, "world": self.world, **asdict(self)}
        return json.dumps({"sha256": _digest(body), **body}, indent=1).encode()

    @classmethod
    def read(cls, folder: str) -> "Manifest":
        """The manifest of a folder. FileNotFoundError if there is none, DamagedError if it is not what was written,
        TpoError if another version of this program wrote it."""
        data = uris.read_bytes(uris.join(folder, COMMIT))
        try:
            body = json.loads(data)
        except ValueError:
            body = None
        told = body.pop("sha256", None) if isinstance(body, dict) else None
        if told is None or told != _digest(body):
            raise DamagedError(f"{COMMIT} is not what was written")
        written = body.pop("format")
        if written != FORMAT:
            raise TpoError(
                f"{folder} is a checkpoint of another version of this program (format {written}, here {FORMAT}): go on"
                " with that version, or move the folder away"
            )
        body.pop("world")
        return cls(**{**body, "index": File(**body["index"]), "parts": [File(**part) for part in body["parts"]]})


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


def folder_name(step: int) -> str:
    """`step-00000123`."""
    return f"step-{step:08d}"


def step_of(folder: str) -> int:
    """The inverse of `folder_name`, of a whole URI."""
    return int(folder.rpartition("step-")[2])


def step_folders(root: str) -> dict[int, str]:
    """The folders of checkpoints below `root`, committed or not, by step, lowest first."""
    names = [name for name in uris.list_names(root) if re.fullmatch(r"step-\d{8}", name)]
    return {step_of(name): uris.join(root, name) for name in sorted(names)}
