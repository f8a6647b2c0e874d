"""Names of the published VideoChat-TPO and VideoChat2-Mistral checkpoints, and ours: both ways, without loss.

This file knows the backbone: vision encoder, Q-Former, projection, language model. A published tensor is one of ours
or, for the fused query, key and value of the vision encoder, three of ours, stacked by rows.
"""

import re
from collections.abc import Callable

import torch
from torch import Tensor

from tpo_core.errors import TpoError

# A constant of the published file, arange(0, n) as (1, n) int64; ours counts by itself.
POSITION_IDS = "qformer.bert.embeddings.position_ids"
FUSED = ("query", "key", "value")

# (published, ours), as prefixes and inner parts of names; each list is read in order, in either direction.
PREFIXES = [
    ("lm.base_model.model.model.", "model.language_model."),
    ("lm.base_model.model.lm_head.", "lm_head."),
    ("vision_encoder.encoder.patch_embed.proj.", "model.vision_tower.embeddings.patch_embeddings.projection."),
    ("vision_encoder.encoder.blocks.", "model.vision_tower.encoder.layer."),
    ("vision_layernorm.", "model.vision_layernorm."),
    ("qformer.bert.", "model.qformer."),
    ("query_tokens", "model.query_tokens"),
    ("extra_query_tokens", "model.extra_query_tokens"),
    ("project_up.", "model.project_up."),
]
VISION_PARTS = [
    (".norm1.", ".layernorm_before."),
    (".norm2.", ".layernorm_after."),
    (".attn.q_bias", ".attention.attention.query.bias"),
    (".attn.v_bias", ".attention.attention.value.bias"),
    (".attn.qkv.", ".attention.attention.{fused}."),
    (".attn.proj.", ".attention.output.dense."),
    (".mlp.fc1.", ".intermediate.dense."),
    (".mlp.fc2.", ".output.dense."),
]
QFORMER_PARTS = [
    (".embeddings.LayerNorm.", ".embeddings.layernorm."),
    (".attention.self.", ".attention.attention."),
    (".crossattention.self.", ".crossattention.attention."),
]
# VideoChat2-Mistral calls two parts otherwise.
VIDEOCHAT2 = [("mistral_proj.", "project_up."), ("mistral_model.", "lm.")]


def _renamed(name: str, pairs: list[tuple[str, str]], back: bool, found: Callable[[str, str], bool]) -> str:
    """The name with the first pair that is found in it exchanged."""
    for pair in pairs:
        old, new = reversed(pair) if back else pair
        if found(name, old):
            return name.replace(old, new, 1)
    return name


def _inner_parts(name: str) -> list[tuple[str, str]]:
    if name.startswith(("vision_encoder.encoder.blocks.", "model.vision_tower.encoder.layer.")):
        return VISION_PARTS
    return QFORMER_PARTS if name.startswith(("qformer.", "model.qformer.")) else []


def our_names(published: str) -> tuple[str, ...]:
    """Our tensors that a published one of the backbone holds; () for the constant that we count ourselves.

    Raises TpoError for a name that is not of the backbone.
    """
    if published == POSITION_IDS:
        return ()
    inner = _renamed(published, _inner_parts(published), False, lambda name, part: part in name)
    ours = _renamed(inner, PREFIXES, False, str.startswith)
    if ours == inner:
        raise TpoError(f"{published} is no tensor of the VideoChat2 backbone: convert it with the rules of its head")
    return tuple(ours.format(fused=part) for part in FUSED) if "{fused}" in ours else (ours,)


def published_name(ours: str) -> str:
    """The published tensor that holds one of ours. Raises TpoError for a name that is not of the backbone."""
    fused = re.sub(r"(vision_tower\..*\.attention\.attention\.)(?:query|key|value)\.weight$", r"\1{fused}.weight", ours)
    inner = _renamed(fused, _inner_parts(fused), True, lambda name, part: part in name)
    published = _renamed(inner, PREFIXES, True, str.startswith)
    if published == inner:
        raise TpoError(f"{ours} is no tensor of the VideoChat2 backbone")
    return published


def to_ours(published: str, tensor: Tensor) -> dict[str, Tensor]:
    """Our tensors of a published one, views of it. Raises TpoError for a name that is not of the backbone."""
    names = our_names(published)
    return dict(zip(names, tensor.chunk(len(names)), strict=True)) if names else {}


def to_published(published: str, ours: Callable[[str], Tensor]) -> Tensor:
    """The published tensor of that name, made of what `ours` gives for each of our names.

    Raises TpoError for a name that is not of the backbone, and for POSITION_IDS, which no tensor of ours holds: make
    it with `position_ids`.
    """
    names = our_names(published)
    if not names:
        raise TpoError(f"{published} is a constant: make it with position_ids()")
    return ours(names[0]) if len(names) == 1 else torch.cat([ours(name) for name in names])


def position_ids(length: int) -> Tensor:
    """The constant POSITION_IDS (1, length) for a Q-Former of `length` text positions."""
    return torch.arange(length)[None]


def from_videochat2_mistral(name: str) -> str:
    """The VideoChat-TPO name of a tensor of VideoChat2-Mistral."""
    return _renamed(name, VIDEOCHAT2, False, str.startswith)
