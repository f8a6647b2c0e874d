import json

import numpy as np
import pytest

from tests.unit.evaluation.conftest import BOX, HEAD_OF, TASK_OF, FakeModel, answer_with, make_example
from tpo_core.config.schema import Recipe
from tpo_core.errors import TpoError
from tpo_core.evaluation import evaluate as subject
from tpo_core.evaluation.evaluate import evaluate_part, gallery_item, pick
from tpo_core.evaluation.measure import score

HEADS = ("region", "temporal", "mask")


@pytest.fixture
def recipe():
    phase = {"name": "p", "mixture": {"chat": 1}, "steps": 1, "batch_size": 1, "micro_batch_size": 1}
    source = {"name": "s", "reader": "r", "root": "/nowhere", "split": "train", "part": "train"}
    return Recipe.model_validate(
        {
            "name": "tiny",
            "data": {"sources": [source]},
            "model": {"base": "base"},
            "stages": {"task_assignment": {"phases": [phase]}},
            "evaluation": {"limit_per_task": 2, "gallery_size": 3},
        }
    )


@pytest.fixture
def evaluated(recipe, shards_path, tmp_path, monkeypatch):
    """Evaluates `model` on part val as often as it is called; counts how often a model was loaded."""
    loaded = []

    def run(model, part="val", name="a", recipe=recipe):
        monkeypatch.setattr(subject, "load_model", lambda recipe, uri: loaded.append(name) or model)
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(name)
        return evaluate_part(
            recipe, str(folder), str(shards_path), part, tmp_path / "out", threads=1, echo=lambda line: None
        )

    run.loaded, run.folder = loaded, tmp_path / "out" / "val"
    return run


def scored(task, answer):
    return score(task, make_example(task), answer)


def test_everything_one_may_look_at_is_left(evaluated):
    result = evaluated(FakeModel())
    assert json.loads((evaluated.folder / "metrics.json").read_text()) == result
    assert result["counts"] == dict.fromkeys(TASK_OF, 2)
    assert result["metrics"]["val/region/acc@0.5"] == 1.0
    assert result["baseline"]["val/region/miou"] == pytest.approx(1.0)
    rows = [json.loads(line) for line in (evaluated.folder / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * len(TASK_OF)
    assert {row["task"] for row in rows} == set(TASK_OF)
    names = {path.name for path in (evaluated.folder / "gallery").iterdir()}
    assert names == {"01_region.png", "02_moment.png", "03_mask.png", "gallery.png"}


def test_a_finished_part_is_not_measured_again(evaluated):
    first = evaluated(FakeModel())
    assert evaluated(FakeModel(lambda example: answer_with())) == first
    assert evaluated.loaded == ["a"]


def test_another_model_is_measured_though_a_result_is_there(evaluated):
    right = evaluated(FakeModel())
    wrong = evaluated(FakeModel(lambda example: answer_with(), heads=()), name="b")
    assert evaluated.loaded == ["a", "b"]
    assert (right["metrics"]["val/region/miou"], wrong["metrics"]["val/region/miou"]) == (1.0, 0.0)
    assert not (evaluated.folder / "gallery").exists()


def test_numbers_of_other_code_are_not_taken(evaluated, monkeypatch):
    evaluated(FakeModel())
    monkeypatch.setattr(subject, "EVALUATION_VERSION", subject.EVALUATION_VERSION + 1)
    evaluated(FakeModel())
    assert evaluated.loaded == ["a", "a"]


def test_a_base_that_the_recipe_builds_otherwise_is_measured_again(evaluated, recipe):
    evaluated(FakeModel())
    other = recipe.model_copy(update={"model": recipe.model.model_copy(update={"frame_size": 64})})
    evaluated(FakeModel(), recipe=other)
    assert evaluated.loaded == ["a", "a"]


def test_a_part_that_was_cut_off_is_measured_again(evaluated):
    def dies(example):
        if example.sample.task == "mask":
            raise KeyboardInterrupt
        return answer_with()

    with pytest.raises(KeyboardInterrupt):
        evaluated(FakeModel(dies))
    assert not (evaluated.folder / "metrics.json").exists()
    assert evaluated(FakeModel())["metrics"]["val/mask/j"] == 0.75


def test_a_model_without_heads_has_no_gallery(evaluated):
    result = evaluated(FakeModel(lambda example: answer_with("region", own=()), heads=()))
    assert result["metrics"]["val/region/miou"] == 0.0
    assert result["metrics"]["val/activation/quiet"] == 0.0
    assert not (evaluated.folder / "gallery").exists()


def test_a_part_that_is_not_there_is_named(evaluated):
    with pytest.raises(TpoError, match="has no part 'unseen'; it has train, val"):
        evaluated(FakeModel(), part="unseen")


def test_the_gallery_takes_the_tasks_in_turn_and_not_the_best_answers():
    answers = [scored(task, answer_with(HEAD_OF[task])) for task in HEAD_OF for _ in range(10)]
    for number, one in enumerate(answers):
        one.answer.text = str(number % 10)
    items = pick(answers, 8)
    assert [item.kind for item in items] == ["region", "moment", "mask", "track"] * 2
    assert [item.answer_text for item in items] == ["0"] * 4 + ["5"] * 4
    assert [item.kind for item in pick(answers[:10], 3)] == ["region"] * 3
    assert pick([scored("qa", answer_with(text="red"))], 8) == []
    assert pick(answers, 0) == []


def test_no_answer_is_drawn_twice():
    few = [scored("region", answer_with("region")), *(scored("track", answer_with("mask")) for _ in range(3))]
    assert [item.kind for item in pick(few, 12)] == ["region", "track", "track", "track"]


def test_gallery_items_carry_truth_and_prediction_in_the_units_of_the_media():
    region = gallery_item(scored("region", answer_with("region")))
    assert region.truth.tolist() == pytest.approx(BOX)
    assert region.prediction.tolist() == pytest.approx(BOX)
    assert (region.size_wh, region.score) == ((40, 30), "iou 1.00")
    moment = gallery_item(scored("moment", answer_with("temporal")))
    assert moment.prediction.tolist() == [[2.0, 6.0]]  # the best of the two only
    mask = gallery_item(scored("mask", answer_with("mask")))
    assert mask.truth.shape == mask.prediction.shape == (4, 30, 40)
    track = gallery_item(scored("track", answer_with("mask")))
    assert np.isnan(track.truth).any(axis=1).tolist() == [False, False, False, True]
    assert gallery_item(scored("region", answer_with(text="There."))).prediction is None
