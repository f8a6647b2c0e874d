"""LLaVA-OneVision (SigLIP tower, two-layer projector, Qwen2) as the backbone of TPO.

Everything visual goes through `pixel_values_videos`: an image is a video of one frame, as in VideoChat2, so that
images and clips share one code path and one token budget. Frames are independent in the vision tower, so padding
frames are run and their tokens dropped.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import AutoConfig, LlavaOnevisionForConditionalGeneration
from transformers.initialization import no_init_weights
from transformers.modeling_outputs import BaseModelOutputWithPooling

from tpo_core.config.schema import LoraConfig
from tpo_core.errors import TpoError

LM_HEAD = "lm_head"


@dataclass
class VisualFeatures:
    """tokens_BLC: connector output with padding frames, per row T * tokens_per_frame tokens and one newline.

    patches_BTNC: the vision tower's features that fed the connector.
    """

    tokens_BLC: Tensor
    patches_BTNC: Tensor

    def rows(self, index_B: Tensor) -> "VisualFeatures":
        """The features with row index_B[b] as row b."""
        return VisualFeatures(self.tokens_BLC[index_B], self.patches_BTNC[index_B])


class LlavaOnevision(nn.Module):
    """Adapter of a `LlavaOnevisionForConditionalGeneration`, kept as `.vlm`."""

    model_type = "llava_onevision"

    def __init__(self, vlm: LlavaOnevisionForConditionalGeneration) -> None:
        super().__init__()
        self.vlm = vlm
        self._patches: Tensor | None = None
        vlm.model.multi_modal_projector.register_forward_pre_hook(self._keep_patches)

    def _keep_patches(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        self._patches = args[0]

    @classmethod
    def load(cls, path: str, *, weights: bool) -> "LlavaOnevision":
        """From a Hugging Face directory or hub name, in fp32; `weights=False` gives the architecture alone."""
        config = AutoConfig.from_pretrained(path)
        if config.model_type != cls.model_type:
            raise TpoError(f"{path} is a {config.model_type} model: model.backbone {cls.model_type} needs its own type")
        if weights:
            return cls(LlavaOnevisionForConditionalGeneration.from_pretrained(path, dtype=torch.float32))
        config.dtype = torch.float32
        with no_init_weights():
            return cls(LlavaOnevisionForConditionalGeneration(config))

    @property
    def _vision_config(self) -> Any:
        return self.vlm.config.vision_config

    @property
    def hidden_size(self) -> int:
        return self.vlm.config.get_text_config().hidden_size

    @property
    def embedding_VC(self) -> Tensor:
        """The input embedding, one row a token."""
        embedding = self.vlm.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        return embedding.weight

    @property
    def vision_size(self) -> int:
        """Width of `VisualFeatures.patches_BTNC`."""
        return self.vlm.model.multi_modal_projector.linear_1.in_features

    @property
    def image_size(self) -> int:
        return self._vision_config.image_size

    @property
    def video_token_id(self) -> int:
        return self.vlm.config.video_token_id

    @property
    def grid_hw(self) -> tuple[int, int]:
        side = self.image_size // self._vision_config.patch_size
        return side, side

    @property
    def tokens_per_frame(self) -> int:
        """Bilinear pooling halves the patch grid, rounding up (`LlavaOnevisionModel.apply_pooling`)."""
        return math.ceil(self.grid_hw[0] / 2) * math.ceil(self.grid_hw[1] / 2)

    def visual_tokens(self, n_frames: int) -> int:
        """Tokens of a clip in the prompt: those of its frames and one newline."""
        return n_frames * self.tokens_per_frame + 1

    def add_lora(self, config: LoraConfig) -> None:
        """Adapters on the named layers of the language model (and lm_head); the vision tower has none."""
        inner = [name for name in config.targets if name != LM_HEAD]
        patterns = [rf".*language_model.*\.({'|'.join(inner)})"] if inner else []
        patterns += [LM_HEAD] if LM_HEAD in config.targets else []
        peft = PeftLoraConfig(
            r=config.rank,
            lora_alpha=config.alpha,  # type: ignore[arg-type]
            lora_dropout=config.dropout,
            target_modules="|".join(patterns),
        )
        inject_adapter_in_model(peft, self.vlm)

    @contextmanager
    def without_lora(self) -> Iterator[None]:
        """Inside, the language model is the base model. peft freezes what it disables: it thaws afterwards."""
        layers = [module for module in self.vlm.modules() if isinstance(module, BaseTunerLayer)]
        trained = [parameter for layer in layers for parameter in layer.parameters() if parameter.requires_grad]
        for layer in layers:
            layer.enable_adapters(False)
        try:
            yield
        finally:
            for layer in layers:
                layer.enable_adapters(True)
                layer.requires_grad_(False)
            for parameter in trained:
                parameter.requires_grad_(True)

    def encode(self, pixels_BTCHW: Tensor) -> VisualFeatures:
        features = self.vlm.model.get_video_features(pixels_BTCHW, return_dict=True)
        patches, self._patches = self._patches, None
        assert patches is not None, "the projector ran without its hook"
        return VisualFeatures(features.pooler_output, patches.unflatten(0, pixels_BTCHW.shape[:2]))

    def visual_inputs(self, features: VisualFeatures, frame_mask_BT: Tensor) -> dict[str, Any]:
        """Keyword arguments that hand the tokens of the real frames to `hidden_states`; without frames, no tokens."""
        real_BL = frame_mask_BT.repeat_interleave(self.tokens_per_frame, 1)
        real_BL = torch.cat([real_BL, frame_mask_BT.any(1, keepdim=True)], 1)
        packed = BaseModelOutputWithPooling(pooler_output=features.tokens_BLC[real_BL][None])
        return {"mm_encoder_outputs": {"video": packed}}

    def hidden_states(self, input_ids_BL: Tensor, attention_mask_BL: Tensor, **inputs: Any) -> Any:
        """Output of the language model with `.last_hidden_state` (B, L, C) after the final norm, and its cache."""
        return self.vlm.model(input_ids=input_ids_BL, attention_mask=attention_mask_BL, **inputs)

    def lm_head(self, hidden: Tensor) -> Tensor:
        return self.vlm.lm_head(hidden)

    def group_of(self, name: str) -> str | None:
        """Parameter group of a parameter of `.vlm`, None when it is never trained or never used."""
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
        n_layers = self._vision_config.num_hidden_layers
        chosen = self.vlm.config.vision_feature_layer
        last = max(layer % (n_layers + 1) for layer in (chosen if isinstance(chosen, list) else [chosen]))
        for layer in range(last, n_layers):
            yield f"model.vision_tower.encoder.layers.{layer}."

    def end_token_ids(self) -> set[int]:
        """Ids that end an answer according to the base model's generation settings."""
        end = self.vlm.generation_config.eos_token_id
        return set(end) if isinstance(end, list) else set() if end is None else {end}

    def save_config(self, path: Path) -> None:
        self.vlm.config.save_pretrained(path)
        self.vlm.generation_config.save_pretrained(path)
