"""What is asked of a model and what it answers, in the units of the media."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.data import rle
from tpo_core.data.record import Box
from tpo_core.heads.base import BoxPrediction, Prediction, SpanPrediction
from tpo_core.heads.registry import HEADS


@dataclass(frozen=True)
class Request:
    """One question. media: a path or URI of a video, an image or a folder of frames, frames as uint8 RGB (T, H, W, 3)
    or (H, W, 3), or None for text alone.

    history: (question, answer) pairs that came before. box_xyxy: an object that the question is about, pixels of the
    media; it stands where the question says {box}, or at its end. at_s: ask about the frame shown then, alone, which is
    how boxes are trained on videos. times_s: of frames given as an array, seconds; default one a second.
    """

    media: str | Path | np.ndarray | None
    question: str
    history: tuple[tuple[str, str], ...] = ()
    box_xyxy: Box | None = None
    at_s: float | None = None
    times_s: Sequence[float] | None = None


@dataclass(frozen=True)
class Moment:
    """Seconds on the timeline of the media; score in 0..1."""

    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True)
class MaskTrack:
    """One object: masks_THW bool at the size of the media, on the frames that the model saw; boxes_T4 tight, xyxy
    pixels, NaN where absent; scores_T in 0..1."""

    masks_THW: np.ndarray
    boxes_T4: np.ndarray
    scores_T: np.ndarray


@dataclass(frozen=True)
class Reply:
    """What the model answered, in the units of the media. text: with the task tokens that it wrote; readable: the same
    with what the heads found in their place. moments: of every call, best first within a call.

    frame_index, times_s (T,): the frames that it saw. activated: the heads that it called."""

    text: str
    readable: str = ""
    boxes: list[Box] = field(default_factory=list)
    moments: list[Moment] = field(default_factory=list)
    masks: list[MaskTrack] = field(default_factory=list)
    activated: list[str] = field(default_factory=list)
    frame_index: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """As JSON takes it; masks as COCO run lengths, absent boxes null."""
        masks = [
            {
                "boxes_xyxy": [None if np.isnan(box).any() else box.tolist() for box in track.boxes_T4],
                "rle": [{"size": [m.h, m.w], "counts": m.counts.decode()} for m in map(rle.encode, track.masks_THW)],
                "scores": track.scores_T.tolist(),
            }
            for track in self.masks
        ]
        return {**vars(self), "moments": [vars(moment) for moment in self.moments], "masks": masks}


def reply_of(text: str, found: Sequence[tuple[str, Prediction]], **facts: Any) -> Reply:
    """A reply with the (head, prediction) of each call, in order; facts are other fields of `Reply`."""
    reply = Reply(text, _readable(text, found), **facts)
    for _, each in found:
        if isinstance(each, BoxPrediction):
            left, top, right, bottom = each.box_xyxy.tolist()
            reply.boxes.append((left, top, right, bottom))
        elif isinstance(each, SpanPrediction):
            spans = zip(each.spans_s.tolist(), each.scores.tolist(), strict=True)
            reply.moments.extend(Moment(start, end, score) for (start, end), score in spans)
        else:
            reply.masks.append(MaskTrack(each.masks_THW.numpy(), each.boxes_T4.numpy(), each.scores_T.numpy()))
    return reply


def _readable(text: str, found: Sequence[tuple[str, Prediction]]) -> str:
    """Every call of a head that the model has replaced by its result; those of others stay as they are written."""
    waiting = {name: [each for head, each in found if head == name] for name in HEADS}
    masks = itertools.count(1)
    name_of = {head.begin: name for name, head in HEADS.items()}

    def result(call: re.Match[str]) -> str:
        queue = waiting[name_of[call[0].split(">")[0] + ">"]]
        if not queue:
            return call[0]
        each = queue.pop(0)
        if isinstance(each, BoxPrediction):
            return "[" + ", ".join(f"{value:.0f}" for value in each.box_xyxy.tolist()) + "]"
        if isinstance(each, SpanPrediction):
            return " to ".join(f"{value:.1f}" for span in each.spans_s[:1].tolist() for value in span) or "[no moment]"
        return f"[mask {next(masks)}]"

    return _CALL.sub(result, text)


_CALL = re.compile("|".join(f"{re.escape(head.begin)}(?:{re.escape(head.slot)})?" for head in HEADS.values()))
