"""The parts of a context that heads looking at frames need, through rows, frames and moves."""

import torch

from tests.tiny_sam2 import context_of, random_clip
from tpo_core.heads.base import HeadContext


def three_rows() -> HeadContext:
    clips = [random_clip(4, seed=1), random_clip(2, 30, 20, seed=2), random_clip(3, seed=3)]
    boxes_B4 = torch.arange(12.0).view(3, 4)
    return context_of(clips, given_boxes_B4=boxes_B4, prompt_frame_B=torch.tensor([3, 0, 1]))


def test_rows_come_with_their_frames_and_boxes():
    context = three_rows()
    picked = context.rows(torch.tensor([2, 1, 1]))
    assert [len(clip) for clip in picked.stored_frames] == [3, 2, 2]
    assert torch.equal(picked.stored_frames[0], context.stored_frames[2])
    assert picked.given_boxes_B4[:, 0].tolist() == [8, 4, 4]
    assert picked.prompt_frame_B.tolist() == [1, 0, 0]


def test_picked_frames_are_those_stored_and_none_that_pads():
    context = three_rows()
    picked = context.frames(torch.tensor([[1, 3], [1, 3], [0, 2]]))
    assert [len(clip) for clip in picked.stored_frames] == picked.frame_mask_BT.sum(1).tolist() == [2, 1, 2]
    assert torch.equal(picked.stored_frames[0], context.stored_frames[0][[1, 3]])
    assert torch.equal(picked.stored_frames[1], context.stored_frames[1][1:])


def test_the_prompt_frame_keeps_its_place_among_those_picked_or_is_the_first():
    picked = three_rows().frames(torch.tensor([[1, 3], [1, 3], [0, 2]]))
    assert picked.prompt_frame_B.tolist() == [1, 0, 0]


def test_frames_move_with_the_rest_and_may_be_absent(random_context):
    moved = three_rows().to("meta")
    assert {clip.device.type for clip in moved.stored_frames} == {"meta"}
    assert moved.given_boxes_B4.device.type == "meta"
    without = random_context(2, 3)
    for context in (without.rows(torch.tensor([1])), without.frames(torch.tensor([[0], [2]])), without.to("meta")):
        assert context.stored_frames is None
        assert context.prompt_frame_B is None
