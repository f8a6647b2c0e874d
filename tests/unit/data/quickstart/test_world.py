"""The rendered world: pure functions of seeds, held-out pairs, short moments, and masks that match the pixels."""

import numpy as np
import pytest

from tpo_core.data.quickstart.draw import RGB, render
from tpo_core.data.quickstart.world import (
    COLOURS,
    FPS,
    KINDS,
    N_FRAMES,
    SIDE_PX,
    UNSEEN_GROUNDS,
    UNSEEN_PAIRS,
    Clip,
    Event,
    Thing,
    sample_clip,
)

SEEDS = range(120)


def pairs(clip: Clip) -> set[tuple[str, str]]:
    return {(thing.colour, thing.kind) for thing in clip.things}


def still(kind: str, colour: str, centre=(48.0, 48.0), events=()) -> Clip:
    thing = Thing(kind, colour, "plain", 16.0, 0.0, np.tile(np.array(centre), (N_FRAMES, 1)))
    return Clip("c", "stone", 3, (0.0, 0.0), (thing,), tuple(events))


def test_a_clip_is_a_pure_function_of_its_seed():
    first, again, other = (render(sample_clip("c", seed))[0] for seed in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_things_of_a_clip_have_distinct_names_and_stay_in_the_frame():
    for seed in SEEDS:
        clip = sample_clip("c", seed)
        assert len(pairs(clip)) == len(clip.things) in (2, 3)
        for thing in clip.things:
            assert (thing.centres_T2 - thing.radius_px >= 0).all()
            assert (thing.centres_T2 + thing.radius_px <= SIDE_PX).all()


def test_held_out_pairs_and_grounds_show_up_in_the_unseen_part_only():
    assert {kind for _, kind in UNSEEN_PAIRS} == set(KINDS)
    assert {colour for colour, _ in UNSEEN_PAIRS} == set(COLOURS)
    for seed in SEEDS:
        seen, unseen = sample_clip("c", seed), sample_clip("c", seed, unseen=True)
        assert not pairs(seen) & UNSEEN_PAIRS
        assert seen.ground not in UNSEEN_GROUNDS
        assert pairs(unseen) & UNSEEN_PAIRS
        assert unseen.ground in UNSEEN_GROUNDS


def test_moments_are_so_short_that_the_whole_clip_is_no_answer():
    for seed in SEEDS:
        clip = sample_clip("c", seed)
        assert 1 <= len(clip.events) <= 2
        assert len({event.thing for event in clip.events}) == len(clip.events)
        for event in clip.events:
            start_s, end_s = event.span_s()
            assert 0 <= start_s < end_s <= clip.duration_s
            assert (end_s - start_s) / clip.duration_s < 0.5


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_draws_a_mask_of_its_colour_around_its_centre(kind):
    frames, masks = render(still(kind, "red"))
    mask = masks[0, 0]
    ys, xs = np.nonzero(mask)
    assert 150 < mask.sum() < 33 * 33
    assert abs(xs.mean() - 48) < 8, "a crescent lies half a radius off its centre"
    assert abs(ys.mean() - 48) < 6
    painted = frames[0][mask].astype(int)
    assert (painted[:, 0] > painted[:, 1] + 40).mean() > 0.9, "the mask covers the thing, and nothing else"


def test_colours_are_told_apart_by_their_mean():
    means = [render(still("box", colour))[0][0, 40:56, 40:56].reshape(-1, 3).mean(0) for colour in RGB]
    gaps = [np.abs(a - b).sum() for i, a in enumerate(means) for b in means[:i]]
    assert min(gaps) > 60


def test_later_things_hide_earlier_ones():
    below, above = still("box", "red").things[0], still("ball", "blue").things[0]
    _, masks = render(Clip("c", "stone", 3, (0.0, 0.0), (below, above), ()))
    assert not (masks[0] & masks[1]).any()
    assert masks[1, 0, 48, 48]


def test_an_event_changes_exactly_its_frames():
    for action in ("vanishes", "shrinks", "glows"):
        frames, masks = render(still("ball", "green", events=[Event(0, action, 4, 8)]))
        rest = np.delete(np.arange(N_FRAMES), range(4, 8))
        assert np.array_equal(frames[rest[0]], frames[rest[-1]])
        assert not np.array_equal(frames[4], frames[0])
        areas = masks[0].sum((1, 2))
        if action == "vanishes":
            assert (areas[4:8] == 0).all()
        elif action == "shrinks":
            assert (areas[4:8] < 0.4 * areas[0]).all()
        else:
            assert (areas == areas[0]).all()


def test_spans_are_seconds_on_the_clips_timeline():
    assert Event(0, "glows", 4, 8).span_s() == (4 / FPS, 8 / FPS)
