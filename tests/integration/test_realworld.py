"""Real street footage with the official MOT15 labels, from the native files to metrics, with an untrained model."""

import json
import math
from collections import Counter
from pathlib import Path

import pytest
import ray

from tests.unit.models.conftest import base, config  # noqa: F401 (fixtures)
from tpo_core.config.schema import DataConfig, Recipe
from tpo_core.data.example import load_example
from tpo_core.data.preprocess import preprocess
from tpo_core.data.readers import READERS
from tpo_core.data.readers.base import Reject
from tpo_core.data.shards import ShardSet
from tpo_core.evaluation.evaluate import evaluate_part
from tpo_core.models import generation
from tpo_core.models.tpo import TpoModel

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "realworld"
SEQUENCES = {"TUD-Campus": 71, "TUD-Stadtmitte": 179}  # frames
OPTIONS = {"every": "20", "media": "mp4"}
LIMIT = 3

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.skipif(not REAL.is_dir(), reason="the real footage is not on this machine"),
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(shard set, result of preprocessing, its lines) of both sequences, few frames each."""
    sources = [
        {"name": name, "reader": "mot", "root": str(REAL), "split": name, "part": part, "options": OPTIONS}
        for name, part in zip(SEQUENCES, ("train", "val"), strict=True)
    ]
    frames = {"n_frames": 4, "short_side_px": 96}
    data, lines = DataConfig.model_validate({"frames": frames, "sources": sources, "reject_budget": 0}), []
    output = tmp_path_factory.mktemp("built") / "shards"
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        result = preprocess(data, None, output, echo=lines.append)
    finally:
        ray.shutdown()
    return ShardSet.open(output), result, lines


@pytest.mark.parametrize(("sequence", "part"), zip(SEQUENCES, ("train", "val"), strict=True))
def test_every_sample_of_the_reader_is_in_the_set(built, sequence, part):
    items = list(READERS["mot"].read(str(REAL), sequence, OPTIONS))
    assert [item for item in items if isinstance(item, Reject)] == []
    tasks = Counter(item.task for item in items)
    assert tasks["track"]
    assert tasks["box"]
    shards, result, _ = built
    assert shards.counts(part) == {"mask": tasks["track"], "region": tasks["box"]}
    assert (result["rejected"], result["media"]) == ({}, 2)
    media = {sample.media[0] for sample in shards.samples(part)}
    assert [(m.width, m.height, m.n_frames) for m in media] == [(640, 480, SEQUENCES[sequence])]


def test_the_frames_that_labels_are_on_are_stored(built):
    shards = built[0]
    for sample in shards.samples("val"):
        stored = set(load_example(shards, sample).frame_index.tolist())
        assert {target.frame for target in sample.targets if target.frame is not None} <= stored


def call_every_head(ids, choice, grammar, max_new_tokens, *, give_slots=True):
    """Stands for `next_token`: an untrained model would call no head."""
    if ids and ids[-1] in grammar.heads:
        return grammar.heads[ids[-1]][1]
    return next((begin for begin in grammar.heads if begin not in ids), None)


def test_an_untrained_model_gets_metrics_of_both_tasks(built, base, config, tmp_path, monkeypatch):  # noqa: F811
    model = TpoModel.from_base(str(base), config, ("region", "temporal", "mask"))
    model.save_pretrained(tmp_path / "model")
    phase = {"name": "p", "mixture": {"chat": 1}, "steps": 1, "batch_size": 1, "micro_batch_size": 1}
    source = {"name": "s", "reader": "mot", "root": str(REAL), "part": "val", "split": "all"}
    source["options"] = {"media": "mp4"}
    recipe = Recipe.model_validate(
        {
            "name": "street",
            "data": {"sources": [source]},
            "model": config.model_dump(),
            "stages": {"task_assignment": {"phases": [phase]}},
            "evaluation": {"limit_per_task": LIMIT, "batch_size": 2, "max_new_tokens": 4, "gallery_size": 4},
        }
    )
    monkeypatch.setattr(generation, "next_token", call_every_head)
    result = evaluate_part(
        recipe, str(tmp_path / "model"), str(built[0].root), "val", tmp_path / "out",
        threads=2, echo=lambda line: None,
    )  # fmt: skip
    assert result["counts"] == {"region": LIMIT, "track": LIMIT}
    metrics = result["metrics"]
    assert {"val/region/acc@0.5", "val/region/miou", "val/track/miou", "val/activation/missed"} <= set(metrics)
    assert all(math.isfinite(value) and 0 <= value <= 1 for value in [*metrics.values(), *result["baseline"].values()])
    assert {"val/region/miou", "val/track/miou"} <= set(result["baseline"])
    rows = [json.loads(line) for line in (tmp_path / "out/val/predictions.jsonl").read_text().splitlines()]
    assert Counter(row["task"] for row in rows) == result["counts"]
    boxes = [row["prediction"] for row in rows if row["task"] == "region"]
    assert all(0 <= x1 <= x2 <= 640 and 0 <= y1 <= y2 <= 480 for x1, y1, x2, y2 in boxes)
    assert (tmp_path / "out/val/gallery/gallery.png").stat().st_size > 10_000
