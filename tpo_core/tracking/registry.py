"""Versions of a model in the MLflow registry, with the numbers that promotion reads, and aliases that name them."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.artifacts import load_dict

from tpo_core.errors import TpoError
from tpo_core.tracking.server import ABSENT, MlflowException, connect, experiment_id, legal_name, telling

FINGERPRINT = "fingerprint"
RECORD = "record"  # tag: folder of the version's run with SAMPLES and LINEAGE
SAMPLES, LINEAGE = "samples.json", "lineage.json"
_METRICS, _BASE_METRICS = "metrics", "base_metrics"


@dataclass(frozen=True)
class VersionInfo:
    """A registered version. metrics: flat, as evaluated; base_metrics: those of the base model on the same evaluation,
    None when not recorded; uri: where its files are; run_id: of the pipeline that made it."""

    version: int
    tags: dict[str, str]
    metrics: dict[str, float]
    base_metrics: dict[str, float] | None
    uri: str
    run_id: str = ""


class Registry:
    """The model registry at an MLflow URI (a server or sqlite:///path). Unlike a tracker, it raises what goes wrong.

    TpoError at once when nothing answers at the URI, and later where it stops to.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._client = telling(connect(uri), uri)
        self._client.search_registered_models(max_results=1)

    def register_version(
        self,
        model_dir: Path,
        name: str,
        *,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        base_metrics: Mapping[str, float] | None,
        run_id: str | None,
        experiment: str,
        beside: Path | None = None,
        description: str | None = None,
    ) -> VersionInfo:
        """Copy the folder, and the files of the folder `beside`, to the registry's artifact store and make it the next
        version of `name`.

        A version of that name with the same tag `fingerprint` is the same model: nothing is copied, its tags and
        numbers become those given here. So a registration that was interrupted can be repeated, and a model that was
        measured again carries the new numbers.
        """
        numbers = {_METRICS: _to_json(metrics)}
        if base_metrics is not None:
            numbers[_BASE_METRICS] = _to_json(base_metrics)
        all_tags = {legal_name(k): str(v) for k, v in tags.items()} | numbers
        for info in self.list(name):
            if FINGERPRINT in tags and info.tags.get(FINGERPRINT) == tags[FINGERPRINT]:
                for key, value in all_tags.items():
                    self._client.set_model_version_tag(name, str(info.version), key, value)
                if description is not None:
                    self._client.update_model_version(name, str(info.version), description)
                return self.get(name, info.version)
        home = self._client.get_run(run_id).info.experiment_id if run_id else None
        logged = self._client.create_logged_model(
            home or experiment_id(self._client, experiment, self._uri), name=name, source_run_id=run_id
        )
        for folder in (model_dir, *([] if beside is None else [beside])):
            self._client.log_model_artifacts(logged.model_id, str(folder))
        self._client.finalize_logged_model(logged.model_id, "READY")
        if not self._has(name):
            self._client.create_registered_model(name)
        # model_id: without it the version has no link to the logged model, and REST refuses a models:/ source.
        made = self._client.create_model_version(
            name,
            source=f"models:/{logged.model_id}",
            run_id=run_id,
            model_id=logged.model_id,
            tags=all_tags,
            description=description,
        )
        return self.get(name, int(made.version))

    def get(self, name: str, version: int) -> VersionInfo:
        """One version. MlflowException if it is not there."""
        found = self._client.get_model_version(name, str(version))
        tags = dict(found.tags)
        metrics, base = tags.pop(_METRICS, "{}"), tags.pop(_BASE_METRICS, None)
        uri = self._client.get_model_version_download_uri(name, str(version))
        base_metrics = None if base is None else _from_json(base)
        return VersionInfo(version, tags, _from_json(metrics), base_metrics, uri, found.run_id or "")

    def find(self, name: str, version: int) -> VersionInfo | None:
        """One version, or None."""
        try:
            return self.get(name, version)
        except MlflowException as error:
            if error.error_code in ABSENT:
                return None
            raise

    def chosen(self, name: str, version: str) -> VersionInfo:
        """A version by number or alias. TpoError that says what there is when there is no such one."""
        known = self.list(name)
        if not known:
            raise TpoError(
                f"the registry has no model {name!r}: register one with pipelines/full_tpo.py, or mend the name"
            )
        found = self.find(name, int(version)) if version.isdecimal() else self.get_alias(name, version)
        if found is None:
            what = f"version {version}" if version.isdecimal() else f"alias {version!r}"
            numbers = ", ".join(str(each.version) for each in known)
            raise TpoError(f"model {name!r} has no {what}; its versions are {numbers}")
        return found

    def write_record(self, run_id: str, folder: str, files: Mapping[str, Mapping[str, Any]]) -> None:
        """Write JSON files into a folder of a run; a version with the tag RECORD = folder has them as its record."""
        for name, content in files.items():
            self._client.log_dict(run_id, dict(content), f"{folder}/{name}")

    def record(self, of: VersionInfo, file: str) -> dict[str, Any]:
        """What was written beside a version on registration, SAMPLES or LINEAGE; empty if it has no such record.

        TpoError when the record is gone or the server does not give it.
        """
        if RECORD not in of.tags:
            return {}
        place = f"runs:/{of.run_id}/{of.tags[RECORD]}/{file}"
        try:
            return load_dict(place)
        except (MlflowException, OSError, ValueError) as error:
            reason = (str(error).splitlines() or [""])[0]
            raise TpoError(
                f"the record of v{of.version} cannot be read from {self._uri}: {place} ({reason})"
            ) from error

    def samples(self, of: VersionInfo) -> dict[str, dict[str, dict[str, float]]]:
        """Values by sample, {"model" or "base": {metric: {sample: value}}}, of metrics that are means over samples."""
        return self.record(of, SAMPLES)

    def list(self, name: str) -> list[VersionInfo]:
        """All versions, oldest first; empty for an unknown name."""
        if not self._has(name):
            return []
        found = self._client.search_model_versions(f"name = '{name}'")
        return [self.get(name, number) for number in sorted(int(one.version) for one in found)]

    def get_alias(self, name: str, alias: str) -> VersionInfo | None:
        """The version that an alias names, or None."""
        try:
            return self.get(name, int(self._client.get_model_version_by_alias(name, alias).version))
        except MlflowException as error:
            if error.error_code in ABSENT:
                return None
            raise

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Make an alias name a version; it leaves the one that it named before."""
        self._client.set_registered_model_alias(name, alias, str(version))

    def delete_alias(self, name: str, alias: str) -> None:
        """Make an alias name nothing."""
        self._client.delete_registered_model_alias(name, alias)

    def _has(self, name: str) -> bool:
        try:
            self._client.get_registered_model(name)
        except MlflowException as error:
            if error.error_code in ABSENT:
                return False
            raise
        return True


def _to_json(metrics: Mapping[str, float]) -> str:
    """JSON without NaN, which is written as null."""
    return json.dumps({name: value if math.isfinite(value) else None for name, value in metrics.items()})


def _from_json(text: str) -> dict[str, float]:
    return {name: float("nan") if value is None else float(value) for name, value in json.loads(text).items()}
