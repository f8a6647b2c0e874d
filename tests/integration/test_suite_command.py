"""pipelines/evaluate.py --suite on a small rendered world: to the report, and again without asking anything twice."""

import json
from pathlib import Path

import pytest

from pipelines import evaluate
from tests.tiny_sam2 import tiny_sam2
from tpo_core.config.schema import GeneratorConfig
from tpo_core.data.quickstart.write import write_quickstart
from tpo_core.metrics.registry import score

pytestmark = [pytest.mark.ray, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_quickstart(GeneratorConfig(train_clips=1, val_clips=0, test_clips=3, unseen_clips=0), folder, print)
    tiny_sam2().save_pretrained(folder / "sam2")
    return folder


def test_a_suite_from_the_command_line(world, tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    words = ["--recipe", "quickstart", "--model", str(ROOT / "assets/quickstart_base"), "--suite", "quickstart"]
    words += [
        "--data-root",
        str(world),
        "--output",
        str(tmp_path / "out"),
        "--only",
        "refcoco",
        "mevis",
        "questions",
        "--limit",
        "2",
    ]
    words += ["--sam2", str(world / "sam2"), f"work_uri={tmp_path}/work"]
    assert evaluate.main(words) == 0
    first = capsys.readouterr().out
    assert "refcoco  2/2  in " in first
    for entry, metric in (("refcoco", "refcoco"), ("questions", "short_answers"), ("mevis", "mevis")):
        result = json.loads((tmp_path / "out" / entry / "result.json").read_text())
        assert (result["entry"], result["asked"], result["scored"]) == (entry, 2, 2)
        assert result["activation"]["false" if entry == "questions" else "missed"] is not None
        native = tmp_path / "out" / entry / "native"
        truth, predictions = sorted(native.glob("truth*")), sorted(native.glob("predictions*"))
        assert score(metric, truth[0], predictions[0]).N == 2
    control = tmp_path / "out/mevis/native_control/predictions"
    assert result["control"]["J&F"] == score("mevis", truth[0], control).result["J&F"]
    videos = json.loads((truth[0] / "meta_expressions.json").read_text())["videos"].values()
    frames = sum(len(video["frames"]) * len(video["expressions"]) for video in videos)
    assert len(list(control.rglob("*.png"))) == frames > 0
    assert (tmp_path / "out/report.html").is_file()
    assert evaluate.main(words) == 0
    again = capsys.readouterr().out
    assert "mevis  2 of 2 are answered already" in again
    assert "(0 media decoded)" in again
    assert "refcoco  2/2" not in again
