"""Masks over the stored frames of clips, from the language model's prompt or from a given box."""

import pytest
import torch
from torch import Tensor

from tests.tiny_sam2 import context_of, random_clip, tiny_sam2
from tpo_core.config.model import Sam2MaskConfig
from tpo_core.heads.base import HeadContext, MaskPrediction
from tpo_core.heads.sam2.frozen import FrozenSam2
from tpo_core.heads.sam2.head import Sam2MaskHead

HIDDEN = 12
BOXES_N4 = torch.tensor([[0.1, 0.2, 0.6, 0.7], [0.3, 0.1, 0.9, 0.5]])


@pytest.fixture(scope="module")
def sam() -> FrozenSam2:
    return FrozenSam2(tiny_sam2())


@pytest.fixture
def head(sam) -> Sam2MaskHead:
    return head_of(sam)


def head_of(sam: FrozenSam2, **settings) -> Sam2MaskHead:
    torch.manual_seed(3)
    return Sam2MaskHead(Sam2MaskConfig(**settings), HIDDEN, sam)


def hidden(rows: int) -> Tensor:
    return torch.randn(rows, HIDDEN, generator=torch.Generator().manual_seed(1))


def same(one: MaskPrediction, other: MaskPrediction) -> bool:
    return torch.equal(one.masks_THW, other.masks_THW) and torch.allclose(one.scores_T, other.scores_T, atol=1e-4)


def test_masks_have_the_original_size_and_the_stored_frames_alone(head):
    context = context_of([random_clip(3), random_clip(1, 30, 44)])
    context.size_wh_B2 = torch.tensor([[112.0, 80.0], [44.0, 30.0]])
    predictions = head.predict(hidden(2), context)
    assert [tuple(one.masks_THW.shape) for one in predictions] == [(3, 80, 112), (1, 30, 44)]
    for one in predictions:
        assert one.masks_THW.dtype == torch.bool
        assert len(one.boxes_T4) == len(one.scores_T) == len(one.masks_THW)
        assert one.masks_THW.any()
        for mask_HW, box_4, score in zip(one.masks_THW, one.boxes_T4, one.scores_T, strict=True):
            y, x = mask_HW.nonzero().T
            assert box_4.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1]
            assert 0.5 < score <= 1


def test_padding_and_the_company_of_other_clips_change_nothing(head):
    clips = [random_clip(3, seed=1), random_clip(1, 30, 44, seed=2)]
    together = head.predict(hidden(2), context_of(clips))
    for row, clip in enumerate(clips):
        [alone] = head.predict(hidden(2)[[row]], context_of([clip]))
        assert same(together[row], alone)


def test_objects_of_one_clip_pass_the_image_encoder_together(head, sam, monkeypatch):
    clip, asked, prepare = random_clip(3), [], sam.pixels
    apart = head.predict(hidden(2), context_of([clip, clip]))
    monkeypatch.setattr(sam, "pixels", lambda frames: asked.append(len(frames)) or prepare(frames))
    together = head.predict(hidden(2), context_of([clip, clip], clip_B=torch.tensor([4, 4])))
    assert asked == [1, 1, 1]
    assert all(same(one, other) for one, other in zip(together, apart, strict=True))
    assert not same(*together)


def test_objects_of_one_clip_may_be_prompted_on_different_frames(head):
    clip = random_clip(3)
    shared = {"clip_B": torch.tensor([0, 0]), "prompt_frame_B": torch.tensor([2, 0])}
    late, early = head.predict(hidden(1).expand(2, -1), context_of([clip, clip], **shared))
    [first] = head.predict(hidden(1), context_of([clip]))
    [last] = head.predict(hidden(1), context_of([clip], prompt_frame_B=torch.tensor([2])))
    assert same(early, first)
    assert same(late, last)
    assert not same(late, early)


def test_predictions_keep_the_order_of_rows_when_clips_alternate(head):
    clips = [random_clip(2, seed=seed) for seed in (1, 2)]
    context = context_of([clips[0], clips[1], clips[0]], clip_B=torch.tensor([0, 1, 0]))
    predictions = head.predict(hidden(3), context)
    for row in range(3):
        [alone] = head.predict(hidden(3)[[row]], context.rows(torch.tensor([row])))
        assert same(predictions[row], alone)


def with_boxes(*boxes: list[float]) -> HeadContext:
    return context_of([random_clip(2)] * len(boxes), given_boxes_B4=torch.tensor(boxes))


NO_BOX = [torch.nan] * 4


def test_a_given_box_prompts_sam2_only_where_the_recipe_says_so(head, sam):
    context = with_boxes(BOXES_N4[0].tolist(), NO_BOX)
    by_language, by_box = head.predict(hidden(2), context), head_of(sam, box_prompt="given").predict(hidden(2), context)
    plain = head.track(sam.embed_boxes(BOXES_N4[:1]), context.rows(torch.tensor([0])))[0]
    assert same(by_box[0], plain)
    assert not same(by_language[0], plain)
    assert same(by_box[1], by_language[1])  # no box in this question
    without = context_of([random_clip(2)] * 2)
    assert same(head_of(sam, box_prompt="given").predict(hidden(2), without)[0], by_language[0])


def test_a_degenerate_box_is_followed_all_the_same(sam):
    head = head_of(sam, box_prompt="given")
    for one in head.predict(hidden(2), with_boxes([0.5, 0.5, 0.5, 0.5], [0.9, 0.9, 0.1, 0.1])):
        assert one.scores_T.isfinite().all()


def test_an_object_out_of_sight_has_no_mask_no_box_and_no_score():
    model = tiny_sam2()
    model.mask_decoder.pred_obj_score_head.proj_out.bias.data.fill_(-100)
    [one] = head_of(FrozenSam2(model)).predict(hidden(1), context_of([random_clip(2)]))
    assert not one.masks_THW.any()
    assert one.boxes_T4.isnan().all()
    assert (one.scores_T == 0).all()


def test_a_sample_without_frames_has_a_mask_of_no_frames(head):
    context = context_of([random_clip(1), random_clip(1)[:0]])
    filled, empty = head.predict(hidden(2), context)
    assert filled.masks_THW.shape[0] == 1
    assert empty.masks_THW.shape == (0, 40, 56)
    assert empty.boxes_T4.shape == (0, 4)
    assert empty.scores_T.shape == (0,)


def test_what_was_predicted_carries_no_graph(head):
    [one] = head.predict(hidden(1).requires_grad_(), context_of([random_clip(1)]))
    assert not one.scores_T.requires_grad


def test_a_context_without_stored_frames_or_with_other_counts_is_refused(head, random_context):
    with pytest.raises(AssertionError, match="put them into the context"):
        head.predict(hidden(1), random_context(1, 2))
    context = context_of([random_clip(2)])
    context.stored_frames = [random_clip(3)]
    with pytest.raises(AssertionError, match=r"\[3\] stored frames where the frame mask has \[2\]"):
        head.predict(hidden(1), context)
