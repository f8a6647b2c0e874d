"""What augmentation may change, and what it must leave alone."""

from dataclasses import replace

import numpy as np
import pytest
from pydantic import ValidationError

from tpo_core.config.augment import AugmentConfig
from tpo_core.config.schema import PhaseConfig, identity
from tpo_core.data.augment import apply_change, draw_change, may_flip
from tpo_core.data.example import UNCHANGED, Change, Example
from tpo_core.data.instructions import templates
from tpo_core.data.record import Media, Provenance, Rle, Sample, Target, TrackEntry, Turn

FLIP = AugmentConfig(flip=1.0)
JITTER = AugmentConfig(brightness=0.3, contrast=0.5)
BOX = Target("box", box=(10.0, 5.0, 30.5, 20.0))
SPAN = Target("span", span_s=(1.0, 2.0))
TRACK = Target("track", track=(TrackEntry(0, True, box=(0.0, 0.0, 5.0, 5.0)),))
MASK = Target("mask", rle=Rle(4, 4, b"04"), frame=0)
TARGETS = {"box": (BOX,), "span": (SPAN,), "mask": (MASK,), "track": (TRACK,), "chat": ()}
ANSWER = {
    "box": "Answer: <box_begin><boxes> .",
    "span": "The given query happens in <time_begin><temp> seconds.",
    "mask": "Answer: <track_begin><tracking> .",
    "track": "Answer: <track_begin><tracking> .",
    "chat": "A dog.",
}


def sample(task="box", text="Where is the dog?", targets=None, kind=None, answer=None):
    targets = TARGETS[task] if targets is None else targets
    media = Media("m", kind or ("image" if task == "box" else "video"))
    turns = (Turn("user", text), Turn("assistant", answer or ANSWER[task], target_refs=tuple(range(len(targets)))))
    origin = Provenance(source_file="f", row=0, native_id="n", reader="r")
    return Sample("s", "d", "train", task, (media,), turns, origin, targets=targets)


def example(made=None, frames=3):
    pixels = np.random.default_rng(0).integers(0, 256, (frames, 6, 8, 3), dtype=np.uint8)
    return Example(made or sample(), pixels, np.arange(float(frames)), np.arange(frames), 80, 60, float(frames))


def draw(config, made, *parts):
    return draw_change(config, made, *(parts or (0, "mix", 0, 0)))


def test_everything_is_off_unless_asked_for():
    assert not AugmentConfig().active
    assert all(draw(AugmentConfig(), sample(task), 0, "mix", 0, k) == UNCHANGED for task in ANSWER for k in range(20))
    untouched = example()
    assert apply_change(untouched, UNCHANGED) is untouched


@pytest.mark.parametrize("on", [{"brightness": 0.1}, {"contrast": 0.1}, {"flip": 0.5}])
def test_augmentation_is_part_of_the_identity_of_a_phase(on):
    plain = {"name": "mix", "mixture": {"region": 1}, "steps": 1, "batch_size": 4, "micro_batch_size": 4}
    phases = [PhaseConfig.model_validate({**plain, "augment": augment}) for augment in ({}, on)]
    assert identity(phases[0]) != identity(phases[1])
    assert phases[1].augment.active


@pytest.mark.parametrize("wrong", [{"brightness": 1.0}, {"contrast": -0.1}, {"flip": 1.1}, {"crop": 0.5}])
def test_impossible_amounts_are_refused(wrong):
    with pytest.raises(ValidationError):
        AugmentConfig.model_validate(wrong)


def test_a_change_is_a_pure_function_of_what_names_it():
    config = AugmentConfig(brightness=0.2, contrast=0.2, flip=0.5)
    names = [(seed, phase, number, place) for seed in (0, 1) for phase in "ab" for number in (0, 1) for place in (0, 1)]
    drawn = [draw(config, sample(), *name) for name in names]
    assert drawn == [draw(config, sample(), *name) for name in names]
    assert len(set(drawn)) == len(names)


def test_factors_fill_their_range():
    drawn = [draw(JITTER, sample("chat"), 0, "mix", 0, place) for place in range(2000)]
    for values, amount in (([c.brightness for c in drawn], 0.3), ([c.contrast for c in drawn], 0.5)):
        assert 1 - amount <= min(values) < 1 - 0.98 * amount
        assert 1 + 0.98 * amount < max(values) <= 1 + amount
        assert np.mean(values) == pytest.approx(1.0, abs=0.02)


def test_flips_come_as_often_as_asked():
    drawn = [draw(AugmentConfig(flip=0.3), sample(), 0, "mix", 0, place).flip for place in range(2000)]
    assert np.mean(drawn) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("task", list(ANSWER))
def test_every_kind_is_jittered(task):
    before = example(sample(task))
    after = apply_change(before, draw(JITTER, before.sample))
    assert (after.frames_THWC != before.frames_THWC).any()
    assert after.sample == before.sample


def test_brightness_scales_and_contrast_turns_about_the_mean_of_the_clip():
    frames = np.array([40, 60, 200, 100], np.uint8).reshape(2, 1, 2, 1).repeat(3, -1)  # mean 100
    before = replace(example(), frames_THWC=frames)

    def levels(change):
        return apply_change(before, change).frames_THWC[..., 0].ravel().tolist()

    assert levels(Change(brightness=1.5)) == [60, 90, 255, 150]
    assert levels(Change(contrast=0.5)) == [70, 80, 150, 100]
    assert levels(Change(contrast=2.0)) == [0, 20, 255, 100]
    assert levels(Change(brightness=0.5, contrast=0.5)) == [35, 40, 75, 50]


def test_all_frames_of_a_clip_change_alike():
    still = example(sample("span"))
    still = replace(still, frames_THWC=still.frames_THWC[:1].repeat(4, 0))
    changed = apply_change(still, Change(brightness=1.2, contrast=0.7, flip=True)).frames_THWC
    assert (changed == changed[0]).all()
    assert changed.dtype == np.uint8
    assert changed.flags["C_CONTIGUOUS"]


def test_a_flip_mirrors_the_boxes_of_an_image_with_its_pixels():
    before = example(sample(targets=(BOX, Target("box", box=(-2.0, 0.0, 90.0, 60.0)))), frames=1)
    after = apply_change(before, draw(FLIP, before.sample))
    assert [target.box for target in after.sample.targets] == [(49.5, 5.0, 70.0, 20.0), (-10.0, 0.0, 82.0, 60.0)]
    assert (after.frames_THWC == before.frames_THWC[:, :, ::-1]).all()
    assert after.change == Change(flip=True)
    assert before.sample.targets[0].box == BOX.box


def test_a_box_still_holds_the_pixels_it_held():
    """Half-open boxes mirror without a shift by one: the same pixels, in reverse."""
    before = replace(example(frames=1), width=8, height=6, sample=sample(targets=(Target("box", box=(1, 2, 4, 5)),)))
    after = apply_change(before, Change(flip=True))

    def inside(each):
        x1, y1, x2, y2 = map(int, each.sample.targets[0].box)
        return each.frames_THWC[0, y1:y2, x1:x2]

    assert (inside(after) == inside(before)[:, ::-1]).all()


def test_a_flip_leaves_moments_as_they_are():
    before = example(sample("span"))
    after = apply_change(before, draw(FLIP, before.sample))
    assert after.change.flip
    assert after.sample == before.sample
    assert (after.times_s == before.times_s).all()


def test_masks_tracks_and_conversation_are_never_flipped():
    for task in ("mask", "track", "chat"):
        assert not may_flip(sample(task)), task
    assert not may_flip(sample("span", targets=(SPAN, TRACK)))
    assert not may_flip(sample("span", targets=(SPAN, BOX)))
    assert not may_flip(sample("box", targets=(BOX, MASK)))


def test_boxes_are_flipped_on_images_only():
    assert may_flip(sample("box", kind="image"))
    assert not may_flip(sample("box", kind="video"))
    assert not may_flip(sample("box", kind="frames"))
    two = sample("box")
    assert not may_flip(replace(two, media=two.media * 2)), "which of the two the boxes are on is not known"
    assert not may_flip(replace(sample("span"), media=()))


@pytest.mark.parametrize(
    "phrase",
    [
        "the LEFT dog", "the right-hand cup", "leftmost chair", "far righty", "r guy", "lft", "car on rt", "east tower",
        "the other side", "turning clockwise", "he spins counter-clockwise", "spinning anticlockwise",
        "cup at 3 o'clock", "cup at three oclock", "the text above", "the letters", "number of the bus", "a digit",
        "the word", "stop sign", "what is written there", "it says stop", "shirt that reads go",
        "person reading a book", "a person writes", "bus 42", "the label", "the logo", "license plate",
        "der Hund f\u00fcr uns",
    ],
)  # fmt: skip
@pytest.mark.parametrize("task", ["box", "span"])
def test_a_text_that_a_flip_might_make_false_is_left_alone(task, phrase):
    assert not may_flip(sample(task, f"Where is {phrase}?"))
    assert not may_flip(sample(task, answer=f"{phrase}: {ANSWER[task]}"))


@pytest.mark.parametrize(
    "phrase",
    [
        "the bright dog", "an upright chair", "copyright", "inside the house", "beside a tree", "a cleft rock", "bread",
        "a textured wall", "a signal", "a person opens the fridge", "player", "the middle one",
    ],
)  # fmt: skip
def test_words_that_only_look_alike_do_no_harm(phrase):
    assert may_flip(sample("box", f"Where is {phrase}?"))


def test_counting_from_a_side_stops_boxes_but_not_moments():
    assert not may_flip(sample("box", "Where is the second bus?"))
    assert not may_flip(sample("box", "Where is the last chair?"))
    assert may_flip(sample("span", "From the first second to the last, when does he sit?"))


def test_no_template_stands_in_the_way_of_a_flip():
    for form, task in (("region", "box"), ("temporal", "span")):
        for question in templates()[form]["questions"]:
            text = question.replace("{expression}", "a person sits down")
            assert may_flip(sample(task, text, answer=templates()[form]["answer"])), text


def test_a_sample_without_frames_stays_as_it_is():
    bare = example(sample("chat"), frames=0)
    assert apply_change(bare, Change(brightness=1.2)) is bare
