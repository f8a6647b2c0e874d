"""Vectors of short clips, stored beside the frames of a video: the encoder is named in the recipe, and pluggable.

An encoder is "module:factory". The factory is called once a process with the options of the recipe (strings) and gives
a function from frames_THWC (uint8 RGB) to a vector (D,) of floats, the same D for every clip.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tpo_core.data.frames import EncoderError, FeatureRequest
from tpo_core.errors import TpoError

Encoder = Callable[[np.ndarray], np.ndarray]


@functools.cache
def load_encoder(name: str, options: tuple[tuple[str, str], ...]) -> Callable[[Any], np.ndarray]:
    """The encoder of a name "module:factory". TpoError when there is no such thing."""
    module, _, factory = name.partition(":")
    try:
        make = getattr(importlib.import_module(module), factory)
    except (ImportError, AttributeError, ValueError) as error:
        raise TpoError(f"the encoder {name!r} cannot be imported ({error}); write module:factory") from error
    return make(**dict(options))


class ClipFeatures:
    """Collects the frames of each clip and encodes it as soon as it is whole; holds the frames of a few clips."""

    def __init__(self, request: FeatureRequest, clips_SF: np.ndarray) -> None:
        self._encode = load_encoder(request.encoder, request.options)
        self._clips = clips_SF.tolist()
        self._held: dict[int, np.ndarray] = {}
        self._vectors: list[np.ndarray] = []

    def add(self, number: int, frame_HWC: np.ndarray) -> None:
        """One frame; they come in ascending order, others than those of the clips, too."""
        self._held[number] = frame_HWC
        while len(self._vectors) < len(self._clips) and self._clips[len(self._vectors)][-1] <= number:
            clip = self._clips[len(self._vectors)]
            self._vectors.append(self._encoded(np.stack([self._held[each] for each in clip])))
        first = self._clips[len(self._vectors)][0] if len(self._vectors) < len(self._clips) else number + 1
        self._held = {each: frame for each, frame in self._held.items() if each >= first}

    def _encoded(self, frames_THWC: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(self._encode(frames_THWC))
        except Exception as error:  # whatever it is, the frames are fine
            text = " ".join(str(error).split())
            raise EncoderError(f"the encoder of clip features failed: {type(error).__name__}: {text}") from error

    def done(self) -> np.ndarray:
        """All vectors, (S, D) float16."""
        assert len(self._vectors) == len(self._clips), f"{len(self._vectors)} of {len(self._clips)} clips were complete"
        return np.stack(self._vectors).astype(np.float16)


def vision_tower(model: str) -> Encoder:
    """The encoder of a Hugging Face vision model (`model`: a local folder or a name on the hub) such as CLIP or SigLIP:
    its pooled output, or else the mean over patches, averaged over the frames of a clip."""
    import torch  # a second of imports that only this encoder needs
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(model, use_fast=False)
    tower = AutoModel.from_pretrained(model).eval()
    tower = getattr(tower, "vision_model", tower)

    @torch.inference_mode()
    def encode(frames_THWC: np.ndarray) -> np.ndarray:
        pixels = processor(images=list(frames_THWC), return_tensors="pt")["pixel_values"]
        output = tower(pixel_values=pixels)
        pooled = getattr(output, "pooler_output", None)
        vectors_TD = output.last_hidden_state.mean(1) if pooled is None else pooled
        return vectors_TD.mean(0).float().numpy()

    return encode
