"""What is said of a clip is true, and never asks for a place or a time."""

import numpy as np

from tpo_core.data.quickstart import language
from tpo_core.data.quickstart.world import sample_clip

CLIPS = [sample_clip(f"c{seed}", seed) for seed in range(80)]


def asked(clip, t=None):
    return language.questions(clip, np.random.default_rng(0), t=t)


def test_a_caption_names_everything_that_is_shown():
    for clip in CLIPS:
        said = language.caption(clip, np.random.default_rng(1)).lower()
        assert all(thing.name in said for thing in clip.things)
        assert clip.ground in said
        assert all(event.action in said for event in clip.events)


def test_a_frames_caption_leaves_out_what_has_vanished():
    clip, event = next((c, e) for c in CLIPS for e in c.events if e.action == "vanishes")
    said = language.caption(clip, np.random.default_rng(1), t=event.start).lower()
    assert clip.things[event.thing].name not in said


def test_naming_questions_are_asked_only_where_they_have_one_answer():
    for clip in CLIPS:
        for question in asked(clip):
            if question.kind == "colour":
                fits = [thing for thing in clip.things if thing.kind in question.text]
                assert [thing.colour for thing in fits] == [question.answer]
            if question.kind == "shape":
                fits = [thing for thing in clip.things if thing.colour in question.text]
                assert [thing.kind for thing in fits] == [question.answer]


def test_left_of_is_answered_by_the_mean_places():
    answers = []
    for clip in CLIPS:
        for question in asked(clip):
            if question.kind == "left_of":
                x = {thing.name: thing.centres_T2[:, 0].mean() for thing in clip.things}
                first, second = question.text.removeprefix("Is the ").removesuffix("?").split(" left of the ")
                assert (x[first] < x[second]) == (question.answer == "yes")
                answers.append(question.answer)
    assert 0.25 < np.mean([answer == "yes" for answer in answers]) < 0.75, "a constant answer must not do"


def test_events_are_asked_of_clips_and_not_of_frames():
    clip = CLIPS[0]
    assert {"who", "what"} <= {question.kind for question in asked(clip)}
    assert not {"who", "what"} & {question.kind for question in asked(clip, t=0)}


def test_no_question_asks_for_a_place_or_a_time():
    for clip in CLIPS:
        for question in asked(clip):
            assert not {"where", "when"} & set(question.text.lower().split())


def test_motion_is_told_only_of_what_moves():
    for clip in CLIPS:
        for number, thing in enumerate(clip.things):
            told = language.expression(clip, number, motion=True)
            assert ("moves to the" in told) == (thing.heading is not None)
            assert thing.name in told
