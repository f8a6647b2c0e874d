"""The box that a sample teaches to prompt with: the object's on the first annotated frame where it is present.

Boxes of masks are half-open, [first, last + 1), and tight. The published code takes the extent of the pixels that touch
a mask from outside (`find_boundaries`, mode outer), whose last column is the same number, while its first is one less,
and both stay within the image: (x0 - 1, y0 - 1, x1, y1), clipped to [0, size - 1]. Of masks that touch three sides of
the image, or cover it, that rule makes boxes without area or -1, which are not followed.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from tpo_core.heads.base import MaskTargets


@dataclass
class PromptBoxes:
    """frame_N: the frame to prompt on; boxes_N4: xyxy fractions; present_N: bool, False where no annotated frame shows
    the object (frame and box then mean nothing; the box is 0)."""

    frame_N: Tensor
    boxes_N4: Tensor
    present_N: Tensor


def extent(hit_NTL: Tensor) -> tuple[Tensor, Tensor]:
    """First and one past the last place of each row of bools, as fractions (N, T) of L; of a row of False: 0 and 1."""
    length = hit_NTL.shape[-1]
    first, behind = hit_NTL.int().argmax(-1), hit_NTL.flip(-1).int().argmax(-1)
    return first / length, (length - behind) / length


def tight_boxes(masks_NTHW: Tensor) -> Tensor:
    """(N, T, 4) half-open xyxy fractions, nan where a mask is empty."""
    masks_NTHW = masks_NTHW > 0
    across_NTW, down_NTH = masks_NTHW.any(-2), masks_NTHW.any(-1)
    (x0, x1), (y0, y1) = extent(across_NTW), extent(down_NTH)
    boxes_NT4 = torch.stack([x0, y0, x1, y1], -1)
    return boxes_NT4.masked_fill(~across_NTW.any(-1, keepdim=True), torch.nan)


def prompt_boxes(targets: MaskTargets) -> PromptBoxes:
    """Boxes that the sample itself carries go before those of its masks, whose cells are coarser."""
    carried_NT = targets.boxes_NT4.isfinite().all(-1, keepdim=True)
    boxes_NT4 = torch.where(carried_NT, targets.boxes_NT4, tight_boxes(targets.masks_NTHW))
    seen_NT = targets.valid_NT & boxes_NT4.isfinite().all(-1)
    frame_N = seen_NT.int().argmax(1)
    boxes_N4 = boxes_NT4[torch.arange(len(frame_N), device=frame_N.device), frame_N]
    present_N = seen_NT.any(1)
    return PromptBoxes(frame_N, torch.where(present_N[:, None], boxes_N4, 0), present_N)
