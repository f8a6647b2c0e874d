"""Mask head as published with VideoChat-TPO: the hidden vector becomes a prompt, which a frozen SAM2 follows.

It learns to give the prompt that SAM2's own prompt encoder would give for the object's box, and, on the side, the box
itself; SAM2 makes masks at prediction alone. Source: `track_embed` and `track_embed_decode2` of VideoChat-TPO
(arXiv 2412.19326). The third row of each prompt is a constant of SAM2, so a third of that target tells nothing.
"""

from collections import defaultdict
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tpo_core.config.model import Sam2MaskConfig
from tpo_core.config.schema import ModelConfig
from tpo_core.heads.base import HeadContext, HeadOutput, MaskPrediction, MaskTargets, TaskHead, Timeline, take_frames
from tpo_core.heads.mask import decode, dense_terms
from tpo_core.heads.region import mean_iou
from tpo_core.heads.sam2.frozen import PROMPT_ROWS, FrozenSam2
from tpo_core.heads.sam2.targets import PromptBoxes, prompt_boxes
from tpo_core.heads.sam2.tracking import track


class Projection(nn.Module):
    """hidden (N, C) -> (N, width) through one hidden layer of width C; parameters `layers.0` and `layers.1`."""

    def __init__(self, hidden_size: int, width: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(hidden_size, hidden_size), nn.Linear(hidden_size, width)])

    def forward(self, hidden_NC: Tensor) -> Tensor:
        first, second = self.layers
        return second(F.relu(first(hidden_NC)))


class Sam2MaskHead(TaskHead):
    """track_embed: hidden vector -> SAM2 prompt; track_embed_decode2: hidden vector -> box as xyxy fractions, neither
    squashed nor clamped, for training alone. `sam` is no part of the module: see FrozenSam2."""

    name = "mask"
    begin = "<track_begin>"
    slot = "<tracking>"

    def __init__(self, config: Sam2MaskConfig, hidden_size: int, sam: FrozenSam2) -> None:
        super().__init__()
        self.config = config
        self.sam = sam
        self.track_embed = Projection(hidden_size, PROMPT_ROWS * sam.prompt_width)
        self.track_embed_decode2 = Projection(hidden_size, 4)

    @classmethod
    def from_config(cls, config: ModelConfig, hidden_size: int, vision_size: int) -> Self:
        return cls(config.mask.sam2, hidden_size, FrozenSam2.load(config.mask.sam2.source))

    def looks_at_frames(self, *, training: bool) -> bool:
        return self.config.pixel_weight > 0 if training else True

    def prompts(self, hidden_NC: Tensor) -> Tensor:
        """(N, 3, C) embeddings in place of those of a box."""
        return self.track_embed(hidden_NC).unflatten(1, (PROMPT_ROWS, self.sam.prompt_width))

    def counts(self, timeline: Timeline, targets: MaskTargets) -> dict[str, int]:
        """Samples that show their object on some annotated frame; for the pixel terms those of them with masks."""
        truth = prompt_boxes(targets)
        counts = dict.fromkeys(("embedding", "box"), int(truth.present_N.sum()))
        if self.config.pixel_weight:
            counts |= dict.fromkeys(("pixel_bce", "pixel_dice"), len(masked_rows(truth, targets)))
        return counts

    def forward(self, hidden_NC: Tensor, context: HeadContext, targets: MaskTargets) -> HeadOutput:
        """Mean absolute differences "embedding" and "box", and, if the recipe weighs them, "pixel_bce" and
        "pixel_dice"."""
        with torch.autocast(hidden_NC.device.type, enabled=False):
            hidden_NC = hidden_NC.float()
            truth = prompt_boxes(targets)
            prompts_N3C, boxes_N4 = self.prompts(hidden_NC), self.track_embed_decode2(hidden_NC)
            terms_N = {
                "embedding": (prompts_N3C - self.sam.embed_boxes(truth.boxes_N4)).abs().mean((1, 2)),
                "box": (boxes_N4 - truth.boxes_N4).abs().mean(1),
            }
            present_N = truth.present_N
            sums = {name: (value_N * present_N).sum() for name, value_N in terms_N.items()}
            if self.config.pixel_weight:
                sums |= self.pixel_sums(prompts_N3C, truth, context, targets)
        seen = truth.present_N
        report = {"box_iou": mean_iou(boxes_N4[seen].detach(), truth.boxes_N4[seen])} if seen.any() else {}
        return HeadOutput(sums, self.counts(context, targets), report)

    def pixel_sums(
        self, prompts_N3C: Tensor, truth: PromptBoxes, context: HeadContext, targets: MaskTargets
    ) -> dict[str, Tensor]:
        """Of the masks that SAM2 makes on the frames prompted on; 0 where no sample of the batch has a mask there."""
        frames, places = stored_frames(context), truth.frame_N.tolist()
        masks_NHW, chosen = prompted_masks(truth, targets), masked_rows(truth, targets)
        totals = dict.fromkeys(("bce", "dice"), prompts_N3C.sum() * 0)
        if len(chosen):
            looked_at = [frames[row][places[row]].to(prompts_N3C.device) for row in chosen.tolist()]
            logits_Mhw = self.sam.mask_logits(looked_at, prompts_N3C[chosen])
            masks_MHW = masks_NHW[chosen].to(logits_Mhw.dtype)
            logits_MHW = F.interpolate(logits_Mhw[None], masks_MHW.shape[-2:], mode="bilinear", align_corners=False)[0]
            totals = {name: value_M.sum() for name, value_M in dense_terms(logits_MHW, masks_MHW).items()}
        return {f"pixel_{name}": self.config.pixel_weight * total for name, total in totals.items()}

    def predict(self, hidden_NC: Tensor, context: HeadContext) -> list[MaskPrediction]:
        """Prompted by the hidden vectors, or, where the recipe says so, by the box of the question if it has one."""
        with torch.autocast(hidden_NC.device.type, enabled=False):
            prompts_N3C = self.prompts(hidden_NC.float())
            if self.config.box_prompt == "given" and context.given_boxes_B4 is not None:
                given_N = context.given_boxes_B4.isfinite().all(1)
                boxed_N3C = self.sam.embed_boxes(context.given_boxes_B4.nan_to_num())
                prompts_N3C = torch.where(given_N[:, None, None], boxed_N3C, prompts_N3C)
            return self.track(prompts_N3C, context)

    @torch.no_grad()
    def track(self, prompts_N3C: Tensor, context: HeadContext) -> list[MaskPrediction]:
        """One prediction a prompt. With `sam.embed_boxes` of given boxes this is plain SAM2, the control of tracking.

        Rows that show one clip and are prompted on the same frame go through SAM2 together, clip after clip.
        """
        frames, device = stored_frames(context), context.frame_mask_BT.device
        rows_N = torch.arange(len(prompts_N3C), device=device)
        clip_N = rows_N if context.clip_B is None else context.clip_B
        start_N = torch.zeros_like(rows_N) if context.prompt_frame_B is None else context.prompt_frame_B
        groups: dict[tuple[int, int], list[int]] = defaultdict(list)
        for row, key in enumerate(zip(clip_N.tolist(), start_N.tolist(), strict=True)):
            groups[key].append(row)
        found: dict[int, MaskPrediction] = {}
        for (_, start), rows in groups.items():
            width, height = (int(side) for side in context.size_wh_B2[rows[0]])
            clip = follow(self.sam, frames[rows[0]], prompts_N3C[rows], start, (height, width))
            found |= dict(zip(rows, clip, strict=True))
        return [found[row] for row in rows_N.tolist()]


def prompted_masks(truth: PromptBoxes, targets: MaskTargets) -> Tensor:
    """The mask (N, H, W) of each sample on the frame that it prompts on."""
    return take_frames(targets.masks_NTHW, truth.frame_N[:, None])[:, 0]


def masked_rows(truth: PromptBoxes, targets: MaskTargets) -> Tensor:
    """The samples that have a mask, not empty, on that frame."""
    drawn_N = prompted_masks(truth, targets).flatten(1).any(1)
    return (truth.present_N & ~targets.box_only_N & drawn_N).nonzero().squeeze(1)


def follow(
    sam: FrozenSam2, frames_T3HW: Tensor, prompts_N3C: Tensor, start: int, size: tuple[int, int]
) -> list[MaskPrediction]:
    """The objects of one clip, at `size` (height, width); logits are enlarged a frame at a time."""
    if len(frames_T3HW) == 0:
        return [decode(torch.zeros(0, *size)) for _ in prompts_N3C]
    made: list[list[MaskPrediction]] = [[] for _ in frames_T3HW]
    for place, logits_Nhw in track(sam, frames_T3HW, prompts_N3C, start):
        full_NHW = F.interpolate(logits_Nhw[None], size, mode="bilinear", align_corners=False)[0].cpu()
        made[place] = [decode(logits_HW[None]) for logits_HW in full_NHW]
    return [joined(frames) for frames in zip(*made, strict=True)]


def joined(frames: tuple[MaskPrediction, ...]) -> MaskPrediction:
    """Predictions of single frames as one of them all."""
    return MaskPrediction(
        torch.cat([one.masks_THW for one in frames]),
        torch.cat([one.boxes_T4 for one in frames]),
        torch.cat([one.scores_T for one in frames]),
    )


def stored_frames(context: HeadContext) -> list[Tensor]:
    assert context.stored_frames is not None, "this mask head looks at the stored frames: put them into the context"
    counts, stored = context.frame_mask_BT.sum(1).tolist(), [len(clip) for clip in context.stored_frames]
    assert counts == stored, f"{stored} stored frames where the frame mask has {counts}"
    return context.stored_frames
