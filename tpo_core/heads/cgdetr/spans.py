"""Spans on a line, as (centre, width) or as (start, end), start <= end, and how much they overlap."""

import torch
from torch import Tensor

MIN_LENGTH = 1e-6  # unions and hulls below this are 0 / 0, overlap 0; as a fraction of a video, 0.1 ms of 100 s


def to_ends(spans_2: Tensor) -> Tensor:
    """(..., 2) centre and width to start and end."""
    centre, width = spans_2.unbind(-1)
    return torch.stack([centre - width / 2, centre + width / 2], -1)


def to_centres(spans_2: Tensor) -> Tensor:
    """(..., 2) start and end to centre and width."""
    start, end = spans_2.unbind(-1)
    return torch.stack([(start + end) / 2, end - start], -1)


def intersection_and_union(a_N2: Tensor, b_M2: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths (N, M) of what every a shares with every b, and of what either covers. Spans are (start, end)."""
    inter_NM = torch.minimum(a_N2[:, None, 1], b_M2[:, 1]) - torch.maximum(a_N2[:, None, 0], b_M2[:, 0])
    inter_NM = inter_NM.clamp(min=0)
    return inter_NM, (a_N2[:, 1] - a_N2[:, 0])[:, None] + (b_M2[:, 1] - b_M2[:, 0]) - inter_NM


def iou(a_N2: Tensor, b_M2: Tensor) -> Tensor:
    """IoU (N, M) in [0, 1]; 0 for two spans without length."""
    return ratio(*intersection_and_union(a_N2, b_M2))


def generalized_iou(a_N2: Tensor, b_M2: Tensor) -> Tensor:
    """IoU less the share of the common hull that neither covers: (N, M) in [-1, 1]; 0 for two spans at one point."""
    _, union_NM = intersection_and_union(a_N2, b_M2)
    hull_NM = torch.maximum(a_N2[:, None, 1], b_M2[:, 1]) - torch.minimum(a_N2[:, None, 0], b_M2[:, 0])
    return iou(a_N2, b_M2) - ratio(hull_NM - union_NM, hull_NM)


def ratio(part: Tensor, whole: Tensor) -> Tensor:
    """part / whole; 0, and without gradient, where the whole is next to nothing."""
    return torch.where(whole > MIN_LENGTH, part / whole.clamp(min=MIN_LENGTH), torch.zeros_like(whole))
