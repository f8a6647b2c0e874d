"""A random Sam2VideoModel that runs in milliseconds, and clips for it.

64 px frames, masks at 16 px; sizes near the least that fit: memories have 64 channels, prompts a multiple of that.
"""

from typing import Any

import torch
from torch import Tensor
from transformers import Sam2VideoConfig, Sam2VideoModel

from tpo_core.heads.base import HeadContext

IMAGE_SIZE = 64


def tiny_config(*, version_2_1: bool = False, prompt_width: int = 128, image_size: int = IMAGE_SIZE) -> Sam2VideoConfig:
    cells = image_size // 16
    backbone = {
        "model_type": "sam2_hiera_det_model",
        "hidden_size": 8,
        "num_attention_heads": 1,
        "blocks_per_stage": [1, 1, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [4, 2, 4, 2],
        "global_attention_blocks": [3],
        "image_size": [image_size, image_size],
    }
    vision = {
        "model_type": "sam2_vision_model",
        "backbone_config": backbone,
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[cells * 4, cells * 4], [cells * 2, cells * 2], [cells, cells]],
        "fpn_hidden_size": prompt_width,
    }
    return Sam2VideoConfig(
        vision_config=vision,
        prompt_encoder_config={"hidden_size": prompt_width, "image_size": image_size, "patch_size": 16},
        mask_decoder_config={"hidden_size": prompt_width, "mlp_dim": 64, "iou_head_hidden_dim": prompt_width},
        image_size=image_size,
        enable_occlusion_spatial_embedding=version_2_1,
        enable_temporal_pos_encoding_for_object_pointers=version_2_1,
        memory_attention_hidden_size=prompt_width,
        memory_attention_num_layers=1,
        memory_attention_feed_forward_hidden_size=64,
        memory_attention_rope_feat_sizes=[cells, cells],
        memory_encoder_hidden_size=prompt_width,
        mask_downsampler_embed_dim=prompt_width,
        memory_fuser_num_layers=1,
        memory_fuser_embed_dim=prompt_width,
        memory_fuser_intermediate_dim=64,
    )


def tiny_sam2(config: Sam2VideoConfig | None = None, *, seed: int = 0) -> Sam2VideoModel:
    """Weights an order of magnitude above HF's initial ones, so that prompts and frames show in the masks; the object
    is always seen."""
    torch.manual_seed(seed)
    model = Sam2VideoModel(tiny_config() if config is None else config).eval()
    for name, value in model.named_parameters():
        if value.dim() > 1 and "norm" not in name:
            value.data.normal_(std=0.15)
    model.mask_decoder.pred_obj_score_head.proj_out.bias.data.fill_(100)
    return model


def random_clip(frames: int, height: int = 40, width: int = 56, *, seed: int = 0) -> Tensor:
    """uint8 RGB (T, 3, h, w)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (frames, 3, height, width), generator=generator, dtype=torch.uint8)


def context_of(clips: list[Tensor], **fields: Any) -> HeadContext:
    """The context of one row a clip, padded to the longest; the original media have the size of the stored frames."""
    batch, frames = len(clips), max(len(clip) for clip in clips)
    return HeadContext(
        patches_BTNC=torch.zeros(batch, frames, 1, 1),
        grid_hw=(1, 1),
        pixels_BTCHW=torch.zeros(batch, frames, 3, 2, 2),
        frame_mask_BT=torch.arange(frames) < torch.tensor([len(clip) for clip in clips])[:, None],
        times_s_BT=torch.arange(frames).float().repeat(batch, 1),
        duration_s_B=torch.full((batch,), float(frames)),
        size_wh_B2=torch.tensor([[clip.shape[-1], clip.shape[-2]] for clip in clips]).float(),
        stored_frames=clips,
        **fields,
    )
