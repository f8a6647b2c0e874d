"""The temporal network of VideoChat-TPO: CG-DETR (arXiv 2311.08835) with the task embedding as one more word.

Parameter names are those of `cg_model` in the published checkpoint; its `txt_position_embed` and `txt_proj_linear`,
which no forward pass reaches, are left out.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tpo_core.config.model import CgDetrConfig
from tpo_core.heads.base import Movable
from tpo_core.heads.cgdetr.layers import Encoder, Mlp, clip_positions, input_layers, inverse_sigmoid
from tpo_core.heads.cgdetr.transformer import Clips, Encoded, Transformer, Words, behind

WORD, CLIP = 0, 1  # rows of token_type_embeddings


@dataclass
class CgDetrInputs(Movable):
    """video_BVC: clip features, whose last two channels are start and end of the clip as fractions of the video.
    text_BWC: one vector a word, W >= 0. prompt_BC: the task embedding, as wide as a word. Masks are bool, True where
    valid, padded on the right; every sample has a valid clip."""

    video_BVC: Tensor
    video_mask_BV: Tensor
    text_BWC: Tensor
    text_mask_BW: Tensor
    prompt_BC: Tensor


@dataclass
class MomentBranch:
    """What the two learned tokens of training say. moment_BD, rest_BD: of the clips inside the moments, of all others;
    sentence_BD, dummy_sentence_BD: of the real, of the dummy words. frames_BVD: clips after the moment encoder that
    saw the other clips of their kind. similarity_BVK: of clips to dummy and real words."""

    moment_BD: Tensor
    rest_BD: Tensor
    frames_BVD: Tensor
    sentence_BD: Tensor
    dummy_sentence_BD: Tensor
    similarity_BVK: Tensor


@dataclass
class NegativePairs:
    """The M rows (`rows_B` is True) of which the next row shows another video, with the words of that next row."""

    rows_B: Tensor
    saliency_MV: Tensor
    word_attention_MV: Tensor


@dataclass
class CgDetrOutput:
    """Of R decoder layers, the last being the answer: logits_RBQ2 (class 0 is foreground) and spans_RBQ2 (centre and
    width as fractions), with states_RBQD and references_RBQ2 that they came from.

    saliency_BV: any real number. word_attention_BV: share of a clip's attention that goes to real words, in [0, 1].
    attention_BVK: dummy words first. moment: only with targets; negatives: only where two rows show different videos.
    """

    logits_RBQ2: Tensor
    spans_RBQ2: Tensor
    states_RBQD: Tensor
    references_RBQ2: Tensor
    encoded: Encoded
    saliency_BV: Tensor
    word_attention_BV: Tensor
    dummies_BND: Tensor
    prompts_PD: Tensor
    video_mask_BV: Tensor
    moment: MomentBranch | None = None
    negatives: NegativePairs | None = None

    @property
    def attention_BVK(self) -> Tensor:
        return self.encoded.attention_BVK


class CgDetr(nn.Module):
    """video_width, text_width: channels of the inputs, the former with the two of the clip's place."""

    def __init__(self, config: CgDetrConfig, video_width: int, text_width: int) -> None:
        super().__init__()
        width, dropout = config.width, config.input_dropout
        sizes = (width, config.sentence_heads, config.ffn_width, config.dropout, config.drop_path)
        self.transformer = Transformer(config)
        self.input_vid_proj = input_layers(video_width, width, config.input_layers, dropout)
        self.input_txt_proj = input_layers(text_width, width, config.input_layers, dropout)
        self.token_type_embeddings = nn.Embedding(2, width)
        nn.init.normal_(self.token_type_embeddings.weight, std=0.02)
        self.txtproj_encoder = Encoder(config.dummy_layers, *sizes)
        for layer in self.txtproj_encoder.layers[1:]:  # as published: copies of the first
            layer.load_state_dict(self.txtproj_encoder.layers[0].state_dict())
        self.scls_encoder = Encoder(config.sentence_layers, *sizes)
        self.dummy_rep_token = nn.Parameter(torch.randn(config.dummies, width))
        self.dummy_rep_pos = nn.Parameter(torch.randn(config.dummies, width))
        self.global_rep_token = nn.Parameter(torch.randn(config.prompts, width))
        self.global_rep_pos = nn.Parameter(torch.randn(1, width))
        self.moment_rep_token = nn.Parameter(torch.randn(width))
        self.moment_rep_pos = nn.Parameter(torch.randn(width))
        self.sent_rep_token = nn.Parameter(torch.randn(width))
        self.sent_rep_pos = nn.Parameter(torch.randn(width))
        self.query_embed = nn.Embedding(config.queries, 2)
        self.span_embed = Mlp(width, width, width, 2)
        self.class_embed = nn.Linear(width, 2)
        self.saliency_proj1 = nn.Linear(width, width)
        self.saliency_proj2 = nn.Linear(width, width)

    def forward(
        self, inputs: CgDetrInputs, relevant_BV: Tensor | None = None, video_ids_B: Tensor | None = None
    ) -> CgDetrOutput:
        """relevant_BV: 1 on the clips inside moments, for the branch of training. video_ids_B: equal numbers for rows
        that show the same video, for the negative pairs."""
        clips = self.clips(inputs)
        words, dummies_BND = self.words(inputs)
        encoded = self.transformer.encode(clips, words, self.global_rep_token, self.global_rep_pos)
        states_RBQD, references_RBQ2 = self.transformer.decode(self.query_embed.weight, encoded, clips)
        return CgDetrOutput(
            logits_RBQ2=self.class_embed(states_RBQD),
            spans_RBQ2=(self.span_embed(states_RBQD) + inverse_sigmoid(references_RBQ2)).sigmoid(),
            states_RBQD=states_RBQD,
            references_RBQ2=references_RBQ2,
            encoded=encoded,
            saliency_BV=self.saliency(encoded),
            word_attention_BV=word_attention(encoded, words),
            dummies_BND=dummies_BND,
            prompts_PD=self.global_rep_token,
            video_mask_BV=clips.mask_BV,
            moment=None if relevant_BV is None else self.moment_branch(clips, words, relevant_BV),
            negatives=None if video_ids_B is None else self.negatives(clips, words, video_ids_B),
        )

    def clips(self, inputs: CgDetrInputs) -> Clips:
        video_BVD = self.input_vid_proj(inputs.video_BVC) + self.token_type_embeddings.weight[CLIP]
        mask_BV1 = inputs.video_mask_BV[..., None]
        context_BD = (video_BVD.detach() * mask_BV1).sum(1) / mask_BV1.sum(1)
        return Clips(video_BVD, clip_positions(inputs.video_mask_BV, video_BVD), inputs.video_mask_BV, context_BD)

    def words(self, inputs: CgDetrInputs) -> tuple[Words, Tensor]:
        """Keys, and the dummy words (B, N, D) alone. Words have no positions, dummy words learned ones."""
        text_BWC, mask_BW = with_prompt(inputs.text_BWC, inputs.text_mask_BW, inputs.prompt_BC)
        text_BWD = self.input_txt_proj(text_BWC) + self.token_type_embeddings.weight[WORD]
        dummies_BND = self.dummy_rep_token.expand(len(text_BWD), -1, -1)
        positions_KD = torch.cat([self.dummy_rep_pos, torch.zeros_like(text_BWD[0])])
        mask_BK = torch.cat([mask_BW.new_ones(dummies_BND.shape[:2]), mask_BW], 1)
        fitted_BKD = self.txtproj_encoder(torch.cat([dummies_BND, text_BWD], 1), positions_KD, mask_BK)
        dummies_BND = fitted_BKD[:, : dummies_BND.shape[1]]
        return Words(torch.cat([dummies_BND, text_BWD], 1), positions_KD, mask_BK, mask_BW.shape[1]), dummies_BND

    def saliency(self, encoded: Encoded) -> Tensor:
        clips_BVD, prompt_BD = self.saliency_proj1(encoded.clips_BVD), self.saliency_proj2(encoded.prompt_BD)
        return (clips_BVD * prompt_BD[:, None]).sum(-1) / clips_BVD.shape[-1] ** 0.5

    def moment_branch(self, clips: Clips, words: Words, relevant_BV: Tensor) -> MomentBranch:
        inside_BV = (relevant_BV > 0) & clips.mask_BV
        moment_BD, inside_frames_BVD = self.summarize_clips(clips, inside_BV)
        rest_BD, rest_frames_BVD = self.summarize_clips(clips, ~inside_BV & clips.mask_BV)
        n_dummies = words.keys_BKD.shape[1] - words.real
        dummies_BND, words_BWD = words.keys_BKD.split([n_dummies, words.real], 1)
        positions_ND, positions_WD = words.positions_KD.split([n_dummies, words.real])
        mask_BN, mask_BW = words.mask_BK.split([n_dummies, words.real], 1)
        sentence_BD, seen_words_BWD = self.summarize_words(words_BWD, positions_WD, mask_BW)
        dummy_sentence_BD, seen_dummies_BND = self.summarize_words(dummies_BND, positions_ND, mask_BN)
        seen_BKD = torch.cat([seen_dummies_BND, seen_words_BWD], 1)
        return MomentBranch(
            moment_BD=moment_BD,
            rest_BD=rest_BD,
            frames_BVD=torch.where(inside_BV[..., None], inside_frames_BVD, rest_frames_BVD),
            sentence_BD=sentence_BD,
            dummy_sentence_BD=dummy_sentence_BD,
            similarity_BVK=inside_frames_BVD @ seen_BKD.transpose(1, 2),
        )

    def summarize_clips(self, clips: Clips, mask_BV: Tensor) -> tuple[Tensor, Tensor]:
        """The moment token (B, D) and the clips (B, V, D), after the token met the clips of the mask."""
        token_B1D = self.moment_rep_token.expand(len(mask_BV), 1, -1)
        seen_BSD = self.transformer.mcls_encoder(
            *behind(token_B1D, self.moment_rep_pos, clips.video_BVD, clips, mask_BV)
        )
        return seen_BSD[:, 0], seen_BSD[:, 1:]

    def summarize_words(self, words_BWD: Tensor, positions_WD: Tensor, mask_BW: Tensor) -> tuple[Tensor, Tensor]:
        """The sentence token (B, D) and the words (B, W, D), after the token met the words of the mask."""
        token_B1D = self.sent_rep_token.expand(len(words_BWD), 1, -1)
        positions_SD = torch.cat([self.sent_rep_pos[None], positions_WD])
        mask_BS = torch.cat([torch.ones_like(mask_BW[:, :1]), mask_BW], 1)
        seen_BSD = self.scls_encoder(torch.cat([token_B1D, words_BWD], 1), positions_SD, mask_BS)
        return seen_BSD[:, 0], seen_BSD[:, 1:]

    def negatives(self, clips: Clips, words: Words, video_ids_B: Tensor) -> NegativePairs | None:
        rows_B = video_ids_B != video_ids_B.roll(-1, 0)
        if not rows_B.any():
            return None
        other_words = words.of_next(rows_B)
        encoded = self.transformer.encode(clips.rows(rows_B), other_words, self.global_rep_token, self.global_rep_pos)
        return NegativePairs(rows_B, self.saliency(encoded), word_attention(encoded, other_words))


def word_attention(encoded: Encoded, words: Words) -> Tensor:
    """Share (B, V) of each clip's attention on real words; dropout may scale it above 1, hence the clamp."""
    real_BVW = encoded.attention_BVK[..., -words.real :] * words.mask_BK[:, None, -words.real :]
    return real_BVW.sum(-1).clamp(0, 1)


def with_prompt(text_BWC: Tensor, mask_BW: Tensor, prompt_BC: Tensor) -> tuple[Tensor, Tensor]:
    """Text and mask with the prompt behind the last valid word of each sample, one row longer."""
    place_B1 = mask_BW.sum(1, keepdim=True)
    row_W = torch.arange(mask_BW.shape[1] + 1, device=mask_BW.device)
    longer_BWC = torch.cat([text_BWC, torch.zeros_like(prompt_BC)[:, None]], 1)
    return torch.where((row_W == place_B1)[..., None], prompt_BC[:, None], longer_BWC), row_W <= place_B1
