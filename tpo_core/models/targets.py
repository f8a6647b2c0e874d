"""From the labels of a canonical sample to the targets of its head.

One builder a kind: `Builder.one(example)` gives tensors of one sample, `Builder.stack(rows, n_frames)` the targets of
a batch, padded to `n_frames`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from tpo_core.data import rle
from tpo_core.data.example import Example
from tpo_core.data.sample import Box, Rle, Target, TrackEntry, answer_targets
from tpo_core.heads.base import MaskTargets, RegionTargets, Targets, TemporalTargets


@dataclass(frozen=True)
class Builder:
    """How a kind's labels become tensors: `one` of an example and the mask size, `stack` of rows and a frame count."""

    one: Callable[[Example, int], Any]
    stack: Callable[[list[Any], int], Targets]


def fractions(box: Box, example: Example) -> Tensor:
    """A pixel box as xyxy fractions (4,) of the original width and height."""
    width, height = example.width, example.height
    return torch.tensor([box[0] / width, box[1] / height, box[2] / width, box[3] / height], dtype=torch.float32)


def region_one(example: Example, mask_size: int) -> Tensor:
    """The box (4,) of the first slot: the first box that the answer refers to."""
    boxes = [target.box for target in answer_targets(example.sample) if target.box is not None]
    assert boxes, f"{example.sample.sample_id}: the answer refers to no box"
    return fractions(boxes[0], example)


def temporal_one(example: Example, mask_size: int) -> Tensor:
    """All moments (k, 2) as fractions of the duration; of alternatives by several annotators, the first."""
    targets = [target for target in answer_targets(example.sample) if target.span_s is not None]
    if targets and targets[0].set_rule == "any_of":
        targets = targets[:1]
    spans = torch.tensor([target.span_s for target in targets], dtype=torch.float32).reshape(-1, 2)
    return (spans / example.duration_s).clamp(0, 1)


def mask_one(example: Example, mask_size: int) -> tuple[Tensor, Tensor, bool, Tensor]:
    """masks (T, S, S) uint8, valid (T,) bool, box-only, boxes (T, 4) as in `MaskTargets`.

    Several targets (parts of one referred group) are united. A sample without any mask is learned from its boxes; those
    of masks are tight, and finer than the cells of the masks.
    """
    entries: dict[int, list[TrackEntry]] = {}
    for target in answer_targets(example.sample):
        for entry in track_of(target):
            entries.setdefault(entry.frame, []).append(entry)
    box_only = not any(entry.rle is not None for group in entries.values() for entry in group)
    frames = len(example.frame_index)
    masks = torch.zeros(frames, mask_size, mask_size, dtype=torch.uint8)
    boxes, valid = torch.full((frames, 4), torch.nan), torch.zeros(frames, dtype=torch.bool)
    for row, number in enumerate(example.frame_index.tolist()):
        visible = [entry for entry in entries.get(number, []) if entry.visible]
        labelled = [entry for entry in visible if (entry.box if box_only else entry.rle) is not None]
        valid[row] = number in entries and len(labelled) == len(visible)
        given = [entry.box if entry.rle is None else rle.bbox(entry.rle) for entry in labelled]
        corners = [fractions(box, example) for box in given if box is not None]
        for entry in labelled:
            if entry.rle is not None:
                masks[row] |= small_mask(entry.rle, mask_size)
        if corners:
            stacked = torch.stack(corners)
            boxes[row] = torch.cat([stacked[:, :2].amin(0), stacked[:, 2:].amax(0)])
    return masks, valid, box_only, boxes


def track_of(target: Target) -> tuple[TrackEntry, ...]:
    """The track of a target; a mask of one frame is a track of one entry."""
    if target.track is not None or target.rle is None:
        return target.track or ()
    return (TrackEntry(target.frame or 0, True, box=target.box, rle=target.rle),)


def small_mask(encoded: Rle, size: int) -> Tensor:
    """The mask at (size, size), uint8: cells covered by half or more; the fullest cells if none is."""
    full = torch.from_numpy(np.ascontiguousarray(rle.decode(encoded))).float()
    cover = F.adaptive_avg_pool2d(full[None], (size, size))[0]
    threshold = min(0.5, float(cover.max()))
    return ((cover >= threshold) & (cover > 0)).to(torch.uint8)


def stack_masks(rows: list[tuple[Tensor, Tensor, bool, Tensor]], n_frames: int) -> MaskTargets:
    def pad(value: Tensor, fill: float) -> Tensor:
        return torch.cat([value, value.new_full((n_frames - len(value), *value.shape[1:]), fill)])

    return MaskTargets(
        masks_NTHW=torch.stack([pad(masks, 0) for masks, _, _, _ in rows]),
        valid_NT=torch.stack([pad(valid, False) for _, valid, _, _ in rows]),
        box_only_N=torch.tensor([box_only for _, _, box_only, _ in rows]),
        boxes_NT4=torch.stack([pad(boxes, torch.nan) for _, _, _, boxes in rows]),
    )


BUILDERS: dict[str, Builder] = {
    "region": Builder(region_one, lambda rows, n_frames: RegionTargets(torch.stack(rows))),
    "temporal": Builder(temporal_one, lambda rows, n_frames: TemporalTargets(rows)),
    "mask": Builder(mask_one, stack_masks),
}
