"""SAM2 as a tool: loaded in full or refused, prompts of boxes, pixels, and masks that a gradient passes through."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tests.tiny_sam2 import IMAGE_SIZE, random_clip, tiny_sam2
from tpo_core.errors import TpoError
from tpo_core.heads.sam2.frozen import MEAN, STD, FrozenSam2
from tpo_core.heads.sam2.tracking import prompted, track


@pytest.fixture(scope="module")
def sam() -> FrozenSam2:
    return FrozenSam2(tiny_sam2())


@pytest.fixture
def folder(tmp_path):
    tiny_sam2().save_pretrained(tmp_path)
    return tmp_path


def test_it_is_loaded_from_a_folder_and_from_a_uri(folder, sam):
    for source in (str(folder), f"file://{folder}"):
        loaded = FrozenSam2.load(source)
        assert (loaded.image_size, loaded.prompt_width) == (IMAGE_SIZE, 128)
        want = sam.model.state_dict()
        assert all(torch.equal(value, want[name]) for name, value in loaded.model.state_dict().items())


def test_weights_stored_in_bf16_are_computed_with_in_fp32(tmp_path):
    tiny_sam2().bfloat16().save_pretrained(tmp_path)
    model = FrozenSam2.load(str(tmp_path)).model
    assert {value.dtype for value in model.parameters()} == {torch.float32}
    assert not any(value.requires_grad for value in model.parameters())
    assert not model.training


@pytest.mark.parametrize("source", ["no/such/folder", "file:///no/such/folder", "not a name"])
def test_a_source_that_is_nowhere_is_a_mistake_of_the_recipe(source):
    with pytest.raises(TpoError, match=r"^no SAM2 video model at .* \(model\.mask\.sam2\.source\): [^\n]+$"):
        FrozenSam2.load(source)


def test_a_checkpoint_that_lacks_a_tensor_is_refused_and_not_filled_up(folder):
    state = load_file(folder / "model.safetensors")
    save_file(
        {name: value for name, value in state.items() if name != "no_object_pointer"}, folder / "model.safetensors"
    )
    with pytest.raises(TpoError, match=r"it lacks no_object_pointer \(1 tensors differ\)"):
        FrozenSam2.load(str(folder))


def test_a_checkpoint_with_a_tensor_too_many_is_refused(folder):
    state = load_file(folder / "model.safetensors")
    save_file({**state, "mask_decoder.more": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(TpoError, match=r"it holds mask_decoder\.more, which its config does not have"):
        FrozenSam2.load(str(folder))


def test_a_checkpoint_of_another_size_than_its_config_is_refused(folder):
    state = load_file(folder / "model.safetensors")
    save_file({**state, "no_object_pointer": torch.zeros(1, 3)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(TpoError, match=r"^no SAM2 video model at [^\n]+$"):
        FrozenSam2.load(str(folder))


def test_prompts_need_no_image(sam, monkeypatch):
    monkeypatch.setattr(sam.model.vision_encoder, "forward", None)
    assert sam.embed_boxes(torch.rand(5, 4)).shape == (5, 3, sam.prompt_width)
    assert sam.embed_boxes(torch.zeros(0, 4)).shape == (0, 3, sam.prompt_width)


def test_only_corners_tell_boxes_apart_and_any_box_has_a_prompt(sam):
    boxes_N4 = torch.tensor(
        [[0.1, 0.1, 0.5, 0.5], [0.1, 0.1, 0.6, 0.5], [0.9, 0.9, 0.2, 0.2], [-1, -1, 3, 3], [0, 0, 0, 0]]
    )
    prompts_N3C = sam.embed_boxes(boxes_N4)
    assert prompts_N3C.isfinite().all()
    assert torch.equal(prompts_N3C[0, 0], prompts_N3C[1, 0])
    assert not torch.equal(prompts_N3C[0, 1], prompts_N3C[1, 1])
    assert torch.equal(prompts_N3C[:, 2], prompts_N3C[:1, 2].expand(5, -1))


def test_pixels_are_stretched_as_pillow_does_and_normalised(sam):
    clip = random_clip(2, 90, 120) // 2 + 64  # far from 0 and 255, where Pillow would cut between its two passes
    got = sam.pixels(clip) * torch.tensor(STD)[:, None, None] + torch.tensor(MEAN)[:, None, None]
    for frame_3HW, pixels_3SS in zip(clip, got, strict=True):
        image = Image.fromarray(frame_3HW.permute(1, 2, 0).numpy())
        want = np.asarray(image.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)) / 255
        assert np.abs(pixels_3SS.permute(1, 2, 0).numpy() - want).max() < 1.5 / 255


def test_pixels_of_the_right_size_are_only_normalised(sam):
    white = torch.full((1, 3, IMAGE_SIZE, IMAGE_SIZE), 255, dtype=torch.uint8)
    want = (1 - torch.tensor(MEAN)) / torch.tensor(STD)
    torch.testing.assert_close(sam.pixels(white)[0].mean((1, 2)), want)


def test_masks_of_prompts_are_those_of_the_first_frame_of_a_video(sam):
    clips = [random_clip(1, 40, 56, seed=1), random_clip(1, 64, 30, seed=2)]
    prompts_N3C = torch.randn(2, 3, sam.prompt_width)
    logits_Nhw = sam.mask_logits([clip[0] for clip in clips], prompts_N3C)
    for row, clip in enumerate(clips):
        [(_, want)] = track(sam, clip, prompts_N3C[[row]], 0)
        torch.testing.assert_close(logits_Nhw[row], want[0], atol=1e-4, rtol=1e-4)


def test_masks_are_those_of_hugging_face_for_one_frame(sam):
    clip, prompts_N3C = random_clip(1), torch.randn(1, 3, sam.prompt_width)
    points, labels = torch.zeros(1, 1, 2, 2), torch.tensor([[[2, 3]]])
    with prompted(sam.model.prompt_encoder, prompts_N3C):
        want = sam.model._single_frame_forward(
            pixel_values=sam.pixels(clip), input_points=points, input_labels=labels, multimask_output=False
        )
    torch.testing.assert_close(sam.mask_logits([clip[0]], prompts_N3C), want.pred_masks[:, 0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("score", [100.0, -100.0])
def test_the_gradient_reaches_the_prompts_and_stops_there(score):
    """Also where SAM2 would not see the object, and after a video was followed in inference mode."""
    sam = FrozenSam2(tiny_sam2())
    sam.model.mask_decoder.pred_obj_score_head.proj_out.bias.data.fill_(score)
    list(track(sam, random_clip(2), torch.randn(1, 3, sam.prompt_width), 0))
    prompts_N3C = torch.randn(2, 3, sam.prompt_width, requires_grad=True)
    sam.mask_logits(list(random_clip(2)), prompts_N3C).square().mean().backward()
    assert (prompts_N3C.grad.abs().amax(2) > 0).all()
    assert all(value.grad is None for value in sam.model.parameters())
