"""The generic backbone against the models' own forward passes, image processors and prompts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from tests.tiny_families import FAMILIES, write_base
from tpo_core.config.schema import ModelConfig
from tpo_core.models.backbones.generic import frame_spacing
from tpo_core.models.tpo import TpoModel

QWEN = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5")
SIDE_PX = 32


@pytest.fixture
def make_model(tmp_path: Path):
    def make(family: str) -> TpoModel:
        size = {"frame_size": SIDE_PX} if family in QWEN else {}
        base = write_base(tmp_path / family, family)
        config = ModelConfig(base=str(base), backbone="generic", lora={"rank": 2, "alpha": 4}, **size)
        return TpoModel.from_base(str(base), config, []).eval()

    return make


def qwen_patches(frames_TCHW: torch.Tensor) -> torch.Tensor:
    """Patches of whole pairs of frames by Qwen's image processor, which makes a pair of two equal ones."""
    processor = Qwen2VLImageProcessorPil(
        do_resize=False, do_rescale=False, do_normalize=False, patch_size=4, merge_size=2, temporal_patch_size=2
    )
    each = [processor.patchify(frame.numpy(), 4, 2, 2)[0].reshape(-1, 3, 2, 4, 4) for frame in frames_TCHW]
    pairs = [np.stack([one[:, :, 0], two[:, :, 1]], 2) for one, two in zip(each[::2], each[1::2], strict=True)]
    return torch.from_numpy(np.concatenate(pairs)).flatten(1)


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_states_are_those_of_the_models_own_forward_pass(make_model, make_example, family):
    model = make_model(family)
    batch = model.processor.collate([model.processor.encode(make_example("chat", 4))])
    features = model._features(batch)
    inputs = model.backbone.visual_inputs(features, batch.frame_mask_BT, batch.times_s_BT)
    found = model.backbone.hidden_states(batch.input_ids_BL, batch.attention_mask_BL, **inputs).last_hidden_state

    pixels = batch.pixel_values_UTCHW
    visual = batch.input_ids_BL == model.backbone.video_token_id
    own = {
        "gemma3": lambda: {"pixel_values": pixels[0], "token_type_ids": visual.long()},
        "internvl": lambda: {"pixel_values": pixels[0]},
        "llava": lambda: {"pixel_values": pixels[0]},
        "llava_next_video": lambda: {"pixel_values_videos": pixels},
        **{
            name: lambda: {
                "pixel_values_videos": qwen_patches(pixels[0]),
                "video_grid_thw": torch.tensor([[2, 8, 8]]),
                "mm_token_type_ids": visual.int() * 2,
            }
            for name in QWEN
        },
    }[family]()
    if family == "qwen2_5_vl":
        own["second_per_grid_ts"] = torch.tensor([2 * 2.0])  # pairs of frames that are two seconds apart
    expected = model.backbone.vlm.model(
        input_ids=batch.input_ids_BL, attention_mask=batch.attention_mask_BL, **own
    ).last_hidden_state
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)
    dark = model.backbone.encode(torch.zeros_like(pixels), batch.frame_mask_BT)
    inputs = model.backbone.visual_inputs(dark, batch.frame_mask_BT, batch.times_s_BT)
    blind = model.backbone.hidden_states(batch.input_ids_BL, batch.attention_mask_BL, **inputs).last_hidden_state
    assert (found[0, -1] - blind[0, -1]).abs().max() > 1e-4, "the frames must matter"


@pytest.mark.parametrize("family", QWEN)
@torch.no_grad()
def test_patches_are_handed_to_heads_row_by_row(make_model, family):
    """With blocks that do nothing, a feature is the embedding of its own patch."""
    model = make_model(family)
    tower, coder = model.backbone.vlm.model.visual, model.backbone.coder
    for name, parameter in tower.named_parameters():
        if "pos_embed" in name or ("blocks" in name and any(part in name for part in (".proj", "down_proj", "fc2"))):
            parameter.zero_()
    pixels = torch.randn(2, 3, 3, SIDE_PX, SIDE_PX)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    found = coder.encode(pixels, mask).patches_BTNC
    for clip, frames in ((0, (0, 1)), (0, (2, 2)), (1, (0, 0))):
        for place in (0, 1, 7, 8, 13, 63):
            row, column = divmod(place, 8)
            cut = pixels[clip, list(frames), :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            expected = tower.patch_embed(cut.transpose(0, 1).flatten()[None])[0]
            for frame in frames:
                torch.testing.assert_close(found[clip, frame, place], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("family", "image_processor"),
    [
        ("gemma3", Gemma3ImageProcessorPil(size={"height": SIDE_PX, "width": SIDE_PX})),
        ("internvl", GotOcr2ImageProcessorPil(size={"height": SIDE_PX, "width": SIDE_PX}, crop_to_patches=False)),
    ],
)
def test_pixels_are_those_of_the_familys_image_processor(make_example, tmp_path, family, image_processor):
    base = write_base(tmp_path, family)
    image_processor.save_pretrained(base)
    config = ModelConfig(base=str(base), backbone="generic", lora={"rank": 2, "alpha": 4})
    processor = TpoModel.from_base(str(base), config, []).processor
    example = make_example("chat", 2)
    expected = image_processor(list(example.frames_THWC), return_tensors="pt")["pixel_values"]
    found = processor.pixels(example)
    level = 1.01 / 255 / min(image_processor.image_std)  # one level of uint8
    assert (found - expected).abs().max() <= level
    assert (found - expected).abs().mean() <= level / 10


PROMPTS = {
    "gemma3": "<bos><start_of_turn>user\n{group}{group}{group}Where?<end_of_turn>\n<start_of_turn>model\n",
    "internvl": "<|im_start|>user\nFrame1: {group}\nFrame2: {group}\nFrame3: {group}\nWhere?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "llava": "USER: {group}{group}{group}\nWhere? ASSISTANT: ",
    "llava_next_video": "USER: {group}{group}{group}\nWhere? ASSISTANT: ",
    "qwen2_vl": "<|im_start|>user\n<|vision_start|>{group}{group}<|vision_end|>Where?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "qwen2_5_vl": "<|im_start|>user\n<|vision_start|>{group}{group}<|vision_end|>Where?<|im_end|>\n"
    "<|im_start|>assistant\n",
    "qwen3_vl": "<|im_start|>user\n<2.7 seconds><|vision_start|>{group}<|vision_end|>"
    "<6.7 seconds><|vision_start|>{group}<|vision_end|>Where?<|im_end|>\n<|im_start|>assistant\n",
    "qwen3_5": "<|im_start|>user\n<2.7 seconds><|vision_start|>{group}<|vision_end|>"
    "<6.7 seconds><|vision_start|>{group}<|vision_end|>Where?<|im_end|>\n<|im_start|>assistant\n",
}
GROUPS = {
    "gemma3": "\n\n<start_of_image>" + "<image_soft_token>" * 4 + "<end_of_image>\n\n",
    "internvl": "<img>" + "<IMG_CONTEXT>" * 4 + "</img>",
    "llava": "<image>" * 16,
    "llava_next_video": "<video>" * 4,
    "qwen2_vl": "<|video_pad|>" * 16,
    "qwen2_5_vl": "<|video_pad|>" * 16,
    "qwen3_vl": "<|video_pad|>" * 16,
    "qwen3_5": "<|video_pad|>" * 16,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_clip_of_three_frames_is_written_as_the_family_does(make_model, make_example, family):
    processor = make_model(family).processor
    ids = processor.encode(make_example("chat", 3, question="Where?"), train=False).input_ids_L
    assert processor.tokenizer.decode(ids) == PROMPTS[family].replace("{group}", GROUPS[family])


def test_one_frame_is_an_image_where_the_family_writes_images_otherwise(make_model, make_example):
    processor = make_model("internvl").processor
    ids = processor.encode(make_example("chat", 1, question="Where?"), train=False).input_ids_L
    written = f"<|im_start|>user\n{GROUPS['internvl']}\nWhere?<|im_end|>\n<|im_start|>assistant\n"
    assert processor.tokenizer.decode(ids) == written


@pytest.mark.parametrize("family", FAMILIES)
def test_every_answer_teaches_its_end_and_generation_stops_there(make_model, make_example, family):
    processor = make_model(family).processor
    labels = processor.encode(make_example("chat")).labels_L
    spoken = labels[labels >= 0]
    assert processor.tokenizer.decode(spoken[:-1]).strip() == "It is red."
    end = {"gemma3": "<end_of_turn>", "llava": "</s>", "llava_next_video": "</s>"}.get(family, "<|im_end|>")
    assert processor.tokenizer.decode(spoken[-1:]) == end
    assert spoken[-1].item() in processor.end_token_ids()
    letters = [token for token in processor.end_token_ids() if token not in processor.tokenizer.added_tokens_decoder]
    assert letters == []


def test_the_time_between_frames_leaves_padding_out():
    mask = torch.tensor([[True, True, True], [True, True, False], [True, False, False], [False, False, False]])
    times = torch.tensor([[1.0, 2.0, 5.0], [1.0, 1.5, 0.0], [3.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert frame_spacing(mask, times).tolist() == [2.0, 0.5, 1.0, 1.0]
