"""VideoChat2 (UMT ViT, Q-Former, Mistral) as the backbone of TPO: the model of the published VideoChat-TPO.

A clip costs the same number of visual tokens whatever its frames, and an image is a clip of one frame. The vision
encoder looks at all frames of a clip together, so that padding frames must be hidden from it.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tpo_core.errors import TpoError
from tpo_core.models.backbones.base import Backbone, VisualFeatures
from tpo_core.models.videochat2.model import VideoChat2ForConditionalGeneration
from tpo_core.models.videochat2.processor import VideoChat2Processor
from tpo_core.models.videochat2.tokenizer import FragmentTokenizer

CONNECTOR = (
    "model.vision_layernorm.",
    "model.qformer.",
    "model.query_tokens",
    "model.extra_query_tokens",
    "model.project_up.",
)
# The text side of the Q-Former: published prompts never give it a text.
TEXT_SIDE = re.compile(
    r"model\.qformer\.(embeddings\.(word|position)_embeddings|encoder\.layer\.\d+\.(intermediate|output))\."
)


class VideoChat2(Backbone):
    """Adapter of a `VideoChat2ForConditionalGeneration`."""

    model_type = "videochat2"
    vlm_class = VideoChat2ForConditionalGeneration

    @classmethod
    def load_tokenizer(cls, path: str) -> FragmentTokenizer:
        return FragmentTokenizer.from_pretrained(path)

    def load_processor(self, path: str, tokenizer: Any) -> VideoChat2Processor:
        rows = len(self.embedding_VC)
        if len(tokenizer) != rows:  # its vocabulary is never padded
            raise TpoError(
                f"the tokenizer of {path} has {len(tokenizer)} tokens, the embedding {rows} rows: take tokenizer and "
                "weights from one model"
            )
        return VideoChat2Processor.from_folder(Path(path), tokenizer, self.vlm.config)

    @property
    def vision_size(self) -> int:
        return self.vlm.config.vision_config.hidden_size

    def visual_tokens(self, n_frames: int) -> int:
        """The same for all clips."""
        return self.vlm.config.tokens_per_clip

    def encode(self, pixels_UTCHW: Tensor, frame_mask_UT: Tensor) -> VisualFeatures:
        features = self.vlm.get_video_features(pixels_UTCHW, frame_mask_UT)
        patches = features.last_hidden_state.unflatten(1, (pixels_UTCHW.shape[1], -1))
        return VisualFeatures(features.pooler_output, patches)

    def visual_inputs(self, features: VisualFeatures, frame_mask_BT: Tensor, times_s_BT: Tensor) -> dict[str, Any]:
        seen = BaseModelOutputWithPooling(pooler_output=features.tokens_BLC[frame_mask_BT.any(1)])
        return {"mm_encoder_outputs": {"video": seen}}

    def group_of(self, name: str) -> str | None:
        if ".lora_" in name:
            return "lora"
        if name.startswith("model.vision_tower."):
            return "vision_encoder"
        return "connector" if name.startswith(CONNECTOR) and not TEXT_SIDE.match(name) else None
