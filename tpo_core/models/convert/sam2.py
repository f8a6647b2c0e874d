"""SAM2 under two sets of names: those of facebookresearch/sam2 and those of Hugging Face's Sam2VideoModel.

VideoChat-TPO carries SAM 2.0 hiera-large as 900 tensors `sam.*`: facebook's names behind a prefix. Nothing is computed
here, but for two things: the four point embeddings (1, C) of facebook are one table (4, C) of Hugging Face's, and the
matrix of the positional encoding, which facebook stores once, stands in two places of Hugging Face's model.
Source of the sizes: sam2_hiera_l.yaml of facebookresearch/sam2 (arXiv 2408.00714).
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from transformers import Sam2VideoConfig, Sam2VideoModel

from tpo_core.errors import TpoError

PUBLISHED_PREFIX = "sam."  # of the tensors of SAM2 in the VideoChat-TPO checkpoint
POINTS = 4  # embeddings of background, foreground, first corner and second corner
POINT = "sam_prompt_encoder.point_embeddings.{}.weight"
POINT_TABLE = "prompt_encoder.point_embed.weight"
POSITIONS = "prompt_encoder.shared_embedding.positional_embedding"
POSITIONS_AGAIN = "shared_image_embedding.positional_embedding"
OF_SAM_2_1 = "occlusion_spatial_embedding_parameter"  # absent from SAM 2.0

# (facebook's name, Hugging Face's). `*` is one part of a dotted name, the same on both sides. Of the rows that fit a
# name, either way, the first counts; a row without a last `weight` or `bias` stands for both.
RENAMED = (
    ("image_encoder.trunk.pos_embed", "vision_encoder.backbone.pos_embed"),
    ("image_encoder.trunk.pos_embed_window", "vision_encoder.backbone.pos_embed_window"),
    ("image_encoder.trunk.patch_embed.proj", "vision_encoder.backbone.patch_embed.projection"),
    ("image_encoder.trunk.blocks.*.norm1", "vision_encoder.backbone.blocks.*.layer_norm1"),
    ("image_encoder.trunk.blocks.*.norm2", "vision_encoder.backbone.blocks.*.layer_norm2"),
    ("image_encoder.trunk.blocks.*.attn.qkv", "vision_encoder.backbone.blocks.*.attn.qkv"),
    ("image_encoder.trunk.blocks.*.attn.proj", "vision_encoder.backbone.blocks.*.attn.proj"),
    ("image_encoder.trunk.blocks.*.proj", "vision_encoder.backbone.blocks.*.proj"),
    ("image_encoder.trunk.blocks.*.mlp.layers.0", "vision_encoder.backbone.blocks.*.mlp.proj_in"),
    ("image_encoder.trunk.blocks.*.mlp.layers.1", "vision_encoder.backbone.blocks.*.mlp.proj_out"),
    ("image_encoder.neck.convs.*.conv", "vision_encoder.neck.convs.*"),
    ("sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix", POSITIONS),
    ("sam_prompt_encoder.no_mask_embed", "prompt_encoder.no_mask_embed"),
    ("sam_prompt_encoder.not_a_point_embed", "prompt_encoder.not_a_point_embed"),
    ("sam_prompt_encoder.mask_downscaling.0", "prompt_encoder.mask_embed.conv1"),
    ("sam_prompt_encoder.mask_downscaling.1", "prompt_encoder.mask_embed.layer_norm1"),
    ("sam_prompt_encoder.mask_downscaling.3", "prompt_encoder.mask_embed.conv2"),
    ("sam_prompt_encoder.mask_downscaling.4", "prompt_encoder.mask_embed.layer_norm2"),
    ("sam_prompt_encoder.mask_downscaling.6", "prompt_encoder.mask_embed.conv3"),
    ("sam_mask_decoder.iou_token", "mask_decoder.iou_token"),
    ("sam_mask_decoder.mask_tokens", "mask_decoder.mask_tokens"),
    ("sam_mask_decoder.obj_score_token", "mask_decoder.obj_score_token"),
    ("sam_mask_decoder.conv_s0", "mask_decoder.conv_s0"),
    ("sam_mask_decoder.conv_s1", "mask_decoder.conv_s1"),
    ("sam_mask_decoder.output_upscaling.0", "mask_decoder.upscale_conv1"),
    ("sam_mask_decoder.output_upscaling.1", "mask_decoder.upscale_layer_norm"),
    ("sam_mask_decoder.output_upscaling.3", "mask_decoder.upscale_conv2"),
    ("sam_mask_decoder.output_hypernetworks_mlps.*.layers.0", "mask_decoder.output_hypernetworks_mlps.*.proj_in"),
    ("sam_mask_decoder.output_hypernetworks_mlps.*.layers.1", "mask_decoder.output_hypernetworks_mlps.*.layers.0"),
    ("sam_mask_decoder.output_hypernetworks_mlps.*.layers.2", "mask_decoder.output_hypernetworks_mlps.*.proj_out"),
    ("sam_mask_decoder.iou_prediction_head.layers.0", "mask_decoder.iou_prediction_head.proj_in"),
    ("sam_mask_decoder.iou_prediction_head.layers.1", "mask_decoder.iou_prediction_head.layers.0"),
    ("sam_mask_decoder.iou_prediction_head.layers.2", "mask_decoder.iou_prediction_head.proj_out"),
    ("sam_mask_decoder.pred_obj_score_head.layers.0", "mask_decoder.pred_obj_score_head.proj_in"),
    ("sam_mask_decoder.pred_obj_score_head.layers.1", "mask_decoder.pred_obj_score_head.layers.0"),
    ("sam_mask_decoder.pred_obj_score_head.layers.2", "mask_decoder.pred_obj_score_head.proj_out"),
    ("sam_mask_decoder.transformer.norm_final_attn", "mask_decoder.transformer.layer_norm_final_attn"),
    ("sam_mask_decoder.transformer.layers.*.norm1", "mask_decoder.transformer.layers.*.layer_norm1"),
    ("sam_mask_decoder.transformer.layers.*.norm2", "mask_decoder.transformer.layers.*.layer_norm2"),
    ("sam_mask_decoder.transformer.layers.*.norm3", "mask_decoder.transformer.layers.*.layer_norm3"),
    ("sam_mask_decoder.transformer.layers.*.norm4", "mask_decoder.transformer.layers.*.layer_norm4"),
    ("sam_mask_decoder.transformer.layers.*.mlp.layers.0", "mask_decoder.transformer.layers.*.mlp.proj_in"),
    ("sam_mask_decoder.transformer.layers.*.mlp.layers.1", "mask_decoder.transformer.layers.*.mlp.proj_out"),
    ("sam_mask_decoder.transformer.layers.*.*.out_proj", "mask_decoder.transformer.layers.*.*.o_proj"),
    ("sam_mask_decoder.transformer.layers.*.*.*", "mask_decoder.transformer.layers.*.*.*"),
    ("sam_mask_decoder.transformer.*.out_proj", "mask_decoder.transformer.*.o_proj"),
    ("sam_mask_decoder.transformer.*.*", "mask_decoder.transformer.*.*"),
    ("memory_attention.norm", "memory_attention.layer_norm"),
    ("memory_attention.layers.*.norm1", "memory_attention.layers.*.layer_norm1"),
    ("memory_attention.layers.*.norm2", "memory_attention.layers.*.layer_norm2"),
    ("memory_attention.layers.*.norm3", "memory_attention.layers.*.layer_norm3"),
    ("memory_attention.layers.*.linear1", "memory_attention.layers.*.linear1"),
    ("memory_attention.layers.*.linear2", "memory_attention.layers.*.linear2"),
    ("memory_attention.layers.*.*.out_proj", "memory_attention.layers.*.*.o_proj"),
    ("memory_attention.layers.*.*.*", "memory_attention.layers.*.*.*"),
    ("memory_encoder.mask_downsampler.encoder.0", "memory_encoder.mask_downsampler.layers.0.conv"),
    ("memory_encoder.mask_downsampler.encoder.1", "memory_encoder.mask_downsampler.layers.0.layer_norm"),
    ("memory_encoder.mask_downsampler.encoder.3", "memory_encoder.mask_downsampler.layers.1.conv"),
    ("memory_encoder.mask_downsampler.encoder.4", "memory_encoder.mask_downsampler.layers.1.layer_norm"),
    ("memory_encoder.mask_downsampler.encoder.6", "memory_encoder.mask_downsampler.layers.2.conv"),
    ("memory_encoder.mask_downsampler.encoder.7", "memory_encoder.mask_downsampler.layers.2.layer_norm"),
    ("memory_encoder.mask_downsampler.encoder.9", "memory_encoder.mask_downsampler.layers.3.conv"),
    ("memory_encoder.mask_downsampler.encoder.10", "memory_encoder.mask_downsampler.layers.3.layer_norm"),
    ("memory_encoder.mask_downsampler.encoder.12", "memory_encoder.mask_downsampler.final_conv"),
    ("memory_encoder.pix_feat_proj", "memory_encoder.feature_projection"),
    ("memory_encoder.out_proj", "memory_encoder.projection"),
    ("memory_encoder.fuser.layers.*.gamma", "memory_encoder.memory_fuser.layers.*.scale"),
    ("memory_encoder.fuser.layers.*.dwconv", "memory_encoder.memory_fuser.layers.*.depthwise_conv"),
    ("memory_encoder.fuser.layers.*.norm", "memory_encoder.memory_fuser.layers.*.layer_norm"),
    ("memory_encoder.fuser.layers.*.pwconv1", "memory_encoder.memory_fuser.layers.*.pointwise_conv1"),
    ("memory_encoder.fuser.layers.*.pwconv2", "memory_encoder.memory_fuser.layers.*.pointwise_conv2"),
    ("maskmem_tpos_enc", "memory_temporal_positional_encoding"),
    ("no_mem_embed", "no_memory_embedding"),
    ("no_mem_pos_enc", "no_memory_positional_encoding"),
    ("no_obj_ptr", "no_object_pointer"),
    ("no_obj_embed_spatial", "occlusion_spatial_embedding_parameter"),
    ("mask_downsample", "mask_downsample"),
    ("obj_ptr_tpos_proj", "temporal_positional_encoding_projection_layer"),
    ("obj_ptr_proj.layers.0", "object_pointer_proj.proj_in"),
    ("obj_ptr_proj.layers.1", "object_pointer_proj.layers.0"),
    ("obj_ptr_proj.layers.2", "object_pointer_proj.proj_out"),
)


def _rules(pairs: Iterable[tuple[str, str]]) -> list[tuple[re.Pattern[str], str]]:
    rules = []
    for source, renamed in pairs:
        pattern = re.escape(source).replace(r"\*", r"(\w+)")
        target, count = renamed, renamed.count("*")
        for number in range(1, count + 1):
            target = target.replace("*", rf"\g<{number}>", 1)
        rules.append((re.compile(rf"{pattern}(\.weight|\.bias)?"), rf"{target}\g<{count + 1}>"))
    return rules


TO_HF, TO_FACEBOOK = _rules(RENAMED), _rules((theirs, ours) for ours, theirs in RENAMED)


def _renamed(name: str, rules: list[tuple[re.Pattern[str], str]], family: str) -> str:
    for pattern, target in rules:
        match = pattern.fullmatch(name)
        if match:
            return match.expand(target)
    raise TpoError(f"{name} is no tensor of SAM2 ({family} names): give a SAM2 video checkpoint")


def to_hf(facebook: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A whole checkpoint under the names of Sam2VideoModel. Raises TpoError for an unknown or missing name.

    Takes facebook's names, as they are or behind `sam.` as published with VideoChat-TPO; values are not copied, but
    for the table of points.
    """
    state = {name.removeprefix(PUBLISHED_PREFIX): value for name, value in facebook.items()}
    points = [state.pop(_present(POINT.format(number), state)) for number in range(POINTS)]
    renamed = {_renamed(name, TO_HF, "facebook's"): value for name, value in state.items()}
    renamed[POSITIONS_AGAIN] = renamed[_present(POSITIONS, renamed)]
    return {**renamed, POINT_TABLE: torch.cat(points)}


def to_facebook(state: Mapping[str, Tensor], prefix: str = "") -> dict[str, Tensor]:
    """The way back; `prefix="sam."` gives the names published with VideoChat-TPO. Raises TpoError as `to_hf` does."""
    rest = {name: value for name, value in state.items() if name not in (POINT_TABLE, POSITIONS_AGAIN)}
    renamed = {_renamed(name, TO_FACEBOOK, "Hugging Face's"): value for name, value in rest.items()}
    points = state[_present(POINT_TABLE, state)].split(1)
    renamed |= {POINT.format(number): value for number, value in enumerate(points)}
    return {prefix + name: value for name, value in renamed.items()}


def _present(name: str, state: Mapping[str, Tensor]) -> str:
    if name not in state:
        raise TpoError(f"the SAM2 checkpoint lacks {name}: give a complete one")
    return name


def hiera_large(*, version_2_1: bool = False) -> Sam2VideoConfig:
    """SAM 2.0 hiera-large, as published with VideoChat-TPO; 2.1 adds two parts and keeps all sizes."""
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 144,
        "num_attention_heads": 2,
        "blocks_per_stage": [2, 6, 36, 4],
        "embed_dim_per_stage": [144, 288, 576, 1152],
        "num_attention_heads_per_stage": [2, 4, 8, 16],
        "window_size_per_stage": [8, 4, 16, 8],
        "global_attention_blocks": [23, 33, 43],
        "window_positional_embedding_background_size": [7, 7],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [1152, 576, 288, 144],
    }
    return Sam2VideoConfig(
        vision_config=vision,
        enable_occlusion_spatial_embedding=version_2_1,
        enable_temporal_pos_encoding_for_object_pointers=version_2_1,
    )


def large_config_of(state: Mapping[str, Tensor]) -> Sam2VideoConfig:
    """hiera-large of the version whose parts the checkpoint, under the names of Sam2VideoModel, has."""
    return hiera_large(version_2_1=OF_SAM_2_1 in state)


def check(state: Mapping[str, Tensor], config: Sam2VideoConfig) -> None:
    """Raises TpoError that names the first tensor which is missing, extra, or of another shape than `config` has it.

    state: under the names of Sam2VideoModel.
    """
    with torch.device("meta"):
        want = {name: value.shape for name, value in Sam2VideoModel(config).state_dict().items()}
    wrong = [f"lacks {name}" for name in sorted(want.keys() - state.keys())]
    wrong += [f"holds {name}, which the model does not have" for name in sorted(state.keys() - want.keys())]
    wrong += [
        f"has {name} of shape {list(state[name].shape)} where {list(shape)} is needed"
        for name, shape in want.items()
        if name in state and state[name].shape != shape
    ]
    if wrong:
        raise TpoError(f"the SAM2 checkpoint {wrong[0]} ({len(wrong)} tensors differ): give the one of this size")


def save_hf(facebook: Mapping[str, Tensor], directory: str | Path, config: Sam2VideoConfig | None = None) -> None:
    """Write a folder that Sam2VideoModel.from_pretrained reads, in fp32, from a checkpoint under facebook's names.

    config: sizes of the checkpoint; None: hiera-large, 2.1 where the checkpoint has its parts, else 2.0.
    Raises TpoError when names or shapes do not fit.
    """
    state = to_hf(facebook)
    config = config or large_config_of(state)
    check(state, config)
    with torch.device("meta"):
        model = Sam2VideoModel(config)
    model.to_empty(device="cpu")
    model.load_state_dict({name: value.float() for name, value in state.items()})
    model.save_pretrained(directory)


def read_facebook(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a .pt file of facebookresearch/sam2. Raises TpoError when it is none."""
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling what is no pickle fails in ways of all kinds
        raise TpoError(
            f"{path} cannot be read as a SAM2 checkpoint ({type(error).__name__}): download it again"
        ) from error
    if not isinstance(saved, dict) or not isinstance(saved.get("model"), dict):
        raise TpoError(f"{path} holds no `model`: give a .pt file of facebookresearch/sam2")
    return saved["model"]
