"""Where each tensor of the published VideoChat-TPO goes, and from where it comes back.

Four rooms: our model; the frozen SAM2, which is a folder of its own; constants, which our code computes; and what no
forward pass of the published code reaches, which is kept so that the way back is complete. Names of the backbone are
mapped by `videochat2/published.py`, those of SAM2 by `convert/sam2.py`, those of task tokens and heads here.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor

from tpo_core.errors import TpoError
from tpo_core.heads.cgdetr.criterion import CLASS_WEIGHTS
from tpo_core.models.convert.layout import Layout
from tpo_core.models.convert.sam2 import PUBLISHED_PREFIX, to_facebook
from tpo_core.models.videochat2 import published

# (1, 1, C) as published, (C,) as ours.
TOKENS = {
    "box_token": "task_tokens.vectors.region",
    "temporal_token": "task_tokens.vectors.temporal",
    "track_token": "task_tokens.vectors.mask",
}
PREFIXES = {
    "loc_encoder.": "task_tokens.loc_encoder.",
    "loc_decoder.": "heads.region.loc_decoder.",
    "track_embed.": "heads.mask.track_embed.",
    "track_embed_decode2.": "heads.mask.track_embed_decode2.",
    "cg_model.": "heads.temporal.network.",
}
CLASS_WEIGHT = "cg_criterion.empty_weight"

WAY_BACK = "leads from the language model back to the Q-Former, a way that no forward pass takes"
SECOND_ENCODER = "joins a second vision encoder (use_clip), which the published configuration leaves out"
OLD_HEAD = "left of a temporal head that was given up for CG-DETR"
WORD_PLACES = "CG-DETR has it and never runs it: words get no position"
SECOND_INPUT = "CG-DETR has it and never runs it: words enter by input_txt_proj"


class Room(StrEnum):
    """Where a published tensor goes: see the top of this module."""

    MODEL = "model"
    SAM2 = "sam2"
    CONSTANT = "constant"
    UNUSED = "unused"


@dataclass(frozen=True)
class Place:
    """The room of a published tensor, its shape (None: any length), and for unused ones the reason."""

    room: Room
    shape: tuple[int | None, ...]
    reason: str = ""


def to_ours(name: str, tensor: Tensor) -> dict[str, Tensor]:
    """Our tensors of a published one of room MODEL, views of it. Raises TpoError for any other name."""
    if name in TOKENS:
        return {TOKENS[name]: tensor.reshape(-1)}
    for theirs, ours in PREFIXES.items():
        if name.startswith(theirs):
            return {ours + name.removeprefix(theirs): tensor}
    return published.to_ours(name, tensor)


def to_published(name: str, ours: Callable[[str], Tensor]) -> Tensor:
    """The published tensor of room MODEL of that name, made of what `ours` gives for each of our names."""
    if name in TOKENS:
        return ours(TOKENS[name]).reshape(1, 1, -1)
    for theirs, prefix in PREFIXES.items():
        if name.startswith(theirs):
            return ours(prefix + name.removeprefix(theirs))
    return published.to_published(name, ours)


def published_name(ours: str) -> str:
    """The published tensor that holds one of ours. Raises TpoError when there is none."""
    for theirs, vector in TOKENS.items():
        if ours == vector:
            return theirs
    for theirs, prefix in PREFIXES.items():
        if ours.startswith(prefix):
            return theirs + ours.removeprefix(prefix)
    if ours.startswith(("heads.", "task_tokens.")):
        raise TpoError(f"{ours} has no place in the published checkpoint: use the published widths and heads")
    return published.published_name(ours)


def constants(layout: Layout) -> dict[str, Tensor]:
    """The published tensors that are computed, int64 and fp32."""
    qformer: Any = layout.sizes.backbone.qformer_config
    return {
        published.POSITION_IDS: published.position_ids(qformer.max_position_embeddings),
        CLASS_WEIGHT: torch.tensor(CLASS_WEIGHTS),
    }


def places(layout: Layout) -> dict[str, Place]:
    """Every published tensor by name, sorted."""
    in_model = {published_name(name) for name in layout.model}
    found = {
        name: Place(Room.MODEL, tuple(to_published(name, layout.model.__getitem__).shape)) for name in sorted(in_model)
    }
    for name, value in to_facebook(layout.sam2, prefix=PUBLISHED_PREFIX).items():
        found[name] = Place(Room.SAM2, tuple(value.shape))
    for name, value in constants(layout).items():
        found[name] = Place(Room.CONSTANT, tuple(value.shape))
    return dict(sorted({**found, **unused(layout)}.items()))


def unused(layout: Layout) -> dict[str, Place]:
    """The published tensors that nothing reads."""
    backbone: Any = layout.sizes.backbone
    hidden, queries = backbone.text_config.hidden_size, backbone.qformer_config.hidden_size
    temporal = layout.sizes.model.temporal.cg_detr
    words, width = temporal.text_width or hidden, temporal.width
    return {
        **_linear("project_down", hidden, queries, WAY_BACK),
        **_linear("merge_proj", 4 * queries, hidden, SECOND_ENCODER),
        **_linear("temporal_embed.layers.0", hidden, hidden, OLD_HEAD),
        **_linear("temporal_embed.layers.1", hidden, 2, OLD_HEAD),
        **_linear("action_embed.layers.0", hidden, hidden, OLD_HEAD),
        **_linear("action_embed.layers.1", hidden, 1, OLD_HEAD),
        "cg_model.txt_position_embed.position_embeddings.weight": Place(Room.UNUSED, (None, width), WORD_PLACES),
        **_norm("cg_model.txt_position_embed.LayerNorm", width, WORD_PLACES),
        **_norm("cg_model.txt_proj_linear.LayerNorm", words, SECOND_INPUT),
        **_linear("cg_model.txt_proj_linear.net.1", words, width, SECOND_INPUT),
    }


def _linear(name: str, inputs: int, outputs: int, reason: str) -> dict[str, Place]:
    return {
        f"{name}.weight": Place(Room.UNUSED, (outputs, inputs), reason),
        f"{name}.bias": Place(Room.UNUSED, (outputs,), reason),
    }


def _norm(name: str, width: int, reason: str) -> dict[str, Place]:
    return {f"{name}.{part}": Place(Room.UNUSED, (width,), reason) for part in ("weight", "bias")}
