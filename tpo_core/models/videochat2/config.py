"""Configuration of VideoChat2, in the layout of Hugging Face; its defaults are the published sizes."""

from typing import Any

from transformers import MistralConfig, PreTrainedConfig, VideoMAEConfig
from transformers.configuration_utils import SubConfigSpec
from transformers.models.instructblipvideo.configuration_instructblipvideo import InstructBlipVideoQFormerConfig

from tpo_core.errors import TpoError

# UMT ViT-L/16 as far as it runs: 23 of its 24 blocks (return_index -2), no final norm. `num_frames` counts the frames
# that the position table is made for; clips of other lengths are interpolated from it.
PUBLISHED_VISION = {
    "image_size": 224,
    "patch_size": 16,
    "tubelet_size": 1,
    "num_frames": 4,
    "hidden_size": 1024,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "layer_norm_eps": 1e-6,
}
# BERT-base with cross-attention in every second layer; 30,522 words of BERT and "[DEC]".
PUBLISHED_QFORMER = {"vocab_size": 30523, "encoder_hidden_size": 1024}
# Mistral-7B-Instruct v0.2.
PUBLISHED_TEXT = {
    "vocab_size": 32000,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e6,
    "sliding_window": None,
}


class VideoChat2Config(PreTrainedConfig):
    """VideoMAE tower, Q-Former and Mistral, and what joins them.

    num_query_tokens, num_extra_query_tokens: learned queries; their sum is the number of visual tokens of a clip or
    an image, whatever its frames. video_token_id: placeholder of a visual token in the prompt; it lies outside the
    embedding table, so that no word is lost to it. detach_input_embeddings: the token embedding gets no gradient, as
    published; vectors that a forward hook puts into its output do. Raises TpoError for parts that do not fit together.
    """

    model_type = "videochat2"
    sub_configs_defaults = {
        "vision_config": SubConfigSpec(config_class=VideoMAEConfig, init_kwargs=PUBLISHED_VISION),
        "qformer_config": SubConfigSpec(config_class=InstructBlipVideoQFormerConfig, init_kwargs=PUBLISHED_QFORMER),
        "text_config": SubConfigSpec(config_class=MistralConfig, init_kwargs=PUBLISHED_TEXT),
    }

    vision_config: dict | PreTrainedConfig | None = None
    qformer_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    num_query_tokens: int = 32
    num_extra_query_tokens: int = 64
    vision_layer_norm_eps: float = 1e-12
    video_token_id: int = 65536
    detach_input_embeddings: bool = True
    initializer_range: float = 0.02
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: object) -> None:
        super().__post_init__(**kwargs)
        vision: Any = self.vision_config
        qformer: Any = self.qformer_config
        text: Any = self.text_config
        if vision.tubelet_size != 1:
            raise TpoError(f"vision_config.tubelet_size is {vision.tubelet_size}: VideoChat2 sees every frame, set 1")
        if not isinstance(vision.image_size, int) or vision.image_size % vision.patch_size:
            raise TpoError(
                f"vision_config.image_size {vision.image_size} must be one number, a multiple of patch_size "
                f"{vision.patch_size}"
            )
        if qformer.encoder_hidden_size != vision.hidden_size:
            raise TpoError(
                f"qformer_config.encoder_hidden_size {qformer.encoder_hidden_size} must equal "
                f"vision_config.hidden_size {vision.hidden_size}"
            )
        if self.video_token_id < text.vocab_size:
            raise TpoError(
                f"video_token_id {self.video_token_id} is a row of the embedding: take {text.vocab_size} or more"
            )

    @property
    def tokens_per_clip(self) -> int:
        """Visual tokens of a clip or an image."""
        return self.num_query_tokens + self.num_extra_query_tokens
