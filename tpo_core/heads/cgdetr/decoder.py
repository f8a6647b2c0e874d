"""The span decoder: every query holds a span (centre, width), which each layer refines (DAB-DETR, arXiv 2201.12329)."""

import torch
from torch import Tensor, nn

from tpo_core.config.model import CgDetrConfig
from tpo_core.heads.cgdetr.layers import Mlp, PlainAttention, PostNormLayer, inverse_sigmoid, sinusoids

MIN_WIDTH = 1e-6  # of a span, where it divides; a sigmoid of large negative logits is exactly zero


class DecoderLayer(PostNormLayer):
    """Attention among queries, attention to clips, feed-forward. Only the first layer adds the places to the content
    of the cross-attention; in every layer they are also appended to it, which doubles the width of a head."""

    def __init__(self, config: CgDetrConfig, *, first: bool) -> None:
        width = config.width
        super().__init__(width, config.ffn_width, config.dropout, config.drop_path)
        self.sa_qcontent_proj = nn.Linear(width, width)
        self.sa_qpos_proj = nn.Linear(width, width)
        self.sa_kcontent_proj = nn.Linear(width, width)
        self.sa_kpos_proj = nn.Linear(width, width)
        self.sa_v_proj = nn.Linear(width, width)
        self.self_attn = PlainAttention(width, config.heads, config.dropout)
        self.ca_qcontent_proj = nn.Linear(width, width)
        self.ca_qpos_proj = nn.Linear(width, width) if first else None
        self.ca_kcontent_proj = nn.Linear(width, width)
        self.ca_kpos_proj = nn.Linear(width, width)
        self.ca_v_proj = nn.Linear(width, width)
        self.ca_qpos_sine_proj = nn.Linear(width, width)
        self.cross_attn = PlainAttention(width, config.heads, config.dropout)
        self.norm3 = nn.LayerNorm(width)

    def forward(
        self,
        state_BQD: Tensor,
        place_BQD: Tensor,
        sine_BQD: Tensor,
        clips_BVD: Tensor,
        pos_BVD: Tensor,
        mask_BV: Tensor,
    ) -> Tensor:
        state_BQD = self.norm1(state_BQD + self.drop_path(self.among_queries(state_BQD, place_BQD)))
        attended_BQD = self.to_clips(state_BQD, place_BQD, sine_BQD, clips_BVD, pos_BVD, mask_BV)
        state_BQD = self.norm2(state_BQD + self.drop_path(attended_BQD))
        return self.norm3(state_BQD + self.feed_forward(state_BQD))

    def among_queries(self, state_BQD: Tensor, place_BQD: Tensor) -> Tensor:
        attention = self.self_attn
        query_BQD = self.sa_qcontent_proj(state_BQD) + self.sa_qpos_proj(place_BQD)
        key_BQD = self.sa_kcontent_proj(state_BQD) + self.sa_kpos_proj(place_BQD)
        weights_BHQQ = attention.weights(attention.split(query_BQD), attention.split(key_BQD), None)
        return attention.read(weights_BHQQ, attention.split(self.sa_v_proj(state_BQD)))

    def to_clips(
        self,
        state_BQD: Tensor,
        place_BQD: Tensor,
        sine_BQD: Tensor,
        clips_BVD: Tensor,
        pos_BVD: Tensor,
        mask_BV: Tensor,
    ) -> Tensor:
        attention, split = self.cross_attn, self.cross_attn.split
        query_BQD, key_BVD = self.ca_qcontent_proj(state_BQD), self.ca_kcontent_proj(clips_BVD)
        key_place_BVD = self.ca_kpos_proj(pos_BVD)
        if self.ca_qpos_proj is not None:
            query_BQD, key_BVD = query_BQD + self.ca_qpos_proj(place_BQD), key_BVD + key_place_BVD
        query_BHQE = torch.cat([split(query_BQD), split(self.ca_qpos_sine_proj(sine_BQD))], -1)
        key_BHVE = torch.cat([split(key_BVD), split(key_place_BVD)], -1)
        return attention.read(attention.weights(query_BHQE, key_BHVE, mask_BV), split(self.ca_v_proj(clips_BVD)))


class Decoder(nn.Module):
    """`decoder_layers` layers that share the norm of their output and the network that moves the spans."""

    def __init__(self, config: CgDetrConfig) -> None:
        super().__init__()
        width = config.width
        self.layers = nn.ModuleList(DecoderLayer(config, first=i == 0) for i in range(config.decoder_layers))
        self.norm = nn.LayerNorm(width)
        self.query_scale = Mlp(width, width, width)
        self.ref_point_head = Mlp(width, width, width)
        self.ref_anchor_head = Mlp(width, width, 1)
        self.bbox_embed = Mlp(width, width, width, 2)

    def forward(
        self, reference_BQ2: Tensor, clips_BVD: Tensor, pos_BVD: Tensor, mask_BV: Tensor
    ) -> tuple[Tensor, Tensor]:
        """States (R, B, Q, D) of the R layers after the norm, and the spans (R, B, Q, 2) that each layer started from.

        Gradient does not pass from one layer's span to the one before, but each is returned with its own.
        """
        state_BQD = clips_BVD.new_zeros(*reference_BQ2.shape[:2], clips_BVD.shape[-1])
        states, references = [], [reference_BQ2]
        for number, layer in enumerate(self.layers):
            place_BQD, sine_BQD = self.places(state_BQD, reference_BQ2, first=number == 0)
            state_BQD = layer(state_BQD, place_BQD, sine_BQD, clips_BVD, pos_BVD, mask_BV)
            states.append(self.norm(state_BQD))
            if number < len(self.layers) - 1:
                moved_BQ2 = (self.bbox_embed(state_BQD) + inverse_sigmoid(reference_BQ2)).sigmoid()
                references.append(moved_BQ2)
                reference_BQ2 = moved_BQ2.detach()
        return torch.stack(states), torch.stack(references)

    def places(self, state_BQD: Tensor, reference_BQ2: Tensor, *, first: bool) -> tuple[Tensor, Tensor]:
        """Learned place and modulated sinusoids (B, Q, D) of each query's span; a narrow span looks more sharply."""
        sine_BQD = sinusoids(reference_BQ2, state_BQD.shape[-1] // 2).flatten(2)
        place_BQD = self.ref_point_head(sine_BQD)
        if not first:
            sine_BQD = sine_BQD * self.query_scale(state_BQD)
        width_BQ1 = self.ref_anchor_head(state_BQD).sigmoid()
        return place_BQD, sine_BQD * width_BQ1 / reference_BQ2[..., 1:].clamp(min=MIN_WIDTH)
