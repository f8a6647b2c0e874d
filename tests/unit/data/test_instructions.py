"""Templates: the published counts, the markers in their places, and a choice that never depends on the machine."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from tpo_core.data.instructions import conversation, render, templates
from tpo_core.data.sample import ANSWER_MARKER, TRACK_BOX, Media, Provenance, Sample, Turn

GROUNDING = {"box": "region", "span": "temporal", "highlight": "temporal", "mask": "mask", "track": "mask"}


@pytest.mark.parametrize(("form", "count"), [("region", 10), ("temporal", 5), ("mask", 7), ("track", 10)])
def test_as_many_questions_as_the_paper(form, count):
    assert len(set(templates()[form]["questions"])) == count


@pytest.mark.parametrize("task", GROUNDING)
def test_every_question_and_answer_carries_what_its_head_needs(task):
    rendered = [render(task, "a red ball.", f"d/train/{i}") for i in range(200)]
    questions = {question for question, _ in rendered}
    assert len(questions) == {"box": 10, "span": 5, "highlight": 5, "mask": 7, "track": 10}[task]
    assert all((TRACK_BOX if task == "track" else "a red ball") in question for question in questions)
    assert all(answer.count(ANSWER_MARKER[GROUNDING[task]]) == 1 for _, answer in rendered)
    assert all("{" not in question and ".'" not in question and ".?" not in question for question in questions)


def test_the_answers_of_the_paper():
    assert render("span", "x", "1")[1] == "The given query happens in <time_begin><temp> seconds."
    assert render("box", "x", "1")[1] == "Answer: <box_begin><boxes> ."
    assert render("track", "x", "1")[1] == "Answer: <track_begin><tracking> ."
    assert render("caption_video", " A dog runs. ", "1")[1] == "A dog runs."


@pytest.mark.parametrize("form", ["dense_caption", "timeline"])
def test_dense_captions_are_asked_for_in_five_ways_and_given_as_they_are(form):
    rendered = [render(form, "0.0 - 2.0 seconds, a dog runs.", f"d/train/{i}") for i in range(100)]
    assert {question for question, _ in rendered} == set(templates()[form]["questions"])
    assert len(templates()[form]["questions"]) == 5
    assert {answer for _, answer in rendered} == {"0.0 - 2.0 seconds, a dog runs."}


def test_the_choice_is_the_same_in_another_process():
    code = "from tpo_core.data.instructions import render; print([render('box', 'a', f'd/{i}')[0] for i in range(20)])"
    root = Path(__file__).resolve().parents[3]
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root).stdout
    assert other.strip() == str([render("box", "a", f"d/{i}")[0] for i in range(20)])


def caption(kind, *turns):
    return Sample("d/train/1", "d", "train", "caption", (Media("m", kind),), turns, Provenance("f", 0, "1", "test"))


def test_a_caption_without_a_question_gets_one():
    answer = Turn("assistant", "A dog.", (0,))
    question, reply = conversation(caption("video", answer))
    assert question.role == "user"
    assert question.text in templates()["caption_video"]["questions"]
    assert (question.media_refs, reply) == ((0,), dataclasses.replace(answer, media_refs=()))
    assert conversation(caption("image", answer))[0].text in templates()["caption_image"]["questions"]


def test_the_instruction_of_a_caption_becomes_its_question():
    turns = conversation(caption("image", Turn("system", "Describe."), Turn("assistant", "A dog.", (0,))))
    assert turns == (Turn("user", "Describe.", (0,)), Turn("assistant", "A dog."))


def test_a_conversation_with_a_question_is_left_alone():
    turns = (Turn("system", "Be brief."), Turn("user", "What?", (0,)), Turn("assistant", "A cat."))
    assert conversation(caption("image", *turns)) == turns
