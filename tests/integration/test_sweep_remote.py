"""A sweep whose machines share nothing but S3, as a user runs it, on a random base of a few thousand parameters."""

import json
import shutil

import pytest
import yaml

from tests.integration.test_full_chain import ROOT, overrides, run
from tests.integration.test_sweep_command import RUNGS, SWEEP
from tests.unit.models.conftest import base  # noqa: F401 (fixture)
from tpo_core.storage import s3
from tpo_core.storage import uri as uris

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def left(bucket, prefix):
    """Objects below a prefix, without those that only stand for a folder."""
    found = s3.client().list_objects_v2(Bucket=bucket.removeprefix("s3://"), Prefix=prefix).get("Contents", [])
    return [each["Key"] for each in found if not each["Key"].endswith("/")]


def test_a_sweep_on_s3_goes_from_rung_to_rung_and_leaves_only_its_result(tmp_path, bucket, base):  # noqa: F811
    recipe = shutil.copy(ROOT / "pipelines" / "recipes" / "quickstart.yaml", tmp_path)
    work = f"{bucket}/work"
    alone = {"sweep.scheduler": "none", "sweep.search": "random", "sweep.trials": 1}
    tracking = f"tracking.uri=sqlite:///{tmp_path}/mlflow.db"
    swept = [f"{key}={value}" for key, value in (SWEEP | alone).items()]
    status, output = run("sweep_loss_weights.py", ["--recipe", recipe, *overrides(work, base), *swept, tracking])
    assert status == 0, output
    best = yaml.safe_load(uris.read_bytes(uris.join(work, "best_overrides.yaml")))
    (name,) = [name for name in uris.list_names(uris.join(work, "sweep")) if "." not in name]
    found = json.loads(uris.read_bytes(uris.join(work, "sweep", name, "sweep.json")))
    assert best == {f"stages.vision_task.loss_weights.{loss}": weight for loss, weight in found["weights"].items()}
    assert [one["step"] for one in found["rounds"]] == list(RUNGS)
    assert all(one["metrics"] and one["training_s"] > 0 for one in found["rounds"])
    assert left(bucket, "work/exchange/sweep") == []
    assert all(f"{key}={weight}" in output for key, weight in best.items()), "the next command needs no file"
