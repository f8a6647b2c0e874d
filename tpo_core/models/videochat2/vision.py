"""The vision encoder: a video ViT whose fixed position table fits any number of frames.

Hugging Face's VideoMAE computes the blocks. Two things are our own: the position table, which VideoMAE sizes for one
number of frames and fills with other values, and a mask, so that clips of different lengths can share a batch.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import VideoMAEConfig, VideoMAEModel
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_outputs import BaseModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.videomae.modeling_videomae import (
    VideoMAEPatchEmbeddings,
    VideoMAESelfAttention,
    eager_attention_forward,
)


@functools.lru_cache(maxsize=8)
def position_table(n_frames: int, made_for: int, n_patches: int, width: int) -> Tensor:
    """Positions (n_frames * n_patches, width) float32, rows by frame, then patch.

    A sine and cosine table over the places of a clip of `made_for` frames, linearly interpolated in time to n_frames;
    an image (one frame) has the plain table of its patches. Angle of place p in column j: p / 10000^(2 (j // 2) /
    width), sine for even j and cosine for odd j, in float64 (published VideoChat-TPO).
    """
    frames = 1 if n_frames == 1 else made_for
    column = np.arange(width)
    angle = np.arange(frames * n_patches)[:, None] / np.power(10000.0, 2 * (column // 2) / width)
    table = torch.from_numpy(np.where(column % 2 == 0, np.sin(angle), np.cos(angle))).float()
    if frames == n_frames:
        return table
    by_frame = table.view(frames, n_patches * width).T[None]
    stretched = F.interpolate(by_frame, size=n_frames, mode="linear", align_corners=False)
    return stretched[0].T.reshape(n_frames * n_patches, width)


class FrameEmbeddings(nn.Module):
    """Patches of all frames with their positions; takes the place of VideoMAE's embeddings, under the same names.

    The table is no parameter and not in the state dict. It is made when frames are first seen, on their device, and
    kept while the lengths and the device stay the same.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.patch_embeddings = VideoMAEPatchEmbeddings(config)
        self.made_for = config.num_frames
        self.n_patches = (config.image_size // config.patch_size) ** 2
        self._kept: tuple[object, Tensor] | None = None

    def forward(self, pixels_BTCHW: Tensor, frames_B: list[int]) -> Tensor:
        """(B, T * patches, C); row b has frames_B[b] frames, further ones are padding and get no position."""
        patches_BLC = self.patch_embeddings(pixels_BTCHW)
        return patches_BLC + self.positions(frames_B, patches_BLC)

    def positions(self, frames_B: list[int], like_BLC: Tensor) -> Tensor:
        """Position tables (B or 1, L, C) with the device and dtype of `like_BLC`; zero on padding."""
        length, width = like_BLC.shape[1:]
        lengths = frames_B[:1] if len(set(frames_B)) == 1 else frames_B
        key = (tuple(lengths), length, like_BLC.device, like_BLC.dtype)
        if self._kept is None or self._kept[0] != key:
            with torch.inference_mode(False):
                tables = [position_table(n, self.made_for, self.n_patches, width) for n in lengths]
                padded = torch.stack([F.pad(table, (0, 0, 0, length - len(table))) for table in tables])
                self._kept = key, padded.to(like_BLC.device, like_BLC.dtype)
        return self._kept[1]


class MaskedSelfAttention(VideoMAESelfAttention):
    """VideoMAE's attention under a mask."""

    def forward(  # type: ignore[override]
        self, hidden_states: Tensor, attention_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """hidden_states (B, L, C); attention_mask: None, or in the form of the chosen implementation."""
        heads = (*hidden_states.shape[:-1], -1, self.attention_head_size)
        query, key, value = (
            layer(hidden_states).view(heads).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        attend: Callable[..., tuple[Tensor, Tensor | None]] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        context, weights = attend(
            self, query, key, value, attention_mask, is_causal=False, scaling=self.scaling,
            dropout=self.dropout_prob if self.training else 0.0,
        )  # fmt: skip
        return context.reshape(hidden_states.shape), weights


class VisionTower(VideoMAEModel):
    """VideoMAE with the position table and the mask of this module, under VideoMAE's names; no norm at its end."""

    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.embeddings: Any = FrameEmbeddings(config)
        layers: Any = self.encoder.layer
        for layer in layers:
            layer.attention.attention = MaskedSelfAttention(config)
        self.post_init()

    def forward(self, pixel_values: Tensor, frame_mask: Tensor | None = None) -> BaseModelOutput:
        """Tokens `.last_hidden_state` (B, T * patches, C), by frame, row, column.

        pixel_values (B, T, 3, H, W) normalised. frame_mask (B, T) bool, True on frames, which come first in their
        row; other frames are padding, seen by no token, and their own tokens mean nothing. A row without any frame is
        taken as one of one frame.
        """
        n_frames, device = pixel_values.shape[1], pixel_values.device
        frames_B = [n_frames] * len(pixel_values) if frame_mask is None else frame_mask.sum(1).clamp_min(1).tolist()
        hidden_BLC = self.embeddings(pixel_values, frames_B)
        mask = None
        if min(frames_B) < n_frames:
            real_BT = torch.arange(n_frames, device=device) < torch.tensor(frames_B, device=device)[:, None]
            real_BL = real_BT.repeat_interleave(self.embeddings.n_patches, 1)
            mask = create_bidirectional_mask(self.config, hidden_BLC, real_BL)
        return self.encoder(hidden_BLC, attention_mask=mask)
