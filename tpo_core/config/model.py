"""The model section of a recipe: base, adapters and heads, with their published sizes as defaults."""

from typing import Literal

from pydantic import Field, field_validator

from tpo_core.config.base import Config
from tpo_core.config.names import require_known

HEADS = ("region", "temporal", "mask")


class LoraConfig(Config):
    """Low-rank adapters of the language model."""

    rank: int = Field(default=16, ge=1, description="rank of each adapter")
    alpha: float = Field(default=32.0, gt=0, description="scale; updates are multiplied by alpha / rank")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout before the adapter, probability")
    targets: list[str] = Field(
        default=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "lm_head"],
        min_length=1,
        description="names of the linear layers of the language model that get an adapter",
    )


class RegionConfig(Config):
    """The region head."""

    loss: Literal["l1_giou", "mse"] = Field(
        default="l1_giou", description="released code: l1_giou; text of the paper: mse"
    )


class TemporalConfig(Config):
    """The temporal head."""

    kind: Literal["span"] = Field(default="span", description="which head")
    width: int = Field(default=256, ge=8, multiple_of=8, description="hidden width, channels")
    layers: int = Field(default=2, ge=1, description="number of transformer layers")


class MaskConfig(Config):
    """The mask head."""

    decoder: Literal["light"] = Field(default="light", description="which mask decoder")
    width: int = Field(default=128, ge=8, multiple_of=8, description="hidden width, channels")
    train_frames: int | None = Field(
        default=None, ge=1, description="frames of a clip decoded in a training step, drawn anew each time; null: all"
    )


class ModelConfig(Config):
    """Base model, adapters and heads."""

    base: str = Field(min_length=1, description="path, URI or hub name of the Hugging Face base model")
    backbone: Literal["llava_onevision"] = Field(default="llava_onevision", description="family of the base model")
    lora: LoraConfig = Field(default_factory=LoraConfig, description="adapters of the language model")
    heads: list[str] = Field(default=list(HEADS), description=f"heads of the finished model, of {', '.join(HEADS)}")
    region: RegionConfig = Field(default_factory=RegionConfig, description="region head")
    temporal: TemporalConfig = Field(default_factory=TemporalConfig, description="temporal head")
    mask: MaskConfig = Field(default_factory=MaskConfig, description="mask head")

    compat_skip_begin_token: bool = Field(
        default=False,
        description="call a head before its indicator is fed, as the code published with VideoChat-TPO does, and not"
        " after it, as in training; for the published weights",
    )

    @field_validator("heads")
    @classmethod
    def _heads_known(cls, heads: list[str]) -> list[str]:
        return require_known("head", heads, HEADS)
