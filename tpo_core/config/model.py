"""The model section of a recipe: base, adapters and heads, with their published sizes as defaults."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from tpo_core.config.base import Config, execution, late
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


class CgDetrConfig(Config):
    """The temporal head as published with VideoChat-TPO; sizes and probabilities of the published checkpoint.

    Source: `cg_model` of VideoChat-TPO (arXiv 2412.19326), which is CG-DETR (arXiv 2311.08835) with one more word.
    """

    clip_width: int | None = Field(
        default=None,
        ge=1,
        description="channels of the clip features, 768 as published; null: mean patch of each frame",
    )
    text_width: int | None = Field(
        default=None,
        ge=1,
        description="channels of the question features, 4096 as published; null: none, the task embedding is all text",
    )
    text_encoder: str | None = Field(
        default=None,
        pattern=r"^[\w.]+:\w+$",
        description="module:factory of the encoder of questions: called without arguments, the factory gives a function"
        " from a text to its features (words, text_width)",
    )
    width: int = Field(default=256, ge=4, multiple_of=4, description="hidden width, channels")
    heads: int = Field(default=8, ge=1, description="attention heads of the transformer; divide the width")
    sentence_heads: int = Field(
        default=8, ge=1, description="attention heads of the encoders of dummy words and sentences; divide the width"
    )
    ffn_width: int = Field(default=1024, ge=1, description="inner width of the feed-forward parts, channels")
    input_layers: int = Field(default=2, ge=1, description="linear layers that bring features to the hidden width")
    t2v_layers: int = Field(default=2, ge=1, description="layers of attention from clips to words")
    encoder_layers: int = Field(default=3, ge=1, description="layers of attention among clips")
    decoder_layers: int = Field(default=3, ge=1, description="layers of the span decoder")
    dummy_layers: int = Field(default=2, ge=1, description="layers that fit the dummy words to the question")
    sentence_layers: int = Field(default=1, ge=1, description="layers of the sentence encoder, training only")
    moment_layers: int = Field(default=1, ge=1, description="layers of the moment encoder, training only")
    queries: int = Field(default=10, ge=1, description="spans predicted for a question")
    dummies: int = Field(default=45, ge=1, description="dummy words, which take the attention of unrelated clips")
    prompts: int = Field(default=10, ge=1, description="learned prompts, of which each question is given the best one")
    input_dropout: float = Field(default=0.5, ge=0, lt=1, description="dropout before each input layer, probability")
    dropout: float = Field(default=0.1, ge=0, lt=1, description="dropout of attention and feed-forward, probability")
    drop_path: float = Field(default=0.1, ge=0, lt=1, description="residual branches dropped a sample, probability")

    @model_validator(mode="after")
    def _sizes_fit(self) -> Self:
        if self.text_width is None and self.text_encoder is not None:
            raise ValueError("text_encoder is set: set text_width to the number of channels that it gives")
        for heads in (self.heads, self.sentence_heads):
            if self.width % heads:
                raise ValueError(f"width {self.width} is no multiple of {heads} heads: change one of them")
        return self


class TemporalConfig(Config):
    """The temporal head."""

    decoder: Literal["frames", "cg_detr"] = late(
        default="frames",
        description="frames: every frame proposes a span, sized by width and layers; cg_detr: as published, sized by"
        " the section of that name",
    )
    width: int = Field(default=256, ge=8, multiple_of=8, description="hidden width, channels")
    layers: int = Field(default=2, ge=1, description="number of transformer layers")
    cg_detr: CgDetrConfig = late(default_factory=CgDetrConfig, description="the published temporal head")


class Sam2MaskConfig(Config):
    """The mask head as published with VideoChat-TPO: a frozen SAM2, prompted by the language model."""

    source: str = Field(
        default="facebook/sam2-hiera-large",
        min_length=1,
        description="folder, URI or hub name of a Hugging Face SAM2 video model; SAM 2.0 hiera-large as published",
    )
    pixel_weight: float = Field(
        default=0.0,
        ge=0,
        description="weight of cross-entropy and dice of the mask that SAM2 makes of the prompt; 0, as published: off",
    )
    box_prompt: Literal["language", "given"] = Field(
        default="language",
        description="what prompts SAM2 where the question gives a box: the language model, or the box itself, as the"
        " published demo does, which is plain SAM2; say which with every number",
    )


class MaskConfig(Config):
    """The mask head."""

    decoder: Literal["light", "sam2"] = Field(
        default="light",
        description="light: convolutions over pixels and patches, sized by width and train_frames; sam2: as published,"
        " by the section of that name",
    )
    width: int = Field(default=128, ge=8, multiple_of=8, description="hidden width, channels")
    train_frames: int | None = Field(
        default=None, ge=1, description="frames of a clip decoded in a training step, drawn anew each time; null: all"
    )
    sam2: Sam2MaskConfig = late(default_factory=Sam2MaskConfig, description="the published mask head")


class ModelConfig(Config):
    """Base model, adapters and heads."""

    base: str = Field(min_length=1, description="path, URI or hub name of the Hugging Face base model")
    licence: str | None = execution(None, description="licence of the base, as the model card shall name it")
    backbone: Literal["llava_onevision", "videochat2", "generic"] = Field(
        default="llava_onevision",
        description="family of the base model; generic: any image-text-to-text model of transformers",
    )
    frame_size: int | None = late(
        default=None,
        ge=1,
        description="side of a frame, pixels, for bases that take any size (Qwen-VL); null: the base's, there 448",
    )
    attn_implementation: Literal["sdpa", "flash_attention_2", "eager"] = execution(
        "sdpa", description="how attention is computed; sdpa instead of flash_attention_2 where that is not installed"
    )
    activation_checkpointing: bool = execution(
        False, description="compute activations again in the backward pass instead of keeping them: less memory, slower"
    )
    lora: LoraConfig = Field(default_factory=LoraConfig, description="adapters of the language model")
    heads: list[str] = Field(default=list(HEADS), description=f"heads of the finished model, of {', '.join(HEADS)}")
    region: RegionConfig = Field(default_factory=RegionConfig, description="region head")
    temporal: TemporalConfig = Field(default_factory=TemporalConfig, description="temporal head")
    mask: MaskConfig = Field(default_factory=MaskConfig, description="mask head")
    coordinates: Literal["heads", "text"] = late(
        default="heads",
        description="how the model gives boxes, moments and masks: heads, called by task tokens; text, written out as"
        " numbers in the answer, which takes heads: [] (tpo_core/models/wording.py)",
    )

    compat_skip_begin_token: bool = Field(
        default=False,
        description="call a head before its indicator is fed, as the code published with VideoChat-TPO does, and not"
        " after it, as in training; for the published weights",
    )

    def carried_out_as(self, other: "ModelConfig") -> Self:
        """This model, computed in the way of `other`."""
        names = ("attn_implementation", "activation_checkpointing")
        return self.model_copy(update={name: getattr(other, name) for name in names})

    @field_validator("heads")
    @classmethod
    def _heads_known(cls, heads: list[str]) -> list[str]:
        return require_known("head", heads, HEADS)

    @model_validator(mode="after")
    def _text_needs_no_heads(self) -> Self:
        if self.coordinates == "text" and self.heads:
            raise ValueError("coordinates text are written without heads: set model.heads=[]")
        return self
