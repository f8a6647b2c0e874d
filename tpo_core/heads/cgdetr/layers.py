"""The parts that the temporal network is built from. Attribute names are those of the published checkpoint.

Shape letters of this package: B samples, V clips, W words (the task embedding among them), N dummy words,
K = N + W keys, P learned prompts, Q span queries, H attention heads, D hidden width, S any sequence. Masks are bool,
True where valid; padding is on the right.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

MIN_LENGTH = 1e-4  # vectors shorter than this are rounding noise of numbers of order 1, and have no direction


def sinusoids(position_S: Tensor, width: int) -> Tensor:
    """Interleaved sines and cosines (..., width) of positions (...); a position of 1 is one cycle of the first pair."""
    channel_D = torch.arange(width, device=position_S.device)
    period_D = 10000 ** (2 * (channel_D // 2).to(position_S.dtype) / width)
    angle_SD = position_S[..., None] * (2 * math.pi) / period_D
    return torch.where(channel_D % 2 == 0, angle_SD.sin(), angle_SD.cos())


def clip_positions(mask_BV: Tensor, like_BVD: Tensor) -> Tensor:
    """Encoding, of the shape and type of `like_BVD`, of the place of each clip among the valid ones."""
    count_BV = mask_BV.to(like_BVD).cumsum(1)
    return sinusoids(count_BV / (count_BV[:, -1:] + 1e-6), like_BVD.shape[-1])


def inverse_sigmoid(value: Tensor) -> Tensor:
    """Logits of values in [0, 1], within 6.9 of zero."""
    eps = 1e-3
    value = value.clamp(0, 1)
    return torch.log(value.clamp(min=eps) / (1 - value).clamp(min=eps))


def direction(value_SD: Tensor) -> Tensor:
    """Vectors scaled to length 1; zero, and without gradient, where they are too short to have a direction.

    Dividing such a vector by its length gives gradients of 1e11: where a sample has one clip, its difference to the
    mean clip is zero.
    """
    length_S1 = torch.linalg.vector_norm(value_SD, dim=-1, keepdim=True)
    return torch.where(length_S1 > MIN_LENGTH, value_SD / length_S1.clamp(min=MIN_LENGTH), torch.zeros_like(value_SD))


class DropPath(nn.Module):
    """Drops the residual branch of whole samples in training, and scales the others up to keep the mean."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, branch_BSD: Tensor) -> Tensor:
        if not self.training or self.probability == 0:
            return branch_BSD
        keep = 1 - self.probability
        return branch_BSD * branch_BSD.new_empty(len(branch_BSD), 1, 1).bernoulli_(keep) / keep


class Mlp(nn.Module):
    """Linear layers with ReLU between them; `widths` from the input to the output."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def forward(self, value: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            value = F.relu(layer(value))
        return self.layers[-1](value)


class InputLayer(nn.Module):
    """LayerNorm, dropout, Linear and, but for the last of a chain, ReLU."""

    def __init__(self, width_in: int, width: int, dropout: float, *, last: bool) -> None:
        super().__init__()
        self.last = last
        self.LayerNorm = nn.LayerNorm(width_in)
        self.net = nn.Sequential(nn.Dropout(dropout), nn.Linear(width_in, width))

    def forward(self, value: Tensor) -> Tensor:
        value = self.net(self.LayerNorm(value))
        return value if self.last else F.relu(value)


def input_layers(width_in: int, width: int, count: int, dropout: float) -> nn.Sequential:
    """`count` input layers, the first from `width_in`."""
    widths = [width_in, *[width] * count]
    return nn.Sequential(*(InputLayer(widths[i], width, dropout, last=i == count - 1) for i in range(count)))


class PlainAttention(nn.Module):
    """Multi-head attention without input projections; its only parameters are those of `out_proj`."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Linear(width, width)

    def split(self, value_BSD: Tensor) -> Tensor:
        """(B, S, D) to (B, H, S, D / H)."""
        return value_BSD.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def weights(self, query_BHQD: Tensor, key_BHKD: Tensor, key_mask_BK: Tensor | None) -> Tensor:
        """Attention (B, H, Q, K) after dropout, as it is also reported: rows sum to 1 only without dropout."""
        scores_BHQK = query_BHQD / math.sqrt(query_BHQD.shape[-1]) @ key_BHKD.transpose(-1, -2)
        if key_mask_BK is not None:
            scores_BHQK = scores_BHQK.masked_fill(~key_mask_BK[:, None, None], -torch.inf)
        return self.dropout(scores_BHQK.softmax(-1))

    def read(self, weights_BHQK: Tensor, value_BHKD: Tensor) -> Tensor:
        """(B, Q, D): heads joined and projected."""
        return self.out_proj((weights_BHQK @ value_BHKD).transpose(1, 2).flatten(2))


class PostNormLayer(nn.Module):
    """What every transformer layer here shares: the feed-forward part with its one-parameter PReLU, and dropping."""

    def __init__(self, width: int, ffn_width: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.linear1 = nn.Linear(width, ffn_width)
        self.linear2 = nn.Linear(ffn_width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)
        self.activation = nn.PReLU()
        self.dropout = nn.Dropout(dropout)
        self.drop_path = DropPath(drop_path)

    def feed_forward(self, value_BSD: Tensor) -> Tensor:
        return self.drop_path(self.linear2(self.dropout(self.activation(self.linear1(value_BSD)))))


class EncoderLayer(PostNormLayer):
    """Self-attention and feed-forward, each followed by its norm."""

    def __init__(self, width: int, heads: int, ffn_width: int, dropout: float, drop_path: float) -> None:
        super().__init__(width, ffn_width, dropout, drop_path)
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)

    def forward(self, value_BSD: Tensor, position_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        placed_BSD = value_BSD + position_BSD
        attended_BSD, _ = self.self_attn(
            placed_BSD, placed_BSD, value_BSD, key_padding_mask=~mask_BS, need_weights=False
        )
        value_BSD = self.norm1(value_BSD + self.drop_path(attended_BSD))
        return self.norm2(value_BSD + self.feed_forward(value_BSD))


class Encoder(nn.Module):
    """A chain of encoder layers; `count` and the arguments of `EncoderLayer`."""

    def __init__(self, count: int, width: int, heads: int, ffn_width: int, dropout: float, drop_path: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(width, heads, ffn_width, dropout, drop_path) for _ in range(count))

    def forward(self, value_BSD: Tensor, position_BSD: Tensor, mask_BS: Tensor) -> Tensor:
        for layer in self.layers:
            value_BSD = layer(value_BSD, position_BSD, mask_BS)
        return value_BSD


class TextToVideoLayer(PostNormLayer):
    """Clips attend to dummy and real words, and take in the real ones only (the adaptive attention of CG-DETR).

    The weights are not scaled up to a sum of 1 after the dummy columns are left out: a clip that the question is not
    about takes in little. The feed-forward part reads the normed sum and is added to the sum before the norm, as in
    the published code.
    """

    def __init__(self, width: int, heads: int, ffn_width: int, dropout: float, drop_path: float) -> None:
        super().__init__(width, ffn_width, dropout, drop_path)
        self.self_attn = PlainAttention(width, heads, dropout)

    def forward(
        self, query_BVD: Tensor, key_BKD: Tensor, words_BWD: Tensor, value_BVD: Tensor, mask_BK: Tensor
    ) -> tuple[Tensor, Tensor]:
        """New clips (B, V, D) and the attention (B, V, K), mean over heads; the last W keys are those of the words."""
        attention = self.self_attn
        weights_BHVK = attention.weights(attention.split(query_BVD), attention.split(key_BKD), mask_BK)
        real_BHVW = weights_BHVK[..., -words_BWD.shape[1] :]
        attended_BVD = attention.read(real_BHVW, attention.split(words_BWD))
        return self.finish(value_BVD, attended_BVD), weights_BHVK.mean(1)

    def without_words(self, value_BSD: Tensor) -> Tensor:
        """The layer where nothing can be attended to: attention gives zero, of which `out_proj` leaves its bias."""
        return self.finish(value_BSD, self.self_attn.out_proj.bias.expand_as(value_BSD))

    def finish(self, value_BSD: Tensor, attended_BSD: Tensor) -> Tensor:
        total_BSD = value_BSD + self.drop_path(attended_BSD)
        return self.norm2(total_BSD + self.feed_forward(self.norm1(total_BSD)))
