"""SAM2 over every stored frame of a clip, from one prompt, a frame at a time.

The language model sees 16 frames of a video, official scores of masks and tracks are over all of them, and SAM2 follows
an object through all frames of a video, as in the published application.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tpo_core.data.sample import Box, Rle
from tpo_core.evaluation.looking import Clip
from tpo_core.evaluation.record import plain_box, plain_mask
from tpo_core.heads.mask import decode
from tpo_core.heads.sam2.frozen import FrozenSam2
from tpo_core.heads.sam2.head import Sam2MaskHead
from tpo_core.heads.sam2.tracking import track
from tpo_core.models.tpo import TpoModel


@dataclass(frozen=True)
class Prompted:
    """What stands for the prediction of a mask head that has not followed yet: its prompt (3, C)."""

    prompt_3C: Tensor


@contextmanager
def prompts_only(model: TpoModel) -> Iterator[None]:
    """Within it a SAM2 mask head gives its prompts and follows nothing, since the model is shown some frames only."""
    head: Any = dict(model.heads.items()).get("mask")
    if not isinstance(head, Sam2MaskHead):
        yield
        return
    vars(head)["track"] = lambda prompts_N3C, context: [Prompted(prompt_3C) for prompt_3C in prompts_N3C]
    try:
        yield
    finally:
        del vars(head)["track"]


@torch.no_grad()
def follow_all(
    sam: FrozenSam2, clip: Clip, prompt_3C: Tensor, start: int, *, keep_masks: bool
) -> tuple[dict[int, Box | None], dict[int, Rle | None] | None]:
    """Boxes, and if `keep_masks` masks, by number of the frame, of one object prompted on the stored frame `start`."""
    boxes: dict[int, Box | None] = {}
    masks: dict[int, Rle | None] = {}
    frames: Any = clip  # indexed as a tensor is, and read from the shards frame by frame
    with torch.autocast(prompt_3C.device.type, enabled=False):
        for place, logits_1hw in track(sam, frames, prompt_3C[None].float(), start):
            number = int(clip.row.frame_index[place])
            logits_HW = F.interpolate(logits_1hw[None], clip.size_hw, mode="bilinear", align_corners=False)[0, 0]
            found = decode(logits_HW.cpu()[None])
            boxes[number] = plain_box(found.boxes_T4[0].numpy())
            if keep_masks:
                masks[number] = plain_mask(found.masks_THW[0].numpy())
    return boxes, masks if keep_masks else None
