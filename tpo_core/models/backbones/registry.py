"""Which adapter wraps a base model."""

import torch

from tpo_core.config.schema import ModelConfig
from tpo_core.models.backbones.base import Backbone, read_config
from tpo_core.models.backbones.generic import Generic
from tpo_core.models.backbones.llava_onevision import LlavaOnevision
from tpo_core.models.backbones.videochat2 import VideoChat2

BACKBONES: dict[str, type[Backbone]] = {kind.model_type: kind for kind in (LlavaOnevision, VideoChat2, Generic)}


def load_backbone(path: str, config: ModelConfig, *, weights: bool) -> Backbone:
    """The base model of a directory, in fp32; `weights=False` gives the architecture alone.

    A generic one of a family with an adapter of its own gets that. Raises TpoError for a base that does not fit.
    """
    chosen = BACKBONES[config.backbone]
    if chosen is Generic:
        kind = read_config(path).model_type
        chosen = BACKBONES.get(kind, Generic)
    return chosen.load(path, config, weights=weights)


def base_groups(path: str, config: ModelConfig) -> set[str]:
    """The parameter groups of the base model of a directory with its adapters; reads and makes no weights.

    Raises TpoError for a base that does not fit.
    """
    with torch.device("meta"):
        backbone = load_backbone(path, config, weights=False)
        backbone.add_lora(config.lora)
    found = {backbone.group_of(name) for name, _ in backbone.vlm.named_parameters()}
    return {group for group in found if group is not None}
