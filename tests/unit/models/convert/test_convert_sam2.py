"""Names of SAM2 checkpoints: facebook's, published with VideoChat-TPO, and Hugging Face's."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import Sam2VideoModel

from tests.tiny_sam2 import tiny_config, tiny_sam2
from tpo_core.errors import TpoError
from tpo_core.heads.sam2.frozen import FrozenSam2
from tpo_core.models.convert.sam2 import (
    PUBLISHED_PREFIX,
    check,
    hiera_large,
    large_config_of,
    read_facebook,
    save_hf,
    to_facebook,
    to_hf,
)

MANIFEST = Path(__file__).resolve().parents[3] / "golden" / "models" / "videochat_tpo_manifest.json"
VERSIONS = pytest.mark.parametrize("version_2_1", [False, True])


def tiny_state(*, version_2_1: bool = False) -> dict[str, Tensor]:
    return tiny_sam2(tiny_config(version_2_1=version_2_1)).state_dict()


@pytest.fixture(scope="module")
def published() -> dict[str, Tensor]:
    tensors = json.loads(MANIFEST.read_text())["tensors"]
    return {
        name: torch.empty(facts["shape"], device="meta")
        for name, facts in tensors.items()
        if name.startswith(PUBLISHED_PREFIX)
    }


def test_every_published_tensor_finds_its_place_in_a_hugging_face_model(published):
    assert len(published) == 900
    with torch.device("meta"):
        want = {name: value.shape for name, value in Sam2VideoModel(hiera_large()).state_dict().items()}
    assert {name: value.shape for name, value in to_hf(published).items()} == want


def test_the_way_back_gives_the_published_names(published):
    back = to_facebook(to_hf(published), PUBLISHED_PREFIX)
    assert {name: value.shape for name, value in back.items()} == {name: v.shape for name, v in published.items()}


@VERSIONS
def test_values_come_back_as_they_went(version_2_1):
    state = tiny_state(version_2_1=version_2_1)
    state["shared_image_embedding.positional_embedding"] = state["prompt_encoder.shared_embedding.positional_embedding"]
    facebook = to_facebook(state)
    assert ("no_obj_embed_spatial" in facebook) == version_2_1
    assert ("obj_ptr_tpos_proj.bias" in facebook) == version_2_1
    again = to_hf(facebook)
    assert again.keys() == state.keys()
    assert all(torch.equal(again[name], value) for name, value in state.items())


@pytest.mark.parametrize(
    ("facebook", "hugging_face"),
    [
        ("image_encoder.neck.convs.2.conv.weight", "vision_encoder.neck.convs.2.weight"),
        ("image_encoder.trunk.blocks.3.norm2.bias", "vision_encoder.backbone.blocks.3.layer_norm2.bias"),
        ("image_encoder.trunk.blocks.3.mlp.layers.1.weight", "vision_encoder.backbone.blocks.3.mlp.proj_out.weight"),
        ("sam_mask_decoder.output_upscaling.3.bias", "mask_decoder.upscale_conv2.bias"),
        ("sam_mask_decoder.iou_prediction_head.layers.2.bias", "mask_decoder.iou_prediction_head.proj_out.bias"),
        ("sam_mask_decoder.transformer.layers.1.norm4.bias", "mask_decoder.transformer.layers.1.layer_norm4.bias"),
        (
            "sam_mask_decoder.transformer.layers.0.cross_attn_token_to_image.out_proj.weight",
            "mask_decoder.transformer.layers.0.cross_attn_token_to_image.o_proj.weight",
        ),
        (
            "sam_mask_decoder.transformer.final_attn_token_to_image.q_proj.weight",
            "mask_decoder.transformer.final_attn_token_to_image.q_proj.weight",
        ),
        (
            "memory_attention.layers.0.cross_attn_image.out_proj.bias",
            "memory_attention.layers.0.cross_attn_image.o_proj.bias",
        ),
        ("memory_encoder.mask_downsampler.encoder.10.bias", "memory_encoder.mask_downsampler.layers.3.layer_norm.bias"),
        ("memory_encoder.fuser.layers.0.gamma", "memory_encoder.memory_fuser.layers.0.scale"),
        ("obj_ptr_proj.layers.1.weight", "object_pointer_proj.layers.0.weight"),
        ("maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    ],
)
def test_a_tensor_is_the_same_under_both_names(facebook, hugging_face):
    state = tiny_state()
    assert torch.equal(to_facebook(state)[facebook], state[hugging_face])


def test_points_are_one_table_and_positions_are_held_twice():
    facebook = to_facebook(tiny_state())
    facebook["sam_prompt_encoder.point_embeddings.2.weight"] = torch.full((1, 128), 7.0)
    state = to_hf(facebook)
    assert (state["prompt_encoder.point_embed.weight"] == 7).all(1).tolist() == [False, False, True, False]
    matrix = facebook["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    assert torch.equal(state["shared_image_embedding.positional_embedding"], matrix)
    assert torch.equal(state["prompt_encoder.shared_embedding.positional_embedding"], matrix)


def test_a_name_of_no_sam2_is_refused_either_way():
    facebook, state = to_facebook(tiny_state()), tiny_state()
    with pytest.raises(TpoError, match=r"^image_encoder\.rope is no tensor of SAM2"):
        to_hf({**facebook, "image_encoder.rope": torch.zeros(1)})
    with pytest.raises(TpoError, match=r"^mask_decoder\.rope is no tensor of SAM2"):
        to_facebook({**state, "mask_decoder.rope": torch.zeros(1)})


@pytest.mark.parametrize("name", ["point_embeddings.3.weight", "pe_layer.positional_encoding_gaussian_matrix"])
def test_a_missing_tensor_of_the_prompt_encoder_is_named(name):
    facebook = to_facebook(tiny_state())
    del facebook[f"sam_prompt_encoder.{name}"]
    with pytest.raises(TpoError, match=r"lacks .*(point_embeddings\.3|positional_embedding)"):
        to_hf(facebook)


def test_missing_extra_and_misshaped_tensors_are_named():
    state, config = tiny_state(), tiny_config()
    check(state, config)
    with pytest.raises(TpoError, match=r"lacks no_memory_embedding \(1 tensors differ\)"):
        check({name: value for name, value in state.items() if name != "no_memory_embedding"}, config)
    with pytest.raises(TpoError, match=r"holds occlusion_spatial_embedding_parameter, which the model does not have"):
        check(tiny_state(version_2_1=True), config)
    with pytest.raises(TpoError, match=r"has no_object_pointer of shape \[2, 2\] where \[1, 128\] is needed"):
        check({**state, "no_object_pointer": torch.zeros(2, 2)}, config)


@VERSIONS
def test_a_written_folder_is_read_by_the_mask_head_in_fp32(tmp_path, version_2_1):
    state = tiny_state(version_2_1=version_2_1)
    rounded = {name: value.bfloat16() for name, value in to_facebook(state, PUBLISHED_PREFIX).items()}
    save_hf(rounded, tmp_path, tiny_config(version_2_1=version_2_1))
    model = FrozenSam2.load(str(tmp_path)).model
    name = "mask_decoder.mask_tokens.weight"
    assert model.state_dict()[name].dtype == torch.float32
    assert torch.equal(model.state_dict()[name], state[name].bfloat16().float())
    assert model.config.enable_occlusion_spatial_embedding == version_2_1


@VERSIONS
def test_without_a_config_a_checkpoint_is_taken_for_hiera_large_of_its_version(tmp_path, version_2_1):
    state = tiny_state(version_2_1=version_2_1)
    large = large_config_of(state)
    assert large.enable_temporal_pos_encoding_for_object_pointers == version_2_1
    assert large.enable_occlusion_spatial_embedding == version_2_1
    with pytest.raises(TpoError, match=r"the SAM2 checkpoint lacks memory_attention\.layers\.1\."):
        save_hf(to_facebook(state), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_of_facebook_is_read(tmp_path):
    path, facebook = tmp_path / "sam2.pt", to_facebook(tiny_state())
    torch.save({"model": facebook}, path)
    read = read_facebook(path)
    assert read.keys() == facebook.keys()
    check(to_hf(read), tiny_config())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html>404</html>", r"cannot be read as a SAM2 checkpoint"),
        (None, r"cannot be read as a SAM2 checkpoint"),
        ({"state": {}}, r"holds no `model`"),
        ({"model": Path("code")}, r"cannot be read as a SAM2 checkpoint \(UnpicklingError\)"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_refused(tmp_path, content, says):
    path = tmp_path / "sam2.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(TpoError, match=says):
        read_facebook(path)
