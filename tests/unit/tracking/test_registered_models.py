"""models:/NAME@ALIAS and models:/NAME/VERSION lead to the files of a model, or to a line that says what is wrong."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tpo_core.errors import TpoError
from tpo_core.tracking import models
from tpo_core.tracking.models import is_registered, model_folder


@pytest.fixture
def registered(registry, tmp_path):
    """Two versions of a model; the first has the alias `champion`."""
    for number in (1, 2):
        folder = tmp_path / f"m{number}"
        folder.mkdir()
        (folder / "tpo.json").write_text(str(number))
        registry.register_version(
            folder, "seen", tags={"fingerprint": f"seen{number}"}, metrics={}, base_metrics=None, run_id=None,
            experiment="e",
        )  # fmt: skip
    registry.set_alias("seen", "champion", 1)


@pytest.mark.parametrize(("uri", "content"), [("models:/seen@champion", "1"), ("models:/seen/2", "2")])
def test_a_name_leads_to_the_files(registered, mlflow_uri, uri, content):
    assert is_registered(uri)
    assert (Path(model_folder(uri, mlflow_uri)) / "tpo.json").read_text() == content


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("models:/seen", r"'models:/seen' names no registered model: write models:/NAME@ALIAS"),
        ("models:/seen/latest", r"names no registered model"),
        ("models:/seen@chalenger", r"model 'seen' has no alias 'chalenger'; its versions are 1, 2"),
        ("models:/seen/7", r"model 'seen' has no version 7; its versions are 1, 2"),
        ("models:/unseen@champion", r"the registry has no model 'unseen'"),
    ],
)
def test_what_is_not_there_is_named(registered, mlflow_uri, uri, message):
    with pytest.raises(TpoError, match=message) as caught:
        model_folder(uri, mlflow_uri)
    assert "\n" not in str(caught.value)


def test_without_a_registry_no_database_is_made(tmp_path):
    with pytest.raises(TpoError, match=r"^there is no registry at sqlite"):
        model_folder("models:/seen/1", f"sqlite:///{tmp_path}/none/mlflow.db")
    assert not (tmp_path / "none").exists()


def test_files_elsewhere_are_copied_once(registered, mlflow_uri, monkeypatch, tmp_path):
    monkeypatch.setenv("TPO_SCRATCH", str(tmp_path / "scratch"))
    here = model_folder("models:/seen/1", mlflow_uri)
    fetched = []

    def download(artifact_uri, dst_path):
        fetched.append(artifact_uri)
        return shutil.copytree(here, Path(dst_path) / "artifacts")

    monkeypatch.setattr(models, "download_artifacts", download)
    found = models.Registry.chosen
    served = "mlflow-artifacts:/1/models/m-1/artifacts"  # as a server names what it hands on itself
    monkeypatch.setattr(models.Registry, "chosen", lambda *of: replace(found(*of), uri=served))
    copies = {model_folder("models:/seen/1", mlflow_uri) for _ in range(2)}
    assert len(copies) == len(fetched) == 1
    assert (Path(copies.pop()) / "tpo.json").read_text() == "1"
