"""What is said of a clip is true, and is never a task request."""

from itertools import pairwise

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


def test_places_and_sizes_are_words_of_a_scale_in_its_order():
    x_px, y_px, radius_px = {}, {}, {}
    for clip in CLIPS:
        for t in (0, 5, 11):
            seen = {one.name: one for one in language.things_seen(clip, t)}
            for question in asked(clip, t):
                scales = {"across": ("x_px", x_px), "height": ("y_px", y_px), "size": ("radius_px", radius_px)}
                if question.kind in scales:
                    field, found = scales[question.kind]
                    name = question.text.removesuffix("?").split(" is the ")[1]
                    found.setdefault(question.answer, []).append(getattr(seen[name], field))
    for words, found in ((language.COLUMNS, x_px), (language.ROWS, y_px), (language.SIZES, radius_px)):
        assert set(found) == set(words)
        for word, after in pairwise(words):
            assert max(found[word]) + 2 * language.DOUBT_PX <= min(found[after]), (word, after)


def test_over_a_clip_no_place_is_asked_of_what_moves():
    for clip in CLIPS:
        moving = {one.name for one in language.things_seen(clip, None) if one.moves}
        placed = [question.text for question in asked(clip) if question.kind in ("across", "height")]
        assert not [text for text in placed for name in moving if name in text]
    assert any(one.moves for clip in CLIPS for one in language.things_seen(clip, None))


def test_events_are_asked_of_clips_and_on_frames_only_a_glow_that_is_on():
    clip, event = next((c, e) for c in CLIPS for e in c.events if e.action == "glows" and e.start > 0)
    assert {"who", "what"} <= {question.kind for question in asked(clip)}
    glows = language.Question("who", "Which object glows?", f"the {clip.things[event.thing].name}")
    assert glows in asked(clip, t=event.start)
    assert not {"who", "what"} & {question.kind for question in asked(clip, t=event.start - 1)}


def test_a_shrunken_thing_is_tiny_on_the_frames_of_its_event_alone():
    clip, event = next((c, e) for c in CLIPS for e in c.events if e.action == "shrinks")
    sizes = [
        language.size(next(one for one in language.things_seen(clip, t) if one.thing is clip.things[event.thing]))
        for t in range(clip.n_frames)
    ]
    assert [size == "tiny" for size in sizes] == [event.start <= t < event.end for t in range(clip.n_frames)]


def test_no_question_is_worded_like_a_task_request():
    for clip in CLIPS:
        for question in asked(clip):
            assert not {"where", "when"} & set(question.text.lower().split())


def test_motion_is_told_only_of_what_moves():
    for clip in CLIPS:
        for number, thing in enumerate(clip.things):
            told = language.expression(clip, number, motion=True)
            assert ("moves to the" in told) == (thing.heading is not None)
            assert thing.name in told
