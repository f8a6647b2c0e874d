"""From `models:/NAME@ALIAS` or `models:/NAME/VERSION` to a folder with the files of that registered model."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

from mlflow.artifacts import download_artifacts

from tpo_core.errors import TpoError
from tpo_core.storage import local
from tpo_core.storage.commit import commit, is_committed
from tpo_core.storage.uri import scratch_dir
from tpo_core.tracking.registry import Registry
from tpo_core.tracking.server import MlflowException, is_missing

SCHEME = "models:/"
_FORM = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>\d+))")


def is_registered(uri: str) -> bool:
    """Whether a model is named by the registry, not by its place."""
    return uri.startswith(SCHEME)


def model_folder(uri: str, tracking_uri: str) -> str:
    """A local folder with the model: where the registry keeps it, if that is on this machine, else a copy, made once.

    TpoError for another form of name, and for a registry, a model, a version or an alias that is not there.
    """
    form = _FORM.fullmatch(uri)
    if form is None:
        raise TpoError(f"{uri!r} names no registered model: write models:/NAME@ALIAS or models:/NAME/VERSION")
    if is_missing(tracking_uri):
        raise TpoError(f"there is no registry at {tracking_uri}: set tracking.uri to the one that has {form['name']!r}")
    found = Registry(tracking_uri).chosen(form["name"], form["alias"] or form["version"])
    if found.uri.startswith(("/", "file://")):  # not is_local: `mlflow-artifacts:/1/...` is no path
        return str(local.to_path(found.uri))
    copy = scratch_dir() / "registry" / hashlib.sha256(f"{tracking_uri} {found.uri}".encode()).hexdigest()[:16]
    with local.locked(copy):
        if not is_committed(copy):
            aside = copy.with_name(f"{copy.name}.partial")
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            commit(_downloaded(found.uri, aside), copy)
            shutil.rmtree(aside, ignore_errors=True)
    return str(copy)


def _downloaded(uri: str, folder: Path) -> Path:
    try:
        return Path(download_artifacts(artifact_uri=uri, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        raise TpoError(f"the registry does not give the files of {uri} ({str(error).splitlines()[0]})") from error
