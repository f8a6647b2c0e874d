import dataclasses

import numpy as np
import pytest
import torch

from tpo_core.data.record import Target, TrackEntry
from tpo_core.data.rle import encode
from tpo_core.models.targets import BUILDERS

SIZE = 10  # of small masks; the media is 40 x 30


def mask(rows: slice, columns: slice):
    full = np.zeros((30, 40), bool)
    full[rows, columns] = True
    return encode(full)


LEFT, RIGHT = mask(slice(None), slice(0, 20)), mask(slice(None), slice(20, 40))


def one(example, *targets):
    """The tensors of an example whose answer refers to these targets."""
    kind = {"box": "region", "span": "temporal", "track": "mask"}[example.sample.task]
    user, assistant = example.sample.turns
    turns = (
        dataclasses.replace(user, target_refs=()),
        dataclasses.replace(assistant, target_refs=tuple(range(len(targets)))),
    )
    sample = dataclasses.replace(example.sample, targets=targets, turns=turns)
    return BUILDERS[kind].one(dataclasses.replace(example, sample=sample), SIZE)


def track(*entries):
    return Target("track", track=entries)


def test_the_first_box_is_learned_unclipped(make_example):
    box = one(make_example("region"), Target("box", box=(-4.0, 3.0, 20.0, 33.0)), Target("box", box=(0, 0, 1, 1)))
    torch.testing.assert_close(box, torch.tensor([-0.1, 0.1, 0.5, 1.1]))


@pytest.mark.parametrize(("rule", "spans"), [("any_of", [[0.25, 0.5]]), ("all_of", [[0.25, 0.5], [0.75, 1.0]])])
def test_of_alternative_moments_one_is_learned_and_of_a_set_all(make_example, rule, spans):
    targets = [Target("span", set_rule=rule, span_s=span) for span in ((2.0, 4.0), (6.0, 8.5))]
    torch.testing.assert_close(one(make_example("temporal"), *targets), torch.tensor(spans))


def test_parts_are_united_and_count_only_together(make_example):
    first = track(TrackEntry(0, True, rle=LEFT), TrackEntry(4, True, rle=LEFT), TrackEntry(8, True, rle=LEFT))
    second = track(TrackEntry(0, True, rle=RIGHT), TrackEntry(4, False), TrackEntry(8, True, box=(0, 0, 9, 9)))
    masks, valid, box_only, _ = one(make_example("mask"), first, second)
    assert valid.tolist() == [True, True, False, False], "of one visible part the mask is unknown"
    assert masks[0].all()
    assert masks[1, :, :5].all()
    assert not masks[1, :, 5:].any()
    assert not box_only


def test_boxes_of_parts_become_the_box_around_them(make_example):
    first, second = (track(TrackEntry(0, True, box=box)) for box in ((0.0, 3.0, 4.0, 6.0), (8.0, 0.0, 20.0, 5.0)))
    _, valid, box_only, boxes = one(make_example("mask"), first, second)
    assert box_only
    assert valid.tolist() == [True, False, False, False]
    torch.testing.assert_close(boxes[0], torch.tensor([0.0, 0.0, 0.5, 0.2]))


def test_boxes_of_masks_are_tight_to_the_pixel(make_example):
    mask = np.zeros((30, 40), bool)
    mask[7:12, 3:31] = True
    far = np.zeros((30, 40), bool)
    far[29, 39] = True
    empty = encode(np.zeros((30, 40), bool))
    first = track(
        TrackEntry(0, True, rle=encode(mask)), TrackEntry(4, True, rle=encode(mask)), TrackEntry(8, True, rle=empty)
    )
    second = track(TrackEntry(4, True, rle=encode(far)))
    boxes = one(make_example("mask"), first, second)[3]
    torch.testing.assert_close(boxes[0], torch.tensor([3 / 40, 7 / 30, 31 / 40, 12 / 30]))
    torch.testing.assert_close(boxes[1], torch.tensor([3 / 40, 7 / 30, 1.0, 1.0]))
    assert boxes[2:].isnan().all()


def test_a_mask_of_one_frame_is_learned_on_that_frame(make_example):
    masks, valid, _, _ = one(make_example("mask"), Target("mask", frame=8, rle=RIGHT))
    assert valid.tolist() == [False, False, True, False]
    assert masks.flatten(1).any(1).tolist() == [False, False, True, False]


def test_frames_that_pad_a_batch_are_not_valid(make_example):
    rows = [one(make_example("mask", frames), Target("mask", frame=0, rle=LEFT)) for frames in (1, 2)]
    batch = BUILDERS["mask"].stack(rows, 3)
    assert batch.masks_NTHW.shape == (2, 3, SIZE, SIZE)
    assert batch.valid_NT.tolist() == [[True, False, False]] * 2
    assert batch.boxes_NT4[:, 1:].isnan().all()
