"""Questions with options are put as the notebook of MVBench puts them, letter for letter."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.evaluation.benches import FORMATS, entry_of, read
from tpo_core.data.sample import UNLABELLED
from tpo_core.evaluation.asking import asks_of, choice_text, question_of, wanted

GOLDEN = Path(__file__).resolve().parents[2] / "golden/metrics/mcq/golden/mvbench_official_qa_template.json"


@pytest.mark.parametrize("case", json.loads(GOLDEN.read_text()), ids=lambda case: case["data"]["question"])
def test_options_are_listed_as_the_notebook_lists_them(case):
    data, (question, _) = case["data"], case["out"]
    assert choice_text("best_option", data["question"], data["candidates"]) == question


def test_braces_in_a_question_are_letters():
    text = choice_text("best_option", "What is {options} and {question}?", ["{letter}", "{text}"])
    assert "{letter}" in text


@pytest.fixture
def grounded():
    entry = entry_of("next_gqa", "grounded_choice", "nextgqa", prompt="best_option")
    return entry, read(entry, FORMATS / "next_gqa")[0]


def test_a_grounded_question_asks_for_the_moment_of_its_evidence(grounded):
    entry, sample = grounded
    assert [(ask.form, ask.key) for ask in asks_of(entry, 4, sample)] == [
        ("answer", sample.sample_id),
        ("ground", f"{sample.sample_id}#ground"),
    ]
    question = question_of(entry, sample, "ground", [])
    assert "what did the baby do, then" in question.sample.turns[0].text
    assert (question.sample.task, question.prefix) == ("span", "")
    assert question.sample.turns[1].target_refs == tuple(range(len(sample.targets)))


def test_images_are_no_videos(grounded):
    entry, sample = grounded
    picture = replace(sample, media=(replace(sample.media[0], kind="image"),))
    assert question_of(entry, picture, "answer", []).sample.turns[0].text.startswith("Carefully watch the image and")


def test_samples_without_labels_are_not_asked(grounded):
    entry, sample = grounded
    assert wanted(entry, sample)
    assert not wanted(entry, replace(sample, task="mcq"))
    assert not wanted(entry, replace(sample, provenance=replace(sample.provenance, flags=(UNLABELLED,))))
