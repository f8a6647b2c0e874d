import json

import numpy as np
import pytest

from tests.unit.evaluation.conftest import DURATION_S, FRAMES, FakeModel, answer_with
from tpo_core.config.schema import EvaluationConfig
from tpo_core.evaluation import truth
from tpo_core.evaluation.constants import constant_baselines
from tpo_core.evaluation.measure import measure
from tpo_core.evaluation.report.footage import of_parts, of_sets
from tpo_core.evaluation.report.parts import read_part


def leave_part(folder, shards, model, part="val"):
    """What evaluate_part leaves of a part."""
    measured = measure(model, shards, part, EvaluationConfig(limit_per_task=3), lambda line: None)
    (folder / part).mkdir(parents=True)
    rows = "".join(json.dumps(one.row()) + "\n" for one in measured.scored)
    (folder / part / "predictions.jsonl").write_text(rows)
    result = {
        "metrics": measured.metrics,
        "counts": measured.counts,
        "baseline": constant_baselines(shards, part, measured.scored),
        "asked": {"model": "abc", "shards": shards.digest, "evaluation": {}},
    }
    (folder / part / "metrics.json").write_text(json.dumps(result))


@pytest.fixture
def part(tmp_path, shards):
    leave_part(tmp_path, shards, FakeModel())
    return lambda references=None: read_part(str(tmp_path / "val"), "val", references or {})


def test_a_part_gives_an_entry_a_task(part):
    entries = part()
    assert [entry.name for entry in entries] == [
        f"val/{task}" for task in ("region", "moment", "mask", "track", "qa", "choice", "caption")
    ]
    region, caption = entries[0], entries[-1]
    assert region.metrics == {"acc@0.5": 1.0, "miou": 1.0}
    assert region.references["best constant answer"].keys() == region.metrics.keys()
    assert (region.asked, region.scored, region.activation) == (3, 3, {"missed": 0.0})
    assert (caption.metrics, caption.references, caption.activation) == ({}, {}, {"false": 0.0})
    assert [row.task for row in entries[1].rows()] == ["moment"] * 3


def test_numbers_to_compare_with_are_those_of_the_same_part_and_task(part):
    base = {"val/region/acc@0.5": 0.25, "val/qa/accuracy": 0.5, "test/region/acc@0.5": 0.75}
    entries = part({"before TPO": base})
    assert entries[0].references["before TPO"] == {"acc@0.5": 0.25}
    assert "before TPO" not in entries[1].references


def test_a_head_that_was_not_called_is_a_failure(tmp_path, shards):
    leave_part(tmp_path, shards, FakeModel(lambda example: answer_with("region")))
    entries = {entry.name: entry for entry in read_part(str(tmp_path / "val"), "val", {})}
    reasons = {name: {row.failure for row in entry.rows()} for name, entry in entries.items()}
    assert reasons == {
        "val/region": {None},
        "val/moment": {"missed_activation"},
        "val/mask": {"missed_activation"},
        "val/track": {"missed_activation"},
        "val/qa": {"false_activation"},
        "val/choice": {"false_activation"},
        "val/caption": {"false_activation"},
    }
    assert entries["val/qa"].activation == {"false": 1.0}
    assert truth.wrong_activation("region", ["region", "mask"]) == "other_activation"


def test_frames_come_from_the_part_of_the_entry(shards, shards_path):
    for footage_of, entry in ((of_parts(shards), "val/mask"), (of_sets({"mevis": str(shards_path)}, "val"), "mevis")):
        found = footage_of(entry, "val/val/mask-1")
        assert found.sample.sample_id == "val/val/mask-1"
        assert (found.frame_index.tolist(), found.duration_s) == (FRAMES, DURATION_S)
        assert found.frame_HWC(2).shape == (30, 40, 3)
        with pytest.raises(KeyError):
            footage_of(entry, "val/val/mask-99")
    with pytest.raises(KeyError):
        of_parts(shards)("train/mask", "val/val/mask-1")


def test_a_region_has_the_frame_alone_that_it_is_on(shards):
    found = of_parts(shards)("val/region", "val/val/region-0")
    assert found.frame_index.tolist() == [0]
    assert np.abs(found.frame_HWC(0).astype(int) - 90).max() < 5
