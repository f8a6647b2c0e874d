"""From a version to what it was made of, on the command line, against a real registry."""

import re

import pytest

from pipelines.promote import main
from tpo_core.errors import TpoError
from tpo_core.execution.artifact import Artifact
from tpo_core.tracking.lineage import lineage_of
from tpo_core.tracking.registry import LINEAGE, RECORD, SAMPLES
from tpo_core.tracking.server import connect, experiment_id


def artifact(step, *inputs):
    return Artifact(
        step=step,
        version=1,
        uri=f"/runs/{step}/f-{step}",
        fingerprint=f"fingerprint-of-{step}",
        inputs=dict.fromkeys(inputs, "f"),
        identity={},
        result={},
        provenance={"commit": f"commit-of-{step}", "finished_at": "2026-01-02T03:04:05+00:00"},
    )


STEPS = {
    one.step: one
    for one in (
        artifact("preprocess", "render"),
        artifact("task_assignment", "preprocess"),
        artifact("multitask", "preprocess", "task_assignment"),
        artifact("evaluate", "preprocess", "multitask"),
    )
}
SOURCES = [{"name": "boxes", "reader": "refcoco", "root": "/data", "split": "val", "part": "test"}]


@pytest.fixture
def version(registry, mlflow_uri, tmp_path, request):
    """A version with a record, and one without anything."""
    name = request.node.name
    client = connect(mlflow_uri)
    run = client.create_run(experiment_id(client, "lineage", mlflow_uri)).info.run_id
    files = {LINEAGE: lineage_of(STEPS, "multitask", SOURCES), SAMPLES: {"model": {"a/b/c": {"s": 1.0}}}}
    registry.write_record(run, "versions/1", files)
    tags = {"commit": "c0ffee", "recipe": "small", "base": "tiny", "data_digest": "d1", "evaluation": "e1"}
    more = {"base_metrics": {"test/qa/accuracy": 0.5}, "experiment": "lineage"}
    tmp_path.joinpath("model").mkdir()
    registry.register_version(
        tmp_path / "model",
        name,
        tags={**tags, "fingerprint": "f1", RECORD: "versions/1"},
        metrics={"test/qa/accuracy": 0.75},
        run_id=run,
        **more,
    )
    registry.register_version(
        tmp_path / "model", name, tags={}, metrics={}, run_id=None, experiment="lineage", base_metrics=None
    )
    return name


def test_a_version_is_explained_as_a_tree(version, mlflow_uri, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    assert main(["--explain", version, "--version", "1"]) == 0
    lines = [re.sub(r"^\W+", "", line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].startswith(f"{version} v1")
    assert {"commit  c0ffee", "recipe  small", "base  tiny", "data  manifest d1"} <= set(lines)
    assert "boxes  refcoco, split val as test" in lines
    assert "evaluation  e1  /runs/evaluate/f-evaluate" in lines
    assert "test/qa/accuracy  0.7500  (base 0.5000)" in lines
    made = lines[lines.index("made by") + 1 :]
    assert [line.split("  ")[0] for line in made[:6]] == [
        "multitask", "preprocess", "render", "task_assignment", "preprocess", "render",
    ]  # fmt: skip
    assert "commit commit-of-mu" in made[0]
    assert "/runs/multitask/f-multitask" in made[0]


def test_a_version_without_a_record_says_so(version, mlflow_uri, monkeypatch, capsys):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    assert main(["--explain", version, "--version", "2"]) == 0
    told = capsys.readouterr().out
    assert "commit  not recorded" in told
    assert "no metrics: no gate lets this version pass" in told


def test_samples_come_back_as_they_were_written(version, registry):
    assert registry.samples(registry.get(version, 1)) == {"model": {"a/b/c": {"s": 1.0}}}
    assert registry.samples(registry.get(version, 2)) == {}


def test_mistakes_are_told(version, mlflow_uri, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(TpoError, match="give --recipe NAME, the recipe whose registry"):
        main(["--explain", version, "--version", "1"])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_uri)
    with pytest.raises(TpoError, match="say with --version which version"):
        main(["--explain", version])
    with pytest.raises(TpoError, match=r"has no alias 'champion'; its versions are 1, 2"):
        main(["--explain", version, "--version", "champion"])
    with pytest.raises(TpoError, match=r"has no version 9; its versions are 1, 2"):
        main(["--explain", version, "--version", "9"])
    with pytest.raises(TpoError, match="has no model 'nobody'"):
        main(["--explain", "nobody", "--version", "1"])
    with pytest.raises(TpoError, match="give --recipe NAME, the recipe whose model is promoted"):
        main([])
