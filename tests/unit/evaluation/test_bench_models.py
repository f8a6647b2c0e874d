"""Real models of tiny size, with and without heads, and a tiny SAM2, through a whole benchmark."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tiny_sam2 import tiny_sam2
from tests.unit.evaluation.benches import bench_of, entry_of
from tests.unit.evaluation.test_bench import mvbench_layout
from tests.unit.evaluation.test_bench_grounding import charades, mevis
from tests.unit.models.conftest import base, config, make_model  # noqa: F401
from tests.unit.models.test_generation import make_it_say
from tpo_core.config.load import load_recipe
from tpo_core.errors import TpoError
from tpo_core.evaluation import answerers
from tpo_core.evaluation.answerers import ModelSpec, Sam2Spec
from tpo_core.models.tpo import Answer


@pytest.fixture
def recipe(config):  # noqa: F811
    return load_recipe("quickstart").model_copy(update={"model": config})


@pytest.fixture
def moments(tmp_path):
    entry = entry_of("charades_sta", "moment", "charades_sta", options={"durations": "decoder"}, frames=4)
    return bench_of(tmp_path, entry, charades(tmp_path / "c", 3))


def test_a_model_answers_with_its_heads(recipe, moments, make_model, base, monkeypatch):  # noqa: F811
    model = make_model()
    make_it_say(model, "<time_begin>")
    monkeypatch.setattr(answerers, "load_model", lambda recipe, uri: model)
    result = moments.run(ModelSpec(recipe, str(base)))
    assert result["activation"]["missed"] == 0.0
    assert (result["asked"], result["scored"]) == (3, 3)
    for row in moments.rows():
        start, end = row["prediction"]
        assert 0 <= start <= end <= 30.0
        assert row["failure"] is None


def test_a_base_without_heads_misses_and_is_another_model(recipe, moments, base):  # noqa: F811
    result = moments.run(ModelSpec(recipe, str(base)))
    assert result["metrics"]["brief/MR-full-R1@0.3"] == 0.0
    assert result["activation"]["missed"] == 1.0
    assert {row["failure"] for row in moments.rows()} == {"missed_activation"}


def test_a_base_that_writes_a_moment_is_scored_by_it(recipe, moments, make_model, base, monkeypatch):  # noqa: F811
    model = make_model(heads=[])
    monkeypatch.setattr(
        model, "chat", lambda examples, most: [Answer("2.0 to 6.0 seconds", [], [], [])] * len(examples)
    )
    monkeypatch.setattr(answerers, "load_model", lambda recipe, uri: model)
    result = moments.run(ModelSpec(recipe, str(base)))
    assert result["metrics"]["brief/MR-full-R1@0.5"] == 100.0
    assert result["activation"]["missed"] == 0.0


def test_a_base_is_another_model_when_the_recipe_builds_it_otherwise(recipe, base, make_model, tmp_path):  # noqa: F811
    other = recipe.model_copy(update={"model": recipe.model.model_copy(update={"frame_size": 64})})
    make_model().save_pretrained(tmp_path / "saved")
    same = {str(base): False, str(tmp_path / "saved"): True}
    for uri, expected in same.items():
        assert (ModelSpec(recipe, uri).identity() == ModelSpec(other, uri).identity()) is expected


def test_a_base_is_asked_for_letters(recipe, base, tmp_path):  # noqa: F811
    root = mvbench_layout(tmp_path / "mvbench", {"moving_count": 3})
    bench = bench_of(tmp_path, entry_of("mvbench", "choice", "mvbench", prompt="letter", frames=2), root)
    result = bench.run(ModelSpec(recipe, str(base)))
    assert (result["asked"], result["scored"]) == (3, 3)
    assert set(result["activation"]) == {"false", "missed"}


def test_plain_sam2_beside_a_model(recipe, base, tmp_path):  # noqa: F811
    tiny_sam2().save_pretrained(tmp_path / "sam2")
    entry = entry_of("mevis", "mask", "mevis", split="valid_u", control=True, frames=2, every_frame=True)
    bench = bench_of(tmp_path, entry, mevis(tmp_path / "m"))
    result = bench.run(ModelSpec(recipe, str(base)), Sam2Spec(str(tmp_path / "sam2")))
    assert result["metrics"] == {"J": 0.0, "F": 0.0, "J&F": 0.0}
    assert 0.0 <= result["control"]["J"] <= 1.0
    masks = list(Path(bench.place.output, "native_control/predictions").rglob("*.png"))
    assert len(masks) == 2 * 3  # of both expressions on every frame


def test_a_model_that_is_not_there_is_named_before_anything_is_asked(recipe, moments):
    with pytest.raises(TpoError, match=r"^no model at 'nowhere/at-all'"):
        moments.run(ModelSpec(recipe, "nowhere/at-all"))
    lost = replace(moments, place=replace(moments.place, shards="/nowhere"))
    with pytest.raises(TpoError, match=r"^no finished shard set at /nowhere"):
        lost.run(ModelSpec(recipe, "nowhere/at-all"))
