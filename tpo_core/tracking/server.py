"""The connection to MLflow: its settings, its names, and where a run of this machine keeps its own database.

Import mlflow through this file, so that its settings are in place before its first line runs.
"""

import logging
import os
import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from tpo_core.errors import TpoError
from tpo_core.storage.local import to_path
from tpo_core.storage.uri import is_local, without_password

# MLflow's own 7 retries with doubling pauses take minutes to notice a dead server.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")  # 120 by default, for a server that takes and never answers
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")

import mlflow
from mlflow import MlflowClient as MlflowClient
from mlflow.entities import Metric as Metric
from mlflow.entities import Param as Param
from mlflow.entities import RunTag as RunTag
from mlflow.exceptions import MlflowException as MlflowException

for _name in ("mlflow", "alembic", "mlflow.store.db.utils"):
    logging.getLogger(_name).setLevel(logging.WARNING)

TAKEN = "RESOURCE_ALREADY_EXISTS"
ABSENT = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}  # 3.17 gives the second for an alias that is not set
NOTE = "mlflow.note.content"  # what the page of a run or an experiment shows as its description
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # else MLflow 3 opens it as one of agents and traces
    NOTE: "Each run is a pipeline. Below it: its phases, with a chart for each loss (`loss/`), kind of data (`kind/`)"
    " and learning rate (`lr/`), and its evaluation. A pipeline's artifacts hold the gallery and the report.",
}
_SQLITE = "sqlite:///"
_SPOKEN = {"@": "_at_", "&": "_and_"}


def default_uri(work_uri: str) -> str:
    """The sqlite database of a run that names no tracking server: <work_uri>/mlflow/mlflow.db.

    TpoError when work_uri is not a local folder: a database cannot live in a bucket.
    """
    if not is_local(work_uri):
        raise TpoError(f"tracking.uri is not set and {work_uri} cannot hold a database: set tracking.uri to a server")
    return f"{_SQLITE}{to_path(work_uri).resolve()}/mlflow/mlflow.db"


def artifact_root(uri: str) -> str | None:
    """Where artifacts of a sqlite database go, `artifacts` beside it as file URI; None leaves it to the server."""
    path = _sqlite_path(uri)
    return f"file://{quote(str(path.parent / 'artifacts'))}" if path else None


def connect(uri: str) -> MlflowClient:
    """A client of the tracking server and registry at `uri`. A sqlite file is made, with its folder, on first use.

    Also becomes the process-wide URI: MLflow 3.17 looks up the logged model of a new version there, not at `uri`.
    """
    path = _sqlite_path(uri)
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        uri = f"{_SQLITE}{path}"
    mlflow.set_tracking_uri(uri)
    return MlflowClient(uri, registry_uri=uri)


class _Telling:
    """A client whose every trouble with the server is one line."""

    def __init__(self, client: MlflowClient, uri: str) -> None:
        self._client, self._uri = client, uri

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)

        def ask(*args: Any, **more: Any) -> Any:
            try:
                return call(*args, **more)
            except (MlflowException, OSError) as error:  # requests' own errors, of artifacts, are of OSError
                code = error.error_code if isinstance(error, MlflowException) else None
                if code in ABSENT or (name, code) == ("create_experiment", TAKEN):  # as `experiment_id` expects
                    raise
                why = without_password((str(error).splitlines() or [""])[0])[:300]
                raise TpoError(
                    f"no MLflow registry answers at {without_password(self._uri)}: start it or set tracking.uri, then"
                    f" run the same command again ({why})"
                ) from error

        return ask


def telling(client: MlflowClient, uri: str) -> MlflowClient:
    """The client, with TpoError instead of MlflowException, but for what is not there."""
    return cast(MlflowClient, _Telling(client, uri))


def is_missing(uri: str) -> bool:
    """True for a sqlite database that nobody has written yet; a server is asked only when it is used."""
    path = _sqlite_path(uri)
    return path is not None and not path.exists()


def experiment_id(client: MlflowClient, name: str, uri: str) -> str:
    """The id of the experiment, created on first use, by whichever process is first."""
    found = client.get_experiment_by_name(name)
    if found is not None:
        return found.experiment_id
    try:
        return client.create_experiment(name, artifact_location=artifact_root(uri), tags=EXPERIMENT_TAGS)
    except MlflowException as error:
        found = client.get_experiment_by_name(name) if error.error_code == TAKEN else None
        if found is None:
            raise
        return found.experiment_id


def find_run(client: MlflowClient, experiment: str, tag: str, value: str) -> str | None:
    """The id of a run of the experiment (an id) by one of its tags."""
    found = client.search_runs([experiment], f"tags.{tag} = '{value}'", max_results=1)
    return found[0].info.run_id if found else None


def legal_name(name: str) -> str:
    """A metric, parameter or tag name that MLflow takes: `test/region/acc@0.5` becomes `test/region/acc_at_0.5`."""
    for sign, spoken in _SPOKEN.items():
        name = name.replace(sign, spoken)
    return re.sub(r"[^\w./: -]", "_", name, flags=re.ASCII)[:250]


def _sqlite_path(uri: str) -> Path | None:
    return Path(uri.removeprefix(_SQLITE)).resolve() if uri.startswith(_SQLITE) else None
