"""A loaded model that answers requests."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tpo_core.data.decode import VIDEO_DECODERS, decode_stills
from tpo_core.data.example import Example
from tpo_core.data.fetch import local_copy
from tpo_core.data.frames import IMAGE_SUFFIXES, DecodedMedia, DecodeRequest
from tpo_core.data.intake import feature_request
from tpo_core.data.record import Box, Media, Provenance, Sample, Target, Turn
from tpo_core.errors import TpoError
from tpo_core.inference.reply import Reply, Request, reply_of
from tpo_core.models.task_tokens import TRACK_BOX
from tpo_core.models.tpo import TpoModel

MAX_NEW_TOKENS = 128
INSTANT_S = 1e-3  # a clip so short shows one frame


class Assistant:
    """Answers about media that the caller trusts: they are decoded in this process, without a deadline."""

    def __init__(self, model: TpoModel) -> None:
        self.model = model

    def chat(
        self,
        media: str | Path | np.ndarray | None,
        question: str,
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        **options: Any,
    ) -> Reply:
        """One answer; `options` are the other fields of `Request`.

        Raises:
            TpoError: the media cannot be read or holds no frames, or the box does not meet the image.
        """
        return self.chat_batch([Request(media, question, **options)], max_new_tokens=max_new_tokens)[0]

    def chat_batch(self, requests: Sequence[Request], *, max_new_tokens: int = MAX_NEW_TOKENS) -> list[Reply]:
        """The answers to several requests, generated together; they need not be about one media or of one kind."""
        return [reply for _, reply in self.shown_and_said(requests, max_new_tokens=max_new_tokens)]

    def shown_and_said(
        self, requests: Sequence[Request], *, max_new_tokens: int = MAX_NEW_TOKENS
    ) -> list[tuple[Example, Reply]]:
        """As `chat_batch`, each reply with what the model was shown."""
        if not requests:
            return []
        examples = [self._example(request) for request in requests]
        answers = self.model.chat(examples, max_new_tokens)
        pairs = zip(examples, answers, strict=True)
        return [
            (
                example,
                reply_of(
                    answer.text,
                    answer.found,
                    activated=answer.activated,
                    frame_index=example.frame_index.tolist(),
                    times_s=example.times_s.tolist(),
                ),
            )
            for example, answer in pairs
        ]

    def _example(self, request: Request) -> Example:
        shown = self._shown(request)
        sample = _sample(request, shown)
        if shown is None:
            return Example(sample, np.zeros((0, 1, 1, 3), np.uint8), np.zeros(0), np.zeros(0, np.int64), 1, 1, 0.0)
        frames_THWC = shown.frames_THWC
        assert frames_THWC is not None
        return Example(
            sample,
            frames_THWC,
            shown.times_s,
            shown.frame_index,
            shown.width,
            shown.height,
            shown.duration_s,
            features_SD=shown.features_SD,
        )

    def _shown(self, request: Request) -> DecodedMedia | None:
        if request.media is None:
            return None
        if isinstance(request.media, np.ndarray):
            return _given(request.media, request.times_s)
        frames, uri = self.model.frames, str(request.media)
        kind = media_kind(uri)
        wanted = DecodeRequest(
            uri,
            kind,
            frames.short_side_px,
            frames.n_frames,
            sample_fps=frames.fps,
            features=feature_request(frames) if kind == "video" else None,
        )
        if request.at_s is None:
            return _decoded(wanted)
        if not request.at_s >= 0:
            raise TpoError(f"a video has no frame at {request.at_s} s: ask about a time from 0")
        shown = _decoded(replace(wanted, n_frames=1, clip_s=(request.at_s, request.at_s + INSTANT_S)))
        return replace(shown, times_s=shown.times_s + request.at_s)


def load(uri: str, device: str | None = None) -> Assistant:
    """A model that training saved, from a folder or a URI; device: default a GPU where there is one.

    Raises:
        TpoError: nothing was saved there, it does not load, or there is no such device.
    """
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=place)
    # torch raises one of the three, by device, for what it does not know, was not built for, or does not find
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise TpoError(f"no device {place!r} here ({str(error).splitlines()[0]}): take another, or cpu") from error
    return Assistant(TpoModel.from_pretrained(uri).to(place).eval())


def media_kind(uri: str) -> str:
    """ "image", "frames" (a folder of them) or "video", by name."""
    if uri.lower().endswith(IMAGE_SUFFIXES):
        return "image"
    return "frames" if uri.endswith("/") or Path(uri).is_dir() else "video"


def _decoded(wanted: DecodeRequest) -> DecodedMedia:
    """By the first decoder that can; TpoError with what the last one said."""
    with local_copy(wanted.uri) if wanted.kind == "video" else nullcontext(wanted.uri) as here:
        decoders = VIDEO_DECODERS if wanted.kind == "video" else (decode_stills,)
        for last, decoder in enumerate(decoders, start=1 - len(decoders)):
            try:
                return decoder(replace(wanted, uri=here))
            except Exception as error:  # decoders throw whatever they like at a bad file
                if last == 0:
                    raise TpoError(f"cannot read {wanted.uri}: {' '.join(str(error).split())}") from error
    raise AssertionError("not reached")


def _given(frames: np.ndarray, times_s: Sequence[float] | None) -> DecodedMedia:
    frames_THWC = frames[None] if frames.ndim == 3 else frames
    if frames_THWC.dtype != np.uint8 or frames_THWC.ndim != 4 or frames_THWC.shape[-1] != 3:
        raise TpoError(f"frames are uint8 RGB of shape (T, H, W, 3), not {frames.dtype} {frames.shape}")
    count, height, width, _ = frames_THWC.shape
    if count == 0:
        raise TpoError("the video has no frames")
    if times_s is not None and len(times_s) != count:
        raise TpoError(f"{count} frames but {len(times_s)} times: give one for each frame")
    times = np.arange(count, dtype=np.float64) if times_s is None else np.asarray(times_s, np.float64)
    step_s = (times[-1] - times[0]) / (count - 1) if count > 1 else 1.0
    duration_s = 0.0 if frames.ndim == 3 else float(times[-1] + step_s)
    index = np.arange(count, dtype=np.int64)
    return DecodedMedia(frames_THWC, None, index, times, count, None, duration_s, width, height, width, height, "given")


def _sample(request: Request, shown: DecodedMedia | None) -> Sample:
    question = request.question
    targets: tuple[Target, ...] = ()
    if request.box_xyxy is not None:
        targets = (Target("box", box=_inside(request.box_xyxy, shown), frame=0),)
        question = question if "{box}" in question else f"{question} {{box}}"
        question = question.replace("{box}", TRACK_BOX)
    turns = [turn for asked, said in request.history for turn in (Turn("user", asked), Turn("assistant", said))]
    name = str(request.media) if isinstance(request.media, str | Path) else f"array-{id(request.media)}"
    media = () if shown is None else (Media(name, "video", shown.width, shown.height),)  # equal names share a pass
    return Sample(
        sample_id="request",
        dataset="request",
        split="request",
        task="chat" if request.box_xyxy is None else "track",
        media=media,
        turns=(*turns, Turn("user", question, target_refs=tuple(range(len(targets)))), Turn("assistant", "")),
        targets=targets,
        provenance=Provenance(source_file="request", row=0, native_id="request", reader="request"),
    )


def _inside(box: Box, shown: DecodedMedia | None) -> Box:
    """The part of a box that lies in the image."""
    if shown is None:
        raise TpoError("a box needs a video or an image that it lies in")
    left, top, right, bottom = box
    cut = (max(left, 0.0), max(top, 0.0), min(right, float(shown.width)), min(bottom, float(shown.height)))
    if not (cut[2] > cut[0] and cut[3] > cut[1]):
        raise TpoError(f"the box {tuple(box)} has no area inside the image of {shown.width} x {shown.height} pixels")
    return cut
