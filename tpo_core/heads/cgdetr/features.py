"""What the temporal network reads, from a head's context: clip features with their places, and words.

Without precomputed features a clip is a stored frame and its feature the mean of the frame's patches, and the task
embedding is the only word.
"""

import torch
from torch import Tensor

from tpo_core.config.model import CgDetrConfig
from tpo_core.errors import TpoError
from tpo_core.heads.base import HeadContext
from tpo_core.heads.cgdetr.network import CgDetrInputs

MIN_NORM = 1e-5


def inputs_of(context: HeadContext, prompt_BC: Tensor, config: CgDetrConfig) -> CgDetrInputs:
    """Raises TpoError when the recipe names features that the samples do not carry, or of another width."""
    if config.clip_width is None:
        clips_BVC, mask_BV = context.patches_BTNC.mean(2), context.frame_mask_BT
    else:
        clips = (context.clip_features_BLD, context.clip_mask_BL)
        if clips[0] is None and not (context.duration_s_B > 0).any():  # images and texts have no clips
            clips = (prompt_BC.new_zeros(len(prompt_BC), 1, config.clip_width), context.frame_mask_BT[:, :1])
        remedy = "name what makes them in data.frames.features, or in tpo.json under frames"
        clips_BVC, mask_BV = checked(*clips, config.clip_width, "clip", remedy)
    if config.text_width is None:
        text_BWC, mask_BW = prompt_BC[:, None][:, :0], mask_BV[:, :0]
    else:
        words = (context.text_features_BQD, context.text_mask_BQ)
        text_BWC, mask_BW = checked(*words, config.text_width, "text", "name a text_encoder beside it")
    mask_BV = at_least_one(mask_BV)
    return CgDetrInputs(
        video_BVC=with_places(normalized(clips_BVC.float(), mask_BV), mask_BV),
        video_mask_BV=mask_BV,
        text_BWC=normalized(text_BWC.float(), mask_BW),
        text_mask_BW=mask_BW,
        prompt_BC=prompt_BC,
    )


def checked(features: Tensor | None, mask: Tensor | None, width: int, what: str, remedy: str) -> tuple[Tensor, Tensor]:
    field = f"model.temporal.cg_detr.{what}_width"
    if features is None or mask is None:
        raise TpoError(f"{field} is {width}, but the samples carry no {what} features: {remedy}")
    if features.shape[-1] != width:
        raise TpoError(f"{field} is {width}, but the {what} features have {features.shape[-1]} channels: set it")
    return features, mask


def at_least_one(mask_BV: Tensor) -> Tensor:
    """The mask, with the first clip valid in rows without any (samples without media), so that nothing is 0 / 0."""
    first_V = torch.arange(mask_BV.shape[1], device=mask_BV.device) == 0
    return mask_BV | (first_V & ~mask_BV.any(1, keepdim=True))


def normalized(features_BSC: Tensor, mask_BS: Tensor) -> Tensor:
    """Vectors of length 1, as in the published training (the published demo leaves it out); zero on padding."""
    length_BS1 = torch.linalg.vector_norm(features_BSC, dim=-1, keepdim=True)
    return torch.where(mask_BS[..., None], features_BSC / (length_BS1 + MIN_NORM), 0.0)


def with_places(clips_BVC: Tensor, mask_BV: Tensor) -> Tensor:
    """Clips with two more channels: start i / n and end (i + 1) / n of the i-th of n valid clips, zero on padding."""
    count_B1 = mask_BV.sum(1, keepdim=True)
    index_V = torch.arange(mask_BV.shape[1], device=mask_BV.device)
    places_BV2 = torch.stack([index_V / count_B1, (index_V + 1) / count_B1], -1)
    return torch.cat([clips_BVC, places_BV2 * mask_BV[..., None]], -1)
