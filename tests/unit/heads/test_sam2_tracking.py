"""Prompts that stand in for boxes, and objects followed from them, against SAM2 as Hugging Face runs it."""

import pytest
import torch
from torch import Tensor
from transformers import Sam2VideoInferenceSession

from tests.tiny_sam2 import IMAGE_SIZE, random_clip, tiny_config, tiny_sam2
from tpo_core.heads.sam2.frozen import FrozenSam2
from tpo_core.heads.sam2.tracking import Frames, forget_full_masks, new_session, prompted, track

BOXES_N4 = torch.tensor([[0.1, 0.2, 0.6, 0.7], [0.3, 0.1, 0.9, 0.5]])
CORNER_LABELS = torch.tensor([[[2, 3]]], dtype=torch.int32)


@pytest.fixture(scope="module")
def sam() -> FrozenSam2:
    return FrozenSam2(tiny_sam2())


def followed(sam: FrozenSam2, clip: Tensor, prompts_N3C: Tensor, start: int = 0) -> Tensor:
    """Logits (T, N, h, w) in order of time."""
    found = dict(track(sam, clip, prompts_N3C, start))
    return torch.stack([found[place] for place in range(len(clip))])


def plain_sam2(sam: FrozenSam2, clip: Tensor, boxes_N4: Tensor, start: int) -> Tensor:
    """The same by the model's own means: corners as points, all frames given at once, its own iterator."""
    session = Sam2VideoInferenceSession(video=sam.pixels(clip), dtype=torch.float32)
    for number, box_4 in enumerate(boxes_N4 * IMAGE_SIZE):
        index = session.obj_id_to_idx(number)
        points = {"point_coords": box_4.view(1, 1, 2, 2), "point_labels": CORNER_LABELS}
        session.add_point_inputs(index, start, points)
        session.obj_with_new_inputs.append(number)
    found = {}
    for reverse in (False, True):
        for output in sam.model.propagate_in_video_iterator(session, start_frame_idx=start, reverse=reverse):
            found[output.frame_idx] = output.pred_masks[:, 0]
    return torch.stack([found[place] for place in range(len(clip))])


def require_close(found: Tensor, want: Tensor, start: int) -> None:
    """Equal on the first frame that is looked at. The others look at memories, which SAM2 keeps in bf16: there the last
    digit of fp32, another one on another processor, moves logits by up to .3 % of their spread."""
    torch.testing.assert_close(found[start], want[start], atol=1e-4, rtol=1e-4)
    assert (found - want).abs().max() < 0.01 * want.std()


@pytest.mark.parametrize("start", [0, 2, 4])
@pytest.mark.parametrize("version_2_1", [False, True])
def test_prompts_of_boxes_give_what_sam2_gives_for_the_boxes(start, version_2_1):
    sam, clip = FrozenSam2(tiny_sam2(tiny_config(version_2_1=version_2_1))), random_clip(5)
    want = plain_sam2(sam, clip, BOXES_N4, start)
    require_close(followed(sam, clip, sam.embed_boxes(BOXES_N4), start), want, start)
    assert (want[start, 0] != want[start, 1]).any()


def test_two_objects_together_are_each_of_them_alone(sam):
    clip, prompts_N3C = random_clip(4), sam.embed_boxes(BOXES_N4)
    together = followed(sam, clip, prompts_N3C, 1)
    for number in range(2):
        require_close(together[:, [number]], followed(sam, clip, prompts_N3C[[number]], 1), 1)


def test_frames_come_forwards_and_then_backwards_each_once(sam):
    places = [place for place, _ in track(sam, random_clip(5), sam.embed_boxes(BOXES_N4), 2)]
    assert places == [2, 3, 4, 1, 0]


def test_a_clip_of_one_frame(sam):
    assert followed(sam, random_clip(1), sam.embed_boxes(BOXES_N4)).shape == (1, 2, 16, 16)


def test_a_prompt_frame_outside_the_clip_is_refused(sam):
    with pytest.raises(AssertionError, match="prompted on frame 3 of 3"):
        followed(sam, random_clip(3), sam.embed_boxes(BOXES_N4), 3)


def test_frames_are_prepared_one_at_a_time(sam, monkeypatch):
    asked, prepare = [], sam.pixels
    monkeypatch.setattr(sam, "pixels", lambda frames: asked.append(len(frames)) or prepare(frames))
    followed(sam, random_clip(3), sam.embed_boxes(BOXES_N4))
    assert asked == [1, 1, 1]


def test_full_masks_are_forgotten_and_the_memory_is_not(sam):
    clip, prompts_N3C = random_clip(2), sam.embed_boxes(BOXES_N4)
    session = new_session(Frames(sam, clip, torch.device("cpu")), 2, 0)
    with prompted(sam.model.prompt_encoder, prompts_N3C):
        sam.model(inference_session=session, frame_idx=0)
    outputs = session.output_dict_per_obj[1]["cond_frame_outputs"][0]
    before = set(outputs)
    forget_full_masks(session, 0)
    assert before - set(outputs) == {"high_res_masks"}
    assert {"maskmem_features", "object_pointer"} <= set(outputs)


def test_boxes_are_replaced_in_order_and_nothing_else_is(sam):
    encoder, prompts_N3C = sam.model.prompt_encoder, torch.randn(2, 3, sam.prompt_width)
    corners, point = torch.rand(1, 1, 2, 2), torch.rand(1, 1, 1, 2)
    one = torch.ones(1, 1, 1, dtype=torch.int32)
    _, dense = encoder(corners, CORNER_LABELS, None, None)
    plain_point, _ = encoder(point, one, None, None)
    with prompted(encoder, prompts_N3C):
        first, dense_now = encoder(corners, CORNER_LABELS, None, None)
        point_now, _ = encoder(point, one, None, None)
        second, _ = encoder(None, None, torch.rand(1, 1, 4), None)
    assert torch.equal(first[0, 0], prompts_N3C[0])
    assert torch.equal(second[0, 0], prompts_N3C[1])
    assert torch.equal(point_now, plain_point)
    assert torch.equal(dense_now, dense)


def test_the_encoder_is_itself_again_afterwards_and_after_a_failure(sam):
    encoder, prompts_N3C = sam.model.prompt_encoder, torch.zeros(1, 3, sam.prompt_width)
    before, _ = encoder(None, None, torch.full((1, 1, 4), 5.0), None)
    with prompted(encoder, prompts_N3C):
        pass
    with pytest.raises(ZeroDivisionError), prompted(encoder, prompts_N3C):
        raise ZeroDivisionError
    assert not encoder._forward_hooks
    after, _ = encoder(None, None, torch.full((1, 1, 4), 5.0), None)
    assert torch.equal(before, after)
    broken = random_clip(1)[:, :1]  # one channel: the image encoder fails after the hook is set
    with pytest.raises(RuntimeError):
        followed(sam, broken.expand(-1, 2, -1, -1), prompts_N3C)
    assert not encoder._forward_hooks
