"""Region head: one box from one hidden vector.

Source: the published VideoChat-TPO region head (`loc_decoder`: Linear, ReLU, Linear to 4, no sigmoid) and its loss; the
paper's text says mean squared error instead, which the recipe offers as `model.region.loss: mse`.
"""

from typing import Self

import torch
from torch import Tensor, nn

from tpo_core.config.schema import ModelConfig
from tpo_core.heads.base import BoxPrediction, HeadContext, HeadOutput, RegionTargets, TaskHead, Timeline
from tpo_core.heads.ranks import mean_over_ranks

L1_WEIGHT = 2.0
GIOU_WEIGHT = 0.2
MIN_AREA = 1e-9  # as a fraction of the image; a pixel of 8K is 3e-8. Below it a quotient has gradients beyond fp32
GIOU_TERM_WITHOUT_VALID_BOX = 2.0  # the largest value of 1 - GIoU


def intersection_and_union(a_N4: Tensor, b_N4: Tensor) -> tuple[Tensor, Tensor]:
    """Areas (N,) of the intersection and the union of paired xyxy boxes."""
    low, high = torch.maximum(a_N4[:, :2], b_N4[:, :2]), torch.minimum(a_N4[:, 2:], b_N4[:, 2:])
    inter_N = (high - low).clamp(min=0).prod(1)
    union_N = (a_N4[:, 2:] - a_N4[:, :2]).prod(1) + (b_N4[:, 2:] - b_N4[:, :2]).prod(1) - inter_N
    return inter_N, union_N


def generalized_iou(a_N4: Tensor, b_N4: Tensor) -> Tensor:
    """GIoU (N,) in [-1, 1] of paired xyxy boxes with x0 <= x1 and y0 <= y1; finite for boxes without area."""
    inter_N, union_N = intersection_and_union(a_N4, b_N4)
    hull_N = (torch.maximum(a_N4[:, 2:], b_N4[:, 2:]) - torch.minimum(a_N4[:, :2], b_N4[:, :2])).prod(1)
    return ratio(inter_N, union_N) - ratio(hull_N - union_N, hull_N)


def ratio(part_N: Tensor, whole_N: Tensor) -> Tensor:
    """part / whole; 0, and without gradient, where the whole is next to nothing."""
    return torch.where(whole_N > MIN_AREA, part_N / whole_N.clamp(min=MIN_AREA), torch.zeros_like(whole_N))


def box_loss(predicted_N4: Tensor, target_N4: Tensor) -> dict[str, Tensor]:
    """Published region loss 2 * mean|d| + mean(1 - GIoU) / 5, as its two weighted terms.

    GIoU counts only predictions with x0 <= x1 and y0 <= y1 and is the constant 2 when there is none: an inverted box
    learns from the L1 term alone.
    """
    valid_N = (predicted_N4[:, 2:] >= predicted_N4[:, :2]).all(1)
    distance = (1 - generalized_iou(predicted_N4[valid_N], target_N4[valid_N])).sum()
    giou = mean_over_ranks(distance, valid_N.sum(), len(valid_N), of_none=GIOU_TERM_WITHOUT_VALID_BOX)
    return {"l1": L1_WEIGHT * (predicted_N4 - target_N4).abs().mean(), "giou": GIOU_WEIGHT * giou}


def mean_iou(predicted_N4: Tensor, target_N4: Tensor) -> float:
    """Mean IoU, an inverted prediction counting as empty; for the log."""
    high = torch.maximum(predicted_N4[:, 2:], predicted_N4[:, :2])
    inter_N, union_N = intersection_and_union(torch.cat([predicted_N4[:, :2], high], 1), target_N4)
    return float((inter_N / union_N.clamp(min=1e-12)).mean())


class RegionHead(TaskHead):
    """loc_decoder: hidden (N, C) -> xyxy (N, 4) as fractions of the original image, neither squashed nor clamped."""

    name = "region"
    begin = "<box_begin>"
    slot = "<boxes>"

    def __init__(self, hidden_size: int, loss: str) -> None:
        super().__init__()
        self.loss = loss
        self.loc_decoder = nn.Sequential(
            nn.Linear(hidden_size, hidden_size // 2), nn.ReLU(), nn.Linear(hidden_size // 2, 4)
        )

    @classmethod
    def from_config(cls, config: ModelConfig, hidden_size: int, vision_size: int) -> Self:
        return cls(hidden_size, config.region.loss)

    def counts(self, timeline: Timeline, targets: RegionTargets) -> dict[str, int]:
        return dict.fromkeys(("mse",) if self.loss == "mse" else ("l1", "giou"), len(targets.boxes_N4))

    def forward(self, hidden_NC: Tensor, context: HeadContext, targets: RegionTargets) -> HeadOutput:
        predicted_N4 = self.loc_decoder(hidden_NC)
        if self.loss == "mse":
            means = {"mse": nn.functional.mse_loss(predicted_N4, targets.boxes_N4)}
        else:
            means = box_loss(predicted_N4, targets.boxes_N4)
        counts = self.counts(context, targets)
        sums = {name: mean * counts[name] for name, mean in means.items()}
        return HeadOutput(sums, counts, {"iou": mean_iou(predicted_N4.detach(), targets.boxes_N4)})

    def predict(self, hidden_NC: Tensor, context: HeadContext) -> list[BoxPrediction]:
        fraction_N4 = self.loc_decoder(hidden_NC).clamp(0, 1)
        low, high = fraction_N4[:, :2], torch.maximum(fraction_N4[:, 2:], fraction_N4[:, :2])
        boxes_N4 = torch.cat([low, high], 1) * context.size_wh_B2.repeat(1, 2)
        return [BoxPrediction(box) for box in boxes_N4.float().cpu()]
