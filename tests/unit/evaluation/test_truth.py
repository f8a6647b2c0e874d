from dataclasses import replace

import numpy as np
import pytest

from tests.unit.evaluation.conftest import BOX, FRAMES, make_example, make_sample, true_mask, write_shards
from tpo_core.data.record import Target, TrackEntry
from tpo_core.data.rle import encode
from tpo_core.data.shards import ShardSet
from tpo_core.evaluation import truth

MASK = encode(true_mask())
OTHER_BOX = (18.0, 1.0, 30.0, 9.0)
ABSENT = [TrackEntry(frame, False) for frame in FRAMES]
BETWEEN = FRAMES[0] + 1  # not stored


def with_targets(sample, *targets):
    """The sample, whose answer refers to these targets."""
    user, assistant = sample.turns
    return replace(sample, targets=targets, turns=(user, replace(assistant, target_refs=tuple(range(len(targets))))))


def tracked(task, *tracks):
    return with_targets(make_sample(task), *(Target("track", track=tuple(track)) for track in tracks))


def shown(sample):
    return replace(make_example("mask"), sample=sample)


def test_a_frame_without_a_label_is_unknown_and_an_absent_one_is_known():
    given = [TrackEntry(0, True, rle=MASK), TrackEntry(4, False), TrackEntry(8, True, box=BOX)]
    sample = tracked("mask", given)
    assert truth.masked_frames(sample, np.array(FRAMES)).tolist() == [True, True, False, False]
    assert truth.true_masks(shown(sample)).any(axis=(1, 2)).tolist() == [True, False, False, False]
    boxes = truth.true_track(shown(sample))
    assert np.isfinite(boxes).all(axis=1).tolist() == [False, False, True, False]


def test_the_parts_of_a_group_are_united():
    sample = tracked("track", [TrackEntry(0, True, box=BOX)], [TrackEntry(0, True, box=OTHER_BOX)])
    assert truth.true_track(shown(sample))[0].tolist() == [4.0, 1.0, 30.0, 15.0]
    lower = np.zeros_like(true_mask())
    lower[20:25, 4:20] = True
    sample = tracked("mask", [TrackEntry(0, True, rle=MASK)], [TrackEntry(0, True, rle=encode(lower))])
    np.testing.assert_array_equal(truth.true_masks(shown(sample))[0], true_mask() | lower)
    half = tracked("mask", [TrackEntry(0, True, rle=MASK)], [TrackEntry(0, True, box=BOX)])
    assert not truth.masked_frames(half, np.array(FRAMES)).any(), "of one visible part the mask is unknown"


def test_a_mask_of_one_frame_is_a_track_of_one_entry():
    sample = with_targets(make_sample("mask"), Target("mask", frame=8, rle=MASK))
    assert truth.masked_frames(sample, np.array(FRAMES)).tolist() == [False, False, True, False]
    np.testing.assert_array_equal(truth.true_masks(shown(sample))[2], true_mask())


@pytest.mark.parametrize(
    ("sample", "asked"),
    [
        (tracked("mask", [TrackEntry(4, True, rle=MASK)]), True),
        (tracked("mask", ABSENT), True),  # the right mask is empty
        (tracked("mask", [TrackEntry(BETWEEN, True, rle=MASK)]), False),
        (tracked("mask", [TrackEntry(4, True, box=BOX)]), False),
        (tracked("track", [TrackEntry(4, True, box=BOX)]), True),
        (tracked("track", [*ABSENT, TrackEntry(BETWEEN, True, box=BOX)]), False),
        (tracked("track", [TrackEntry(4, True, rle=MASK)]), False),
        (with_targets(make_sample("mask")), False),
        (with_targets(make_sample("moment")), False),
        (with_targets(make_sample("region")), False),
        (make_sample("moment"), True),
        (make_sample("region"), True),
        (make_sample("qa"), True),
    ],
)
def test_only_samples_with_something_to_compare_with_are_scorable(tmp_path, sample, asked):
    shards = ShardSet.open(write_shards(tmp_path / "shards", {"val": [sample]}))
    assert truth.scorable(sample, shards) is asked
