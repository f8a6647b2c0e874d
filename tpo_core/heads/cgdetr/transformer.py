"""From projected clips and words to clips that know the question, and on to spans."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tpo_core.config.model import CgDetrConfig
from tpo_core.heads.cgdetr.decoder import Decoder
from tpo_core.heads.cgdetr.layers import Encoder, TextToVideoLayer, direction


@dataclass
class Words:
    """The keys that clips attend to: N dummy words, then W real ones. Rows are samples."""

    keys_BKD: Tensor
    positions_KD: Tensor
    mask_BK: Tensor
    real: int

    @property
    def real_BWD(self) -> Tensor:
        return self.keys_BKD[:, -self.real :]

    def of_next(self, rows_B: Tensor) -> "Words":
        """The words of the sample behind each of some rows (cyclic), under the rows' own order."""
        return Words(self.keys_BKD.roll(-1, 0)[rows_B], self.positions_KD, self.mask_BK.roll(-1, 0)[rows_B], self.real)


@dataclass
class Clips:
    """Projected clips, their places, which are valid, and their detached mean: the context of the video."""

    video_BVD: Tensor
    positions_BVD: Tensor
    mask_BV: Tensor
    context_BD: Tensor

    def rows(self, rows_B: Tensor) -> "Clips":
        return Clips(self.video_BVD[rows_B], self.positions_BVD[rows_B], self.mask_BV[rows_B], self.context_BD[rows_B])


@dataclass
class Encoded:
    """clips_BVD: clips that know the question; prompt_BD: the moment prompt after the encoder; attention_BVK: of clips
    to dummy and real words, mean over heads and layers."""

    clips_BVD: Tensor
    prompt_BD: Tensor
    attention_BVK: Tensor


class TextToVideoEncoder(nn.Module):
    """`t2v_layers` layers of attention from clips to the same words."""

    def __init__(self, config: CgDetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TextToVideoLayer(config.width, config.heads, config.ffn_width, config.dropout, config.drop_path)
            for _ in range(config.t2v_layers)
        )

    def forward(self, clips: Clips, words: Words) -> tuple[Tensor, Tensor]:
        """New clips (B, V, D) and the attention (B, V, K), mean over heads and layers."""
        key_BKD = words.keys_BKD + words.positions_KD
        value_BVD, attention = clips.video_BVD, []
        for layer in self.layers:
            query_BVD = value_BVD + clips.positions_BVD
            value_BVD, weights_BVK = layer(query_BVD, key_BKD, words.real_BWD, value_BVD, words.mask_BK)
            attention.append(weights_BVK)
        return value_BVD, torch.stack(attention).mean(0)

    def without_words(self, value_BSD: Tensor) -> Tensor:
        for layer in self.layers:
            assert isinstance(layer, TextToVideoLayer)
            value_BSD = layer.without_words(value_BSD)
        return value_BSD


class Transformer(nn.Module):
    """Clips meet words, then one another together with the moment prompt; queries meet the clips."""

    def __init__(self, config: CgDetrConfig) -> None:
        super().__init__()
        sizes = (config.width, config.heads, config.ffn_width, config.dropout, config.drop_path)
        self.t2v_encoder = TextToVideoEncoder(config)
        self.encoder = Encoder(config.encoder_layers, *sizes)
        self.mcls_encoder = Encoder(config.moment_layers, *sizes)
        self.decoder = Decoder(config)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def encode(self, clips: Clips, words: Words, prompts_PD: Tensor, prompt_position_1D: Tensor) -> Encoded:
        video_BVD, attention_BVK = self.t2v_encoder(clips, words)
        prompt_B1D = moment_prompt(clips, attention_BVK[..., -words.real :], prompts_PD)[:, None]
        prompt_B1D = self.t2v_encoder.without_words(prompt_B1D)
        memory_BSD = self.encoder(*behind(prompt_B1D, prompt_position_1D, video_BVD, clips))
        return Encoded(memory_BSD[:, 1:] + memory_BSD[:, :1], memory_BSD[:, 0], attention_BVK)

    def decode(self, queries_Q2: Tensor, encoded: Encoded, clips: Clips) -> tuple[Tensor, Tensor]:
        """States (R, B, Q, D) and starting spans (R, B, Q, 2) of the R decoder layers; `queries_Q2` are logits."""
        reference_BQ2 = queries_Q2.sigmoid().expand(len(clips.mask_BV), -1, -1)
        return self.decoder(reference_BQ2, encoded.clips_BVD, clips.positions_BVD, clips.mask_BV)


def moment_prompt(clips: Clips, attention_BVW: Tensor, prompts_PD: Tensor) -> Tensor:
    """For each sample (B, D) the learned prompt that its clips resemble most, scaled by how much, plus the context.

    What a clip adds to its context is compared with every prompt; clips count by how much they attend to the question.
    """
    resemblance_BVP = (direction(clips.video_BVD - clips.context_BD[:, None]) @ direction(prompts_PD).T).softmax(-1)
    share_BV = attention_BVW.detach().sum(-1) * clips.mask_BV
    share_BV = share_BV / share_BV.sum(1, keepdim=True).clamp(min=torch.finfo(share_BV.dtype).tiny)
    score_B, index_B = (share_BV[..., None] * resemblance_BVP).sum(1).max(1)
    return score_B[:, None] * prompts_PD[index_B] + clips.context_BD


def behind(
    first_B1D: Tensor, position_1D: Tensor, value_BVD: Tensor, clips: Clips, mask_BV: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Values, positions and mask of a learned token followed by clips: all valid ones, or those of `mask_BV`."""
    mask_BV = clips.mask_BV if mask_BV is None else mask_BV
    position_B1D = position_1D.expand(len(first_B1D), 1, -1)
    visible_B1 = torch.ones_like(mask_BV[:, :1])
    return (
        torch.cat([first_B1D, value_BVD], 1),
        torch.cat([position_B1D, clips.positions_BVD], 1),
        torch.cat([visible_B1, mask_BV], 1),
    )
