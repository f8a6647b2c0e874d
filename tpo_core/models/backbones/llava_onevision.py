"""LLaVA-OneVision (SigLIP tower, two-layer projector, Qwen2) as the backbone of TPO.

Everything visual goes through `pixel_values_videos`: an image is a video of one frame, as in VideoChat2, so that
images and clips share one code path and one token budget. Frames are independent in the vision tower, so padding
frames are run and their tokens dropped.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaOnevisionForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tpo_core.models.backbones.base import Backbone, VisualFeatures
from tpo_core.models.processing import Processor


class LlavaOnevision(Backbone):
    """Adapter of a `LlavaOnevisionForConditionalGeneration`.

    Its `VisualFeatures.tokens_BLC` are, per row, T * tokens_per_frame tokens and one newline.
    """

    model_type = "llava_onevision"
    vlm_class = LlavaOnevisionForConditionalGeneration

    def __init__(self, vlm: LlavaOnevisionForConditionalGeneration) -> None:
        super().__init__(vlm)
        self._patches: Tensor | None = None
        vlm.model.multi_modal_projector.register_forward_pre_hook(self._keep_patches)

    def _keep_patches(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._patches = args[0]

    def load_processor(self, path: str, tokenizer: Any) -> Processor:
        return Processor.load(
            Path(path),
            tokenizer,
            image_size=self.image_size,
            tokens_per_frame=self.tokens_per_frame,
            video_token_id=self.video_token_id,
        )

    @property
    def vision_size(self) -> int:
        return self.vlm.model.multi_modal_projector.linear_1.in_features

    @property
    def tokens_per_frame(self) -> int:
        """Bilinear pooling halves the patch grid, rounding up (`LlavaOnevisionModel.apply_pooling`)."""
        return math.ceil(self.grid_hw[0] / 2) * math.ceil(self.grid_hw[1] / 2)

    def visual_tokens(self, n_frames: int) -> int:
        """Those of its frames and one newline."""
        return n_frames * self.tokens_per_frame + 1

    def encode(self, pixels_UTCHW: Tensor, frame_mask_UT: Tensor) -> VisualFeatures:
        features = self.vlm.model.get_video_features(pixels_UTCHW, return_dict=True)
        patches, self._patches = self._patches, None
        assert patches is not None, "the projector ran without its hook"
        return VisualFeatures(features.pooler_output, patches.unflatten(0, pixels_UTCHW.shape[:2]))

    def visual_inputs(self, features: VisualFeatures, frame_mask_BT: Tensor, times_s_BT: Tensor) -> dict[str, Any]:
        real_BL = frame_mask_BT.repeat_interleave(self.tokens_per_frame, 1)
        real_BL = torch.cat([real_BL, frame_mask_BT.any(1, keepdim=True)], 1)
        packed = BaseModelOutputWithPooling(pooler_output=features.tokens_BLC[real_BL][None])
        return {"mm_encoder_outputs": {"video": packed}}

    def group_of(self, name: str) -> str | None:
        if ".lora_" in name:
            return "lora"
        if name.startswith(("model.multi_modal_projector.", "model.image_newline")):
            return "connector"
        if name.startswith("model.vision_tower.") and not name.startswith(tuple(self._unused_vision())):
            return "vision_encoder"
        return None

    def _unused_vision(self) -> Iterator[str]:
        """Parts of the tower behind the layer that feeds the projector: they never get a gradient."""
        yield "model.vision_tower.post_layernorm."
        yield "model.vision_tower.head."
        n_layers = self.vlm.config.vision_config.num_hidden_layers
        chosen = self.vlm.config.vision_feature_layer
        last = max(layer % (n_layers + 1) for layer in (chosen if isinstance(chosen, list) else [chosen]))
        for layer in range(last, n_layers):
            yield f"model.vision_tower.encoder.layers.{layer}."
