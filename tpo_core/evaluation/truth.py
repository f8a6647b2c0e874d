"""What a canonical sample says is true, in the units of the media, and which measured task it belongs to."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from tpo_core.data import rle
from tpo_core.data.example import Example
from tpo_core.data.instructions import conversation
from tpo_core.data.sample import Saliency, Sample, TrackEntry, answer_targets
from tpo_core.data.shards import ShardSet
from tpo_core.models.targets import track_of

# Measured task of a sample's own task. Captions are requests of plain conversation (they count for activation) without
# an answer that could be compared word by word. Of a choice that is grounded in a moment the option alone is asked.
MEASURED = {
    "box": "region",
    "phrase_box": "region",
    "span": "moment",
    "highlight": "moment",
    "mask": "mask",
    "track": "track",
    "chat": "qa",
    "mcq": "choice",
    "grounded_mcq": "choice",
    "caption": "caption",
}
HEAD_OF = {"region": "region", "moment": "temporal", "mask": "mask", "track": "mask"}
MISSED, OTHER, FALSE = "missed_activation", "other_activation", "false_activation"


def measured_task(sample: Sample) -> str | None:
    """Which task the sample is measured as; None for samples that no metric here reads."""
    return MEASURED.get(sample.task)


def wrong_activation(task: str, activated: Collection[str]) -> str | None:
    """What is wrong with the heads that an answer calls; None if they are as the task has it."""
    head = HEAD_OF.get(task)
    if head is None:
        return FALSE if activated else None
    if head not in activated:
        return MISSED
    return None if set(activated) == {head} else OTHER


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


def true_saliency(sample: Sample) -> Saliency | None:
    """Who finds which clip a highlight; None where the labels do not say."""
    return next((target.saliency for target in sample.targets if target.saliency is not None), None)


def true_masks(example: Example) -> np.ndarray:
    """(T, H, W) bool at the original size on the stored frames: the union of all parts, empty where absent; empty too
    on the frames that `masked_frames` leaves out."""
    masks = np.zeros((len(example.frame_index), example.height, example.width), bool)
    for row, parts in enumerate(labels_on(example.sample, example.frame_index)):
        for part in parts or ():
            if part.rle is not None:
                masks[row] |= rle.decode(part.rle)
    return masks


def masked_frames(sample: Sample, frame_index: np.ndarray) -> np.ndarray:
    """(T,) bool: which of these frames (numbers in the original) carry a mask label, as training takes it: an entry
    that says absent, or masks of all visible parts. On any other frame the truth is unknown, not absent."""
    labels = labels_on(sample, frame_index)
    return np.array([parts is not None and all(part.rle is not None for part in parts) for parts in labels], bool)


def true_track(example: Example) -> np.ndarray:
    """(T, 4) xyxy pixels on the stored frames, as of `boxes_on`."""
    return boxes_on(example.sample, example.frame_index)


def boxes_on(sample: Sample, frame_index: np.ndarray) -> np.ndarray:
    """(T, 4) xyxy pixels around all visible parts on these frames (numbers in the original); nan where the object is
    absent or the frame carries no label."""
    boxes = np.full((len(frame_index), 4), np.nan)
    for row, parts in enumerate(labels_on(sample, frame_index)):
        given = np.array([part.box for part in parts or () if part.box is not None], np.float64)
        if parts and len(given) == len(parts):
            boxes[row, :2], boxes[row, 2:] = given[:, :2].min(axis=0), given[:, 2:].max(axis=0)
    return boxes


def labels_on(sample: Sample, frame_index: np.ndarray) -> list[list[TrackEntry] | None]:
    """For each of these frames (numbers in the original) the visible parts of what the answer refers to: none of them
    where it is labelled absent, None where the frame carries no label."""
    found: dict[int, list[TrackEntry]] = {}
    for target in answer_targets(sample):
        for entry in track_of(target):
            found.setdefault(entry.frame, []).append(entry)
    labels = (found.get(number) for number in frame_index.tolist())
    return [None if parts is None else [part for part in parts if part.visible] for parts in labels]


def scorable(sample: Sample, shards: ShardSet) -> bool:
    """Whether the labels say anything that an answer can be compared with; a sample of which they do not is not asked.

    A region needs a box and a moment a moment (official test splits withhold them), a mask one stored frame with a
    label (absent is one: the right mask is empty there), a track one stored frame with a box (overlap is measured where
    the object is), a choice the right option. Conversation needs none.
    """
    task = measured_task(sample)
    if task == "region":
        return any(target.box is not None for target in answer_targets(sample))
    if task == "moment":
        return any(target.span_s is not None for target in answer_targets(sample))
    if task == "choice":
        return sample.answer_index is not None
    if task not in ("mask", "track"):
        return True
    stored = shards.media(sample.media[0].uri).frame_index
    return bool(masked_frames(sample, stored).any() if task == "mask" else np.isfinite(boxes_on(sample, stored)).any())
