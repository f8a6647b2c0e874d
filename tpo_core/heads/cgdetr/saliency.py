"""The saliency part of the criterion: which clips a question is about, by score and by attention.

The parts are those of the published training, its oddities included: 11 rank terms are divided by 12; a row whose
next row shows the same video adds a rank term of its own scores, but where it is the only such row the published code
sums over a wrong axis and the term vanishes; attention has no such term; the cross-entropy of attention counts
padding clips.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from tpo_core.heads.cgdetr.network import CgDetrOutput, NegativePairs
from tpo_core.heads.cgdetr.targets import CgDetrTargets

MARGIN = 0.2
TEMPERATURE = 0.5
RANKS, RANK_DIVISOR = range(1, 12), 12
PADDING_SCORE = -1e3
CERTAIN = 100.0  # -log of a probability of zero, as in torch's binary cross-entropy
MIN_PROBABILITY = 1e-30  # below it -log(p) has a gradient near the limit of fp32


def saliency_loss(output: CgDetrOutput, targets: CgDetrTargets) -> Tensor:
    """Of scores and of attention each: margin of the drawn pairs, rank, and surprise at the words of another video;
    of attention also the cross-entropy of being inside a moment."""
    scores = side_loss(output.saliency_BV, negative_scores(output.negatives), output, targets)
    attention_BV = output.word_attention_BV
    attention = side_loss(attention_BV, negative_attention(output.negatives), output, targets)
    inside_BV = targets.saliency_BV.clamp(0, 1)
    entropy_BV = inside_BV * surprise(attention_BV) + (1 - inside_BV) * surprise(1 - attention_BV)
    return scores + same_video_rank(output, targets) + attention + entropy_BV.mean()


def negative_scores(negatives: NegativePairs | None) -> tuple[Tensor, Tensor] | None:
    """Scores (M, V) of the wrong words, and -log(1 - sigmoid(score)) in the form that does not overflow."""
    return None if negatives is None else (negatives.saliency_MV, F.softplus(negatives.saliency_MV))


def negative_attention(negatives: NegativePairs | None) -> tuple[Tensor, Tensor] | None:
    """Attention (M, V) to the wrong words, and -log(1 - attention)."""
    return None if negatives is None else (negatives.word_attention_MV, surprise(1 - negatives.word_attention_MV))


def side_loss(
    scores_BV: Tensor, negative: tuple[Tensor, Tensor] | None, output: CgDetrOutput, targets: CgDetrTargets
) -> Tensor:
    """What scores and attention share. With negatives, only the rows that have one are ranked."""
    margin, mask_BV = margin_loss(scores_BV, targets), output.video_mask_BV
    if negative is None or output.negatives is None:
        return margin + rank_loss(scores_BV, targets.saliency_BV, mask_BV)
    negative_MV, cost_MV = negative
    rows_B = output.negatives.rows_B
    label_MV, mask_MV = targets.saliency_BV[rows_B], mask_BV[rows_B]
    rank = rank_loss(
        torch.cat([scores_BV[rows_B], negative_MV], 1),
        torch.cat([label_MV, torch.zeros_like(label_MV)], 1),
        mask_MV.repeat(1, 2),
    )
    return margin + rank + torch.where(mask_MV, cost_MV, torch.zeros_like(cost_MV)).sum(1).mean()


def same_video_rank(output: CgDetrOutput, targets: CgDetrTargets) -> Tensor:
    """The rank term of the rows whose next row shows the same video; zero unless there are several (see above)."""
    if output.negatives is None or (rows_B := ~output.negatives.rows_B).sum() < 2:
        return output.saliency_BV.new_zeros(())
    return rank_loss(output.saliency_BV[rows_B], targets.saliency_BV[rows_B], output.video_mask_BV[rows_B])


def margin_loss(scores_BV: Tensor, targets: CgDetrTargets) -> Tensor:
    """Twice the mean over pairs of what the positive clip lacks to exceed the negative one by the margin."""
    gap_BP = scores_BV.gather(1, targets.negative_BP) - scores_BV.gather(1, targets.positive_BP)
    return 2 * (MARGIN + gap_BP).clamp(min=0).mean()


def rank_loss(scores_BS: Tensor, labels_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """For each rank, the clips labelled with it or higher against all: cross-entropy, mean over their share."""
    logits_BS = torch.where(mask_BS, scores_BS, PADDING_SCORE) / TEMPERATURE
    logits_BS = logits_BS - logits_BS.detach().amax(1, keepdim=True)
    log_share_BS = logits_BS - torch.log(logits_BS.exp().sum(1, keepdim=True) + 1e-6)
    rank_R = torch.tensor(RANKS, device=labels_BS.device, dtype=labels_BS.dtype)
    reached_RBS = labels_BS >= rank_R[:, None, None]
    cost_RB = -(reached_RBS * mask_BS * log_share_BS).sum(-1) / (reached_RBS.sum(-1) + 1e-6)
    return cost_RB.mean(1).sum() / RANK_DIVISOR


def surprise(probability: Tensor) -> Tensor:
    """-log(p) with finite values and gradients for all p in [0, 1]."""
    cost = -probability.clamp(min=MIN_PROBABILITY).log()
    return torch.where(probability > MIN_PROBABILITY, cost, CERTAIN)
