"""Who answers the requests of a suite: a model (trained, or a base without heads), or plain SAM2 as a control.

An answerer is made where it is used, once an actor, from a spec that travels: `spec.open()`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from tpo_core.config.schema import Recipe
from tpo_core.data import rle
from tpo_core.data.sample import Box, Sample, prompt_boxes
from tpo_core.errors import TpoError
from tpo_core.evaluation import truth
from tpo_core.evaluation.evaluate import built_by, load_model
from tpo_core.evaluation.following import Prompted, follow_all, prompts_only
from tpo_core.evaluation.looking import Clip, Shown
from tpo_core.evaluation.record import Record, plain_box, plain_mask, said_box
from tpo_core.evaluation.spoken import with_spoken
from tpo_core.heads.base import BoxPrediction, MaskPrediction, SpanPrediction
from tpo_core.heads.cgdetr.head import CgDetrHead
from tpo_core.heads.sam2.frozen import FrozenSam2
from tpo_core.heads.sam2.head import Sam2MaskHead
from tpo_core.models.asked import prompt_frame
from tpo_core.models.source import identify
from tpo_core.models.tpo import Answer, TpoModel


class Answerer(Protocol):
    """Answers requests together."""

    def answer(self, requests: Sequence[Shown], max_new_tokens: int) -> list[Record]: ...


class Spec(Protocol):
    """What makes an answerer; picklable. `identity` tells its answers from those of others, `open` takes as long as
    loading a model does."""

    @property
    def name(self) -> str: ...

    def identity(self) -> str: ...

    def open(self) -> Answerer: ...


@dataclass(frozen=True)
class ModelSpec:
    """A model that training saved, or a base model, by path, URI or hub name."""

    recipe: Recipe
    uri: str

    @property
    def name(self) -> str:
        return self.uri

    def identity(self) -> str:
        """Raises TpoError when there is no such model."""
        return json.dumps([identify(self.uri, whole=True), built_by(self.recipe, self.uri)], sort_keys=True)

    def open(self) -> Answerer:
        return ModelAnswerer(load_model(self.recipe, self.uri))


@dataclass(frozen=True)
class Sam2Spec:
    """Plain SAM2 from the true box: of a track the one that its question gives, of an expression, whose question gives
    none, the first one of its labels. So of expressions it is no competitor, but what SAM2 itself loses."""

    source: str

    @property
    def name(self) -> str:
        return f"SAM2 {self.source}, true first box"

    def identity(self) -> str:
        return f"sam2 {identify(self.source, whole=True)}"

    def open(self) -> Answerer:
        sam = FrozenSam2.load(self.source)
        return Sam2Answerer(sam, torch.device("cuda" if torch.cuda.is_available() else "cpu"))


class ModelAnswerer:
    """Asks a `TpoModel`; of one that lacks the head for a request the text is read for coordinates (`spoken`). A batch
    with a request that cannot be put is asked one by one, so that only that one fails."""

    def __init__(self, model: TpoModel) -> None:
        self.model = model
        self.heads = list(model.heads)
        self.tells_highlights = "temporal" in self.heads and isinstance(model.heads["temporal"], CgDetrHead)

    def answer(self, requests: Sequence[Shown], max_new_tokens: int) -> list[Record]:
        try:
            return self._together(requests, max_new_tokens)
        except TpoError as error:
            if len(requests) == 1:
                return [Record(requests[0].ask.key, failure=f"not_asked: {error}")]
            return [record for request in requests for record in self.answer([request], max_new_tokens)]

    def _together(self, requests: Sequence[Shown], max_new_tokens: int) -> list[Record]:
        began = time.monotonic()
        later = prompts_only(self.model) if any(request.sees_a_part for request in requests) else nullcontext()
        with later:
            answers = self.model.chat([request.example for request in requests], max_new_tokens)
        share_s = (time.monotonic() - began) / len(requests)
        return [self._recorded(request, answer, share_s) for request, answer in zip(requests, answers, strict=True)]

    def _recorded(self, request: Shown, answer: Answer, seconds: float) -> Record:
        began = time.monotonic()
        answer = with_spoken(request.task, request.example, answer, self.heads)
        clips = () if self.tells_highlights and request.task == "moment" else None
        record = Record(request.ask.key, answer.text, tuple(answer.activated), clips=clips)
        head = truth.HEAD_OF.get(request.task)
        found = None if head is None else answer.first(head)
        if isinstance(found, BoxPrediction):
            record = replace(record, box=said_box(found.box_xyxy.numpy()))
        elif isinstance(found, SpanPrediction):
            pairs = zip(found.spans_s.tolist(), found.scores.tolist(), strict=True)
            record = replace(record, windows=tuple((start, end, score) for (start, end), score in pairs))
            if found.clips_V3 is not None:
                record = replace(record, clips=tuple(map(tuple, found.clips_V3.tolist())))
        elif isinstance(found, Prompted):
            record = self._followed(request, record, found)
        elif isinstance(found, MaskPrediction):
            numbers, masks = request.example.frame_index.tolist(), found.masks_THW.numpy()
            boxes = {number: plain_box(box) for number, box in zip(numbers, found.boxes_T4.numpy(), strict=True)}
            kept = dict(zip(numbers, map(plain_mask, masks), strict=True)) if request.task == "mask" else None
            record = replace(record, boxes=boxes, masks=kept)
        return replace(record, seconds=seconds + time.monotonic() - began)

    def _followed(self, request: Shown, record: Record, found: Prompted) -> Record:
        head = self.model.heads["mask"]
        assert isinstance(head, Sam2MaskHead)
        clip = request.clip
        assert clip is not None
        start = clip.place_of(int(request.example.frame_index[prompt_frame(request.example)]))
        boxes, masks = follow_all(head.sam, clip, found.prompt_3C, start, keep_masks=request.task == "mask")
        return replace(record, boxes=boxes, masks=masks)


class Sam2Answerer:
    """Follows the true box of a sample."""

    def __init__(self, sam: FrozenSam2, device: torch.device) -> None:
        self.sam, self.device = sam, device

    def answer(self, requests: Sequence[Shown], max_new_tokens: int) -> list[Record]:
        return [self._one(request) for request in requests]

    def _one(self, request: Shown) -> Record:
        began, clip = time.monotonic(), request.clip
        assert clip is not None, f"{request.task} has no clip to follow an object through"
        try:
            frame, box = true_prompt(request.example.sample, clip)
        except TpoError as error:
            return Record(request.ask.key, failure=f"not_asked: {error}")
        height, width = clip.size_hw
        fractions_14 = Tensor([box]) / Tensor([width, height, width, height])
        (prompt_3C,) = self.sam.embed_boxes(fractions_14.to(self.device))
        boxes, masks = follow_all(self.sam, clip, prompt_3C, clip.place_of(frame), keep_masks=request.task == "mask")
        return Record(request.ask.key, boxes=boxes, masks=masks, seconds=time.monotonic() - began)


def true_prompt(sample: Sample, clip: Clip) -> tuple[int, Box]:
    """The frame and the box that plain SAM2 is prompted with: those of the question, else the first labelled ones that
    are stored. Raises TpoError where the labels of a stored frame show nothing."""
    for target in prompt_boxes(sample):
        if target.box is not None:
            return target.frame or 0, target.box
    numbers = clip.row.frame_index
    for number, parts in zip(numbers.tolist(), truth.labels_on(sample, numbers), strict=True):
        drawn = [part.box or (part.rle and rle.bbox(part.rle)) for part in parts or ()]
        boxes_N4 = np.array([box for box in drawn if box], np.float64).reshape(-1, 4)
        if len(boxes_N4):
            left, top = boxes_N4[:, :2].min(axis=0).tolist()
            right, bottom = boxes_N4[:, 2:].max(axis=0).tolist()
            return number, (left, top, right, bottom)
    raise TpoError(f"{sample.sample_id}: no stored frame shows what is asked for")
