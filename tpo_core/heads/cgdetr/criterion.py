"""The training criterion of the published temporal head, in fp32.

Inherited from CG-DETR, because the published heads were trained so: the target of the distillation is a softmax over
padding words too; the labels of the dummy contrast are several ones a row, of which the first counts; the mean of the
moment cross-entropy counts padding clips; and what `saliency` lists. Mended: terms over nothing (no moment, no clip
inside one) are 0, and no saturated score or attention gives an infinity.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from tpo_core.heads.cgdetr.layers import direction
from tpo_core.heads.cgdetr.matcher import match
from tpo_core.heads.cgdetr.network import CgDetrOutput, MomentBranch
from tpo_core.heads.cgdetr.saliency import saliency_loss
from tpo_core.heads.cgdetr.spans import generalized_iou, to_ends
from tpo_core.heads.cgdetr.targets import CgDetrTargets

SPAN_WEIGHTS = {"span": 10.0, "giou": 1.0, "label": 4.0}  # of every decoder layer
WEIGHTS = {"saliency": 4.0, "ms_align": 1.0, "distill": 1.0, "orthogonal_dummy": 1.0}
FOREGROUND, BACKGROUND = 0, 1
CLASS_WEIGHTS = (1.0, 0.1)


@dataclass
class Criterion:
    """terms: unweighted, the terms of decoder layers but the last end in `_0`, `_1`, ... from the first on.

    class_error: by the same endings, percent of the matched predictions that are taken for background.
    matches: per decoder layer, per sample, predictions and true spans.
    """

    terms: dict[str, Tensor]
    class_error: dict[str, float]
    matches: list[list[tuple[Tensor, Tensor]]]

    def weighted(self) -> dict[str, Tensor]:
        """The terms times their published weights; the sum is the criterion."""
        return {name: weight_of(name) * value for name, value in self.terms.items()}


def weight_of(name: str) -> float:
    """The weight of a term; auxiliary terms have that of the last layer's."""
    return WEIGHTS[name] if name in WEIGHTS else SPAN_WEIGHTS[name.split("_")[0]]


def span_term(name: str, layer: int, *, last: int) -> str:
    """The name of a term of a decoder layer."""
    return name if layer == last else f"{name}_{layer}"


def criterion(output: CgDetrOutput, targets: CgDetrTargets) -> Criterion:
    """Every term of an output of the training branch."""
    assert output.moment is not None, "the criterion needs the output of the training branch"
    found = Criterion(
        terms={
            "saliency": saliency_loss(output, targets),
            "ms_align": alignment_loss(output, output.moment, targets.relevant_BV),
            "distill": distillation_loss(output.attention_BVK, output.moment, targets.relevant_BV),
            "orthogonal_dummy": likeness(output.dummies_BND) + likeness(output.prompts_PD),
        },
        class_error={},
        matches=[],
    )
    last = len(output.logits_RBQ2) - 1
    for layer, (logits_BQ2, spans_BQ2) in enumerate(zip(output.logits_RBQ2, output.spans_RBQ2, strict=True)):
        pairs = match(logits_BQ2, spans_BQ2, targets.spans)
        terms, error = span_losses(logits_BQ2, spans_BQ2, targets.spans, pairs)
        found.class_error[span_term("class_error", layer, last=last)] = error
        found.terms |= {span_term(name, layer, last=last): value for name, value in terms.items()}
        found.matches.append(pairs)
    return found


def span_losses(
    logits_BQ2: Tensor, spans_BQ2: Tensor, truth: list[Tensor], pairs: list[tuple[Tensor, Tensor]]
) -> tuple[dict[str, Tensor], float]:
    """Span, gIoU and label terms of one decoder layer, and the class error in percent."""
    row_M = torch.cat([torch.full_like(index, row) for row, (index, _) in enumerate(pairs)])
    query_M = torch.cat([index for index, _ in pairs])
    predicted_M2 = spans_BQ2[row_M, query_M]
    true_M2 = torch.cat([spans_K2[index] for spans_K2, (_, index) in zip(truth, pairs, strict=True)])
    classes_BQ = torch.full_like(logits_BQ2[..., 0], BACKGROUND, dtype=torch.long)
    classes_BQ[row_M, query_M] = FOREGROUND
    entropy_BQ = F.cross_entropy(
        logits_BQ2.transpose(1, 2), classes_BQ, logits_BQ2.new_tensor(CLASS_WEIGHTS), reduction="none"
    )
    giou_M = generalized_iou(to_ends(predicted_M2), to_ends(true_M2)).diagonal()
    count = max(1, len(row_M))
    terms = {
        "span": (predicted_M2 - true_M2).abs().sum() / (2 * count),
        "giou": (1 - giou_M).sum() / count,
        "label": entropy_BQ.mean(),
    }
    missed_M = logits_BQ2[row_M, query_M].argmax(-1) == BACKGROUND
    return terms, 100 * float(missed_M.sum()) / count


def alignment_loss(output: CgDetrOutput, moment: MomentBranch, relevant_BV: Tensor) -> Tensor:
    """Moments resemble their own question and no other; the contrast with dummy sentences; and each clip says whether
    it is inside.

    In the dummy contrast every dummy sentence but a moment's own is right; the published code takes the first of them,
    the second for the first moment and the first for all others.
    """
    moments_2BD = direction(torch.stack([moment.moment_BD, moment.rest_BD]))
    sentence_BX = torch.cat([*(moments_2BD @ direction(moment.sentence_BD).T)], 1)
    dummy_BX = torch.cat([*(moments_2BD @ direction(moment.dummy_sentence_BD).T)], 1)
    own_B = torch.arange(len(sentence_BX), device=sentence_BX.device)
    inside_BV = torch.einsum("bd,bvd->bv", moment.moment_BD, moment.frames_BVD)
    entropy_BV = F.binary_cross_entropy_with_logits(inside_BV, relevant_BV.clamp(0, 1), reduction="none")
    return (
        F.cross_entropy(sentence_BX, own_B)
        + F.cross_entropy(dummy_BX, (own_B == 0).long())
        + (entropy_BV * output.video_mask_BV).mean()
    )


def distillation_loss(attention_BVK: Tensor, moment: MomentBranch, relevant_BV: Tensor) -> Tensor:
    """How far the attention of the clips inside moments is from their similarity to words; 0 without such clips."""
    target_BVK = moment.similarity_BVK.softmax(-1).detach()
    divergence_BV = F.kl_div(torch.log(attention_BVK + 1e-6), target_BVK, reduction="none").mean(-1)
    inside_BV = relevant_BV > 0
    return (divergence_BV * inside_BV).sum() / inside_BV.sum().clamp(min=1)


def likeness(value_ND: Tensor) -> Tensor:
    """Mean absolute cosine of different vectors of a set (..., N, D), over all N * N places."""
    unit_ND = direction(value_ND)
    cosine_NN = unit_ND @ unit_ND.transpose(-1, -2).detach()
    same_NN = torch.eye(cosine_NN.shape[-1], dtype=torch.bool, device=cosine_NN.device)
    return cosine_NN.masked_fill(same_NN, 0).abs().mean()
