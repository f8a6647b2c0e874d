"""What a canonical sample says is true, in the units of the media, and which measured task it belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tpo_core.data import rle
from tpo_core.data.instructions import conversation
from tpo_core.data.loader import Example
from tpo_core.data.sample import Sample, Target, TrackEntry, answer_targets

# Measured task of a sample's own task. Captions are requests of plain conversation (they count for activation) without
# an answer that could be compared word by word.
MEASURED = {
    "box": "region",
    "phrase_box": "region",
    "span": "moment",
    "highlight": "moment",
    "mask": "mask",
    "track": "track",
    "chat": "qa",
    "caption": "caption",
}
HEAD_OF = {"region": "region", "moment": "temporal", "mask": "mask", "track": "mask"}


def measured_task(sample: Sample) -> str | None:
    """Which task the sample is measured as; None for samples that no metric here reads."""
    return MEASURED.get(sample.task)


def request_text(sample: Sample) -> str:
    """The last thing the user says."""
    return next((turn.text for turn in reversed(conversation(sample)) if turn.role == "user"), "")


def answer_text(sample: Sample) -> str:
    """The answer that the sample gives."""
    return next((turn.text for turn in reversed(sample.turns) if turn.role == "assistant"), "")


def true_box(sample: Sample) -> np.ndarray:
    """(4,) xyxy pixels of the original."""
    return np.array(next(t.box for t in answer_targets(sample) if t.box is not None), np.float64)


def true_spans(sample: Sample) -> np.ndarray:
    """(k, 2) seconds."""
    return np.array([t.span_s for t in answer_targets(sample) if t.span_s is not None], np.float64).reshape(-1, 2)


def true_masks(example: Example) -> np.ndarray:
    """(T, H, W) bool at the original size on the stored frames: the union of all parts, empty where absent."""
    masks = np.zeros((len(example.frame_index), example.height, example.width), bool)
    rows = {int(number): row for row, number in enumerate(example.frame_index)}
    for entry in entries(answer_targets(example.sample)):
        if entry.visible and entry.rle is not None and entry.frame in rows:
            masks[rows[entry.frame]] |= rle.decode(entry.rle)
    return masks


def true_track(example: Example) -> np.ndarray:
    """(T, 4) xyxy pixels on the stored frames, nan where the object is absent or the frame carries no label."""
    boxes = np.full((len(example.frame_index), 4), np.nan)
    rows = {int(number): row for row, number in enumerate(example.frame_index)}
    for entry in entries(answer_targets(example.sample)):
        if entry.visible and entry.box is not None and entry.frame in rows:
            boxes[rows[entry.frame]] = entry.box
    return boxes


def entries(targets: Sequence[Target]) -> list[TrackEntry]:
    """All labelled frames of the targets; a mask of one frame is a track of one entry."""
    found: list[TrackEntry] = []
    for target in targets:
        if target.track is not None:
            found += target.track
        elif target.rle is not None:
            found.append(TrackEntry(target.frame or 0, True, box=target.box, rle=target.rle))
    return found
