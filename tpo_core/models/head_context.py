"""What the heads look at besides their hidden vectors, put together from the batch and the visual features."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tpo_core.config.schema import FramesConfig, ModelConfig
from tpo_core.data.features import load_encoder
from tpo_core.heads.base import HeadContext
from tpo_core.models.backbones.base import VisualFeatures
from tpo_core.models.batch import Batch

TextEncoder = Callable[[str], np.ndarray]


def head_context(
    batch: Batch, features: VisualFeatures, grid_hw: tuple[int, int], frames: FramesConfig, text: TextEncoder | None
) -> HeadContext:
    """frames: which the model was trained on, for the length of its clips; text: encodes what is asked, or None."""
    words = None if text is None else [torch.from_numpy(np.asarray(text(query))) for query in batch.queries]
    clips_BLD, clip_mask_BL = padded(batch.clip_features, batch.clip_B.device)
    words_BQD, word_mask_BQ = padded(words, batch.clip_B.device)
    clip_len_s_B = None
    if clips_BLD is not None and frames.features is not None:
        clip_len_s_B = torch.full_like(batch.duration_s_B, frames.features.clip_len_s)
    return HeadContext(
        patches_BTNC=features.patches_BTNC.float(),
        grid_hw=grid_hw,
        pixels_BTCHW=batch.pixel_values_UTCHW[batch.clip_B].float(),
        frame_mask_BT=batch.frame_mask_BT,
        times_s_BT=batch.times_s_BT,
        duration_s_B=batch.duration_s_B,
        size_wh_B2=batch.size_wh_B2,
        clip_B=batch.clip_B,
        clip_features_BLD=clips_BLD,
        clip_mask_BL=clip_mask_BL,
        clip_len_s_B=clip_len_s_B,
        text_features_BQD=words_BQD,
        text_mask_BQ=word_mask_BQ,
        stored_frames=batch.stored_frames,
        given_boxes_B4=batch.slot_boxes_B4,
        prompt_frame_B=batch.prompt_frame_B,
        draws=batch.draws,
    )


def padded(rows: list[Tensor] | None, device: torch.device) -> tuple[Tensor | None, Tensor | None]:
    """Rows (n, D) of different lengths as fp32 (B, N, D) and bool (B, N), padded on the right; None of None."""
    if rows is None:
        return None, None
    features_BND = pad_sequence([row.float() for row in rows], batch_first=True).to(device)
    counts_B = torch.tensor([len(row) for row in rows], device=device)
    return features_BND, torch.arange(features_BND.shape[1], device=device) < counts_B[:, None]


def text_encoder(config: ModelConfig, heads: list[str]) -> TextEncoder | None:
    """The encoder of questions that the temporal head asks for, if it does. TpoError when it cannot be imported."""
    name = config.temporal.cg_detr.text_encoder
    wanted = "temporal" in heads and config.temporal.decoder == "cg_detr" and name is not None
    return load_encoder(name, ()) if wanted and name is not None else None
