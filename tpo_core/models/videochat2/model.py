"""VideoChat2: video ViT, Q-Former, one projection and Mistral, as a Hugging Face image-text-to-text model.

A clip or an image becomes `config.tokens_per_clip` tokens of the language model, whatever its frames. They take the
places of the placeholder `config.video_token_id` in the prompt. Parameter names, sizes and semantics are those of the
published VideoChat-TPO (`videochat2/published.py` maps the names). DropPath of the Q-Former, which the published
training used with rates from 0 to 0.2, is left out; its dropout is not.
"""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    GenerationMixin,
    InstructBlipVideoQFormerModel,
    MistralModel,
    PreTrainedModel,
    initialization,
)
from transformers.modeling_outputs import BaseModelOutputWithPast, BaseModelOutputWithPooling, CausalLMOutputWithPast
from transformers.utils import can_return_tuple

from tpo_core.errors import TpoError
from tpo_core.models.videochat2.config import VideoChat2Config
from tpo_core.models.videochat2.vision import VisionTower


class VideoChat2PreTrainedModel(PreTrainedModel):
    """What Hugging Face must know of the two classes below."""

    config_class = VideoChat2Config
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities = ("video", "text")  # type: ignore[assignment]
    supports_gradient_checkpointing = True
    _no_split_modules = ["VideoMAELayer", "InstructBlipVideoQFormerLayer", "MistralDecoderLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, VideoChat2Model):
            for queries in (module.query_tokens, module.extra_query_tokens):
                initialization.normal_(queries, mean=0.0, std=self.config.initializer_range)


def detached(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
    """Forward hook of the token embedding: its table gets no gradient.

    The model registers it when it is built, before any other, and hooks run in the order of their registration: what
    a later hook puts into the output (the task vectors) comes behind the cut and keeps its gradient.
    """
    return output.detach()


class VideoChat2Model(VideoChat2PreTrainedModel):
    """The model without its language head."""

    def __init__(self, config: VideoChat2Config) -> None:
        super().__init__(config)
        vision: Any = config.vision_config
        qformer: Any = config.qformer_config
        text: Any = config.text_config
        self.vision_tower = VisionTower(vision)
        self.vision_layernorm = nn.LayerNorm(vision.hidden_size, eps=config.vision_layer_norm_eps)
        self.qformer = InstructBlipVideoQFormerModel(qformer)
        self.query_tokens = nn.Parameter(torch.zeros(1, config.num_query_tokens, qformer.hidden_size))
        self.extra_query_tokens = nn.Parameter(torch.zeros(1, config.num_extra_query_tokens, qformer.hidden_size))
        self.project_up = nn.Linear(qformer.hidden_size, text.hidden_size)
        self.language_model = MistralModel(text)
        if config.detach_input_embeddings:
            self.language_model.embed_tokens.register_forward_hook(detached)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    @can_return_tuple
    def get_video_features(
        self, pixel_values_videos: Tensor, frame_mask: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """Visual tokens `.pooler_output` (B, tokens_per_clip, C) of clips, and the patches that the Q-Former looks at,
        `.last_hidden_state` (B, T * patches, C_vision): by frame, row, column, layer norm included.

        pixel_values_videos (B, T, 3, H, W) normalised, T = 1 for images. frame_mask (B, T) bool, True on frames, which
        come first in their row: a clip with padding frames has the tokens that it has alone.
        """
        patches_BLC = self.vision_layernorm(self.vision_tower(pixel_values_videos, frame_mask).last_hidden_state)
        queries_BQC = torch.cat([self.query_tokens, self.extra_query_tokens], 1).expand(len(patches_BLC), -1, -1)
        seen_BL = None
        if frame_mask is not None:
            first = torch.arange(frame_mask.shape[1], device=frame_mask.device) == 0
            seen_BL = (frame_mask | first).repeat_interleave(patches_BLC.shape[1] // frame_mask.shape[1], 1)
        states_BQC = self.qformer(
            input_ids=None,
            query_embeds=queries_BQC,
            encoder_hidden_states=patches_BLC,
            encoder_attention_mask=seen_BL,
        ).last_hidden_state
        return BaseModelOutputWithPooling(last_hidden_state=patches_BLC, pooler_output=self.project_up(states_BQC))

    def _embed(self, input_ids: Tensor, tokens_BQC: Tensor | None) -> Tensor:
        """Embeddings (B, L, C): words by the table, placeholders by visual tokens, in order."""
        placeholder_BL = input_ids == self.config.video_token_id
        embeds_BLC = self.get_input_embeddings()(input_ids.masked_fill(placeholder_BL, 0))
        self._check(placeholder_BL, 0 if tokens_BQC is None else tokens_BQC.shape[:-1].numel())
        if tokens_BQC is None:
            return embeds_BLC
        return embeds_BLC.masked_scatter(placeholder_BL[..., None], tokens_BQC.to(embeds_BLC.device, embeds_BLC.dtype))

    def _check(self, placeholder_BL: Tensor, n_tokens: int) -> None:
        counts_B = placeholder_BL.sum(1).tolist()
        if sum(counts_B) != n_tokens or any(count % self.config.tokens_per_clip for count in counts_B):
            raise TpoError(
                f"the prompts have {counts_B} visual placeholders for {n_tokens} visual tokens: give each clip "
                f"{self.config.tokens_per_clip} times id {self.config.video_token_id}"
            )

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        frame_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        use_cache: bool | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast:
        """`.last_hidden_state` (B, L, C) after the final norm.

        Visual input is either pixels (`get_video_features`) or its result, `mm_encoder_outputs={"video": ...}`, for
        the clips of the prompts in order. The prompt is either input_ids (B, L) or inputs_embeds (B, L, C) without
        visual input. Raises TpoError when placeholders and visual tokens differ in number.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give exactly one of input_ids and inputs_embeds")
        features = (mm_encoder_outputs or {}).get("video")
        if pixel_values_videos is not None:
            if features is not None:
                raise ValueError("give pixel_values_videos or mm_encoder_outputs, not both")
            features = self.get_video_features(pixel_values_videos, frame_mask)
        if input_ids is not None:
            inputs_embeds = self._embed(input_ids, None if features is None else features.pooler_output)
        elif features is not None:
            raise ValueError("visual input needs the placeholders of input_ids")
        return self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )


class VideoChat2ForConditionalGeneration(VideoChat2PreTrainedModel, GenerationMixin):
    """The model with its language head."""

    def __init__(self, config: VideoChat2Config) -> None:
        super().__init__(config)
        text: Any = config.text_config
        self.model = VideoChat2Model(config)
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def get_video_features(
        self, pixel_values_videos: Tensor, frame_mask: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """See `VideoChat2Model.get_video_features`."""
        return self.model.get_video_features(pixel_values_videos, frame_mask, **kwargs)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        frame_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Logits (B, L, V), or of the last `logits_to_keep` places, and with labels (B, L; -100: none) the loss."""
        outputs = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values_videos=pixel_values_videos,
            frame_mask=frame_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(outputs.last_hidden_state[:, kept])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=self.config.text_config.vocab_size)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


AutoConfig.register(VideoChat2Config.model_type, VideoChat2Config)
AutoModelForImageTextToText.register(VideoChat2Config, VideoChat2ForConditionalGeneration)
