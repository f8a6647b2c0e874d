"""Which predicted span answers for which true one: the cheapest assignment (Hungarian method), sample by sample."""

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from tpo_core.heads.cgdetr.spans import generalized_iou, to_ends

SPAN_COST, GIOU_COST, CLASS_COST = 10.0, 1.0, 4.0


def matching_cost(logits_BQ2: Tensor, spans_BQ2: Tensor, truth_M2: Tensor) -> Tensor:
    """fp32 cost (B, Q, M) of every prediction for every true span (centre, width): 10 L1 - gIoU - 4 p(foreground).

    The published code rounds the L1 part to bf16, which may change the assignment.
    """
    B, Q, _ = spans_BQ2.shape
    spans_N2, truth_M2 = spans_BQ2.flatten(0, 1).float(), truth_M2.float()
    l1_NM = (spans_N2[:, None] - truth_M2).abs().sum(-1)
    giou_NM = generalized_iou(to_ends(spans_N2), to_ends(truth_M2))
    foreground_N1 = logits_BQ2.flatten(0, 1).float().softmax(-1)[:, :1]
    return (SPAN_COST * l1_NM - GIOU_COST * giou_NM - CLASS_COST * foreground_N1).view(B, Q, len(truth_M2))


@torch.no_grad()
def match(logits_BQ2: Tensor, spans_BQ2: Tensor, truth: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For each sample the matched predictions, ascending, and their true spans: two lists of min(Q, k) indices.

    truth: per sample the true spans (k, 2) as centre and width.
    """
    pairs = []
    for row, truth_K2 in enumerate(truth):
        cost_QK = matching_cost(logits_BQ2[row : row + 1], spans_BQ2[row : row + 1], truth_K2)[0]
        # Diverged predictions must reach the loss, where the training loop names what is not finite.
        found = linear_sum_assignment(cost_QK.nan_to_num().cpu().numpy())
        predicted_K, true_K = (torch.as_tensor(index, device=spans_BQ2.device) for index in found)
        pairs.append((predicted_K, true_K))
    return pairs
