"""Mask head: the masks of one object over all stored frames, from one hidden vector.

The `light` decoder is ours: a convolutional stem on the pixels gives sharp borders, the vision tower's patch features
give the meaning, the projected hidden vector modulates both (FiLM, arXiv 1709.07871) and is the 1x1 kernel of the last
layer. All frames are decoded at once. Tracks that come as boxes (GOT-10k) are learned through the projections of the
box, the first term of BoxInst (arXiv 2012.02310, eq. 2).
"""

from collections.abc import Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tpo_core.config.schema import ModelConfig
from tpo_core.heads.base import HeadContext, HeadOutput, MaskPrediction, MaskTargets, TaskHead, Timeline

NORM_GROUPS = 4
TERMS = ("bce", "dice", "projection", "absent")


def conv_norm(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
    return nn.Sequential(conv, nn.GroupNorm(NORM_GROUPS, channels_out))


def coordinates(place_F: Tensor, height: int, width: int) -> Tensor:
    """(F, 3, height, width): x, y of the cell centres in [-1, 1], and each frame's own place in its clip."""
    axes = [(torch.arange(n, device=place_F.device) + 0.5) * (2 / n) - 1 for n in (height, width)]
    t, y, x = torch.meshgrid(place_F, *axes, indexing="ij")
    return torch.stack([x, y, t], 1)


def draw_frames(valid_NT: Tensor, count: int, generators: Sequence[torch.Generator]) -> Tensor:
    """(N, count) random frames in order of time, annotated ones first of all; one generator a row."""
    frames = valid_NT.shape[1]
    chance_NT = torch.stack([torch.rand(frames, generator=each) for each in generators]).to(valid_NT.device) + valid_NT
    return chance_NT.topk(count, dim=1).indices.sort(1).values


class FilmBlock(nn.Module):
    """Residual 3x3 convolution whose normalised output is scaled and shifted by the embedding: (F, W, h, w), (F, E)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = conv_norm(width, width)
        self.film = nn.Linear(width, 2 * width)

    def forward(self, features: Tensor, embedding_FE: Tensor) -> Tensor:
        scale, shift = self.film(embedding_FE)[:, :, None, None].chunk(2, 1)
        return features + F.relu(self.conv(features) * (1 + scale) + shift)


class LightDecoder(nn.Module):
    """Mask logits (B, T, H/4, W/4) from hidden vectors (B, C), patches (B, T, N, V) and pixels (B, T, 3, H, W)."""

    def __init__(self, hidden_size: int, vision_size: int, width: int) -> None:
        super().__init__()
        self.embedding = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, width), nn.LayerNorm(width))
        self.stem = nn.Sequential(conv_norm(3, width // 2, stride=2), nn.ReLU(), conv_norm(width // 2, width, stride=2))
        self.patches = nn.Sequential(nn.LayerNorm(vision_size), nn.Linear(vision_size, width))
        self.place = nn.Conv2d(3, width, 1)
        self.coarse = FilmBlock(width)
        self.fine_place = nn.Conv2d(3, width, 1)
        self.fine = nn.ModuleList(FilmBlock(width) for _ in range(2))
        self.kernel = nn.Linear(width, width + 1)

    def forward(self, hidden_BC: Tensor, context: HeadContext) -> Tensor:
        B, T = context.frame_mask_BT.shape
        rows, columns = context.grid_hw
        embedding_BE = self.embedding(hidden_BC)
        embedding_FE = embedding_BE.repeat_interleave(T, 0)
        coarse = self.patches(context.patches_BTNC).view(B * T, rows, columns, -1).permute(0, 3, 1, 2)
        place_BT = context.times_s_BT / context.duration_s_B.clamp(min=1e-6)[:, None] * 2 - 1
        coarse = self.coarse(coarse + self.place(coordinates(place_BT.flatten(), rows, columns)), embedding_FE)
        fine = self.stem(context.pixels_BTCHW.flatten(0, 1))
        height, width = fine.shape[-2:]
        fine = fine + F.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)
        fine = fine + self.fine_place(coordinates(place_BT.flatten(), height, width))
        for block in self.fine:
            fine = block(fine, embedding_FE)
        kernel_BE, bias_B1 = self.kernel(embedding_BE).split([fine.shape[1], 1], 1)
        logits = torch.einsum("be,btehw->bthw", kernel_BE, fine.view(B, T, -1, height, width))
        return logits / fine.shape[1] ** 0.5 + bias_B1[:, :, None, None]


class MaskHead(TaskHead):
    """Balanced binary cross-entropy and dice on annotated frames; projections for tracks that have only boxes."""

    name = "mask"
    begin = "<track_begin>"
    slot = "<tracking>"

    def __init__(self, hidden_size: int, vision_size: int, width: int, train_frames: int | None = None) -> None:
        super().__init__()
        self.train_frames = train_frames
        self.decoder = LightDecoder(hidden_size, vision_size, width)

    @classmethod
    def from_config(cls, config: ModelConfig, hidden_size: int, vision_size: int) -> Self:
        return cls(hidden_size, vision_size, config.mask.width, config.mask.train_frames)

    def counts(self, timeline: Timeline, targets: MaskTargets) -> dict[str, int]:
        """Annotated frames; where some are drawn, annotated ones come first."""
        frames_N = targets.valid_NT.sum(1)
        frames = int((frames_N if self.train_frames is None else frames_N.clamp(max=self.train_frames)).sum())
        return dict.fromkeys(TERMS, frames)

    def forward(self, hidden_NC: Tensor, context: HeadContext, targets: MaskTargets) -> HeadOutput:
        counts = self.counts(context, targets)
        if self.train_frames is not None and self.train_frames < targets.valid_NT.shape[1]:
            index_NK = draw_frames(targets.valid_NT, self.train_frames, context.generators())
            context, targets = context.frames(index_NK), targets.frames(index_NK)
        size = targets.masks_NTHW.shape[-2:]
        logits_NTHW = self.decoder(hidden_NC, context)
        logits_NTHW = F.interpolate(logits_NTHW, size, mode="bilinear", align_corners=False)
        box_only_NT = targets.box_only_N[:, None].expand_as(targets.valid_NT)
        dense_NT, boxed_NT = targets.valid_NT & ~box_only_NT, targets.valid_NT & box_only_NT
        truth_MHW = targets.masks_NTHW[dense_NT].to(logits_NTHW.dtype)
        terms = {
            **dense_terms(logits_NTHW[dense_NT], truth_MHW),
            **projection_terms(logits_NTHW[boxed_NT], targets.boxes_NT4[boxed_NT]),
        }
        sums = {name: value_M.sum() for name, value_M in terms.items()}
        report = {"iou": mask_iou(logits_NTHW[dense_NT].detach(), truth_MHW)} if len(truth_MHW) else {}
        return HeadOutput(sums, counts, report)

    def predict(self, hidden_NC: Tensor, context: HeadContext) -> list[MaskPrediction]:
        predictions = []
        logits_NTHW = self.decoder(hidden_NC, context)
        for logits_THW, mask_T, size in zip(logits_NTHW, context.frame_mask_BT, context.size_wh_B2, strict=True):
            width, height = (int(side) for side in size)
            if not mask_T.any():  # of a text alone
                predictions.append(decode(torch.zeros(0, height, width)))
                continue
            full = F.interpolate(
                logits_THW[mask_T][None].float(), (height, width), mode="bilinear", align_corners=False
            )
            predictions.append(decode(full[0].cpu()))
        return predictions


def dense_terms(logits_MHW: Tensor, truth_MHW: Tensor) -> dict[str, Tensor]:
    """Per frame: "bce" with object and background weighing half each, "dice" 0 where the object is absent."""
    pixel = F.binary_cross_entropy_with_logits(logits_MHW, truth_MHW, reduction="none")
    area_M = truth_MHW.sum((1, 2))
    background_M = (1 - truth_MHW).sum((1, 2))
    present_M = area_M > 0
    on_M = (pixel * truth_MHW).sum((1, 2)) / area_M.clamp(min=1)
    off_M = (pixel * (1 - truth_MHW)).sum((1, 2)) / background_M.clamp(min=1)
    bce_M = torch.where(present_M, 0.5 * (on_M + off_M), off_M)
    return {"bce": bce_M, "dice": dice(logits_MHW.sigmoid().flatten(1), truth_MHW.flatten(1)) * present_M}


def projection_terms(logits_MHW: Tensor, boxes_M4: Tensor) -> dict[str, Tensor]:
    """Per frame: "projection", the dice distance between the maxima over rows and columns and the box's two sides.

    Where the object is absent (nan box) every pixel is background: "absent", a plain cross-entropy.
    """
    _, height, width = logits_MHW.shape
    present_M = boxes_M4.isfinite().all(1)
    boxes_M4 = boxes_M4.nan_to_num()
    probability_MHW = logits_MHW.sigmoid()
    across_M = dice(probability_MHW.amax(1), side(boxes_M4[:, 0], boxes_M4[:, 2], width))
    down_M = dice(probability_MHW.amax(2), side(boxes_M4[:, 1], boxes_M4[:, 3], height))
    absent_M = F.softplus(logits_MHW).mean((1, 2))
    return {"projection": (across_M + down_M) * present_M, "absent": absent_M * ~present_M}


def side(low_M: Tensor, high_M: Tensor, cells: int) -> Tensor:
    """0/1 (M, cells): the cells that the interval [low, high] (fractions) touches, at least one inside the image."""
    edge = torch.arange(cells, device=low_M.device) / cells
    low_M, high_M = low_M.clamp(0, 1 - 0.5 / cells), high_M.clamp(0.5 / cells, 1)
    return ((edge + 1 / cells > low_M[:, None]) & (edge < torch.maximum(high_M, low_M + 1e-6)[:, None])).to(low_M.dtype)


def dice(probability_ML: Tensor, truth_ML: Tensor) -> Tensor:
    """1 - dice (M,) with squared sums and +1 smoothing (V-Net, arXiv 1606.04797; BoxInst uses the same form)."""
    overlap_M = (probability_ML * truth_ML).sum(1)
    return 1 - (2 * overlap_M + 1) / (probability_ML.square().sum(1) + truth_ML.square().sum(1) + 1)


def mask_iou(logits_MHW: Tensor, truth_MHW: Tensor) -> float:
    """Mean IoU over frames, 1 where both are empty; for the log."""
    predicted, truth = logits_MHW > 0, truth_MHW > 0
    union_M = (predicted | truth).sum((1, 2))
    iou_M = torch.where(union_M > 0, (predicted & truth).sum((1, 2)) / union_M.clamp(min=1), 1.0)
    return float(iou_M.mean())


def decode(logits_THW: Tensor) -> MaskPrediction:
    masks_THW = logits_THW > 0
    boxes_T4 = torch.full((len(masks_THW), 4), torch.nan)
    scores_T = torch.zeros(len(masks_THW))
    for index, mask_HW in enumerate(masks_THW):
        if mask_HW.any():
            x, y = mask_HW.any(0).nonzero().squeeze(1), mask_HW.any(1).nonzero().squeeze(1)
            boxes_T4[index] = torch.stack([x[0], y[0], x[-1] + 1, y[-1] + 1]).float()
            scores_T[index] = logits_THW[index][mask_HW].sigmoid().mean()
    return MaskPrediction(masks_THW, boxes_T4, scores_T)
