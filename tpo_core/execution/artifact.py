"""The record of a finished step: what made it, from what, when, and what came out."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.storage.commit import fetch, is_committed
from tpo_core.storage.uri import join, read_json

RECORD = "artifact.json"


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A committed output folder.

    `inputs` maps the name of each input step to its fingerprint. `result` is what the step returned. `provenance`
    holds commit, argv, host, user, started_at, finished_at (UTC, ISO 8601), seconds, resumed, files and bytes.
    """

    step: str
    version: int
    uri: str
    fingerprint: str
    inputs: dict[str, str]
    identity: dict[str, Any]
    result: dict[str, Any]
    provenance: dict[str, Any]

    @property
    def path(self) -> Path:
        """Local folder with the files; one on S3 is downloaded on first use and kept in the scratch folder."""
        return fetch(self.uri)

    def record(self) -> dict[str, Any]:
        """What `artifact.json` holds: all but the place, which may change."""
        return {name: value for name, value in asdict(self).items() if name != "uri"}

    @classmethod
    def load(cls, uri: str | Path) -> "Artifact":
        """The artifact at `uri`. TpoError if that folder is not a committed result of this platform."""
        if not is_committed(uri):
            raise TpoError(f"{uri} holds no finished result (no _SUCCESS): run the step that makes it")
        try:
            return cls(uri=str(uri), **read_json(join(uri, RECORD)))
        except (FileNotFoundError, ValueError, TypeError) as error:
            raise TpoError(f"{join(uri, RECORD)} is missing or damaged: delete {uri} and run its step again") from error
