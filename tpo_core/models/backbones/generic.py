"""Any Hugging Face image-text-to-text model as the backbone of TPO.

A family needs a row in `models/families.py` only where it differs from LLaVA. What a model must have is checked before
its weights are read: `.model` with a vision tower and a language model, `.lm_head`, an input embedding, and a forward
that takes visual features computed before, so that a clip is encoded once however often a head is called.

Positions are computed here, from ids and attention mask, never by the model: those of models with multimodal rotary
embeddings would otherwise come from the last prompt that the model saw (it keeps them in an attribute).
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from transformers import AutoModelForImageTextToText, DynamicCache
from transformers.initialization import no_init_weights

from tpo_core.config.schema import ModelConfig
from tpo_core.errors import TpoError
from tpo_core.models.backbones.base import Backbone, VisualFeatures, first_line, read_config, read_weights
from tpo_core.models.backbones.frame_coders import PatchGroups, frame_coder
from tpo_core.models.families import FAMILIES, LIKE_LLAVA, Family
from tpo_core.models.family_processor import FamilyProcessor
from tpo_core.models.preprocessor import read_preprocessor, require_size

VIDEO_TOKEN_TYPE = 2  # as Qwen's processors number them: 0 text, 1 image, 2 video


class PositionedCache(DynamicCache):
    """A key-value cache that knows how far the positions of each row run ahead of its count of tokens (B, 1)."""

    def __init__(self, config: Any, ahead_B1: Tensor) -> None:
        super().__init__(config=config)
        self.ahead_B1 = ahead_B1

    def batch_select_indices(self, indices: Any) -> None:
        self.reorder_cache(indices)  # layers of linear attention have no batch_select_indices, and this selects as well
        self.ahead_B1 = self.ahead_B1[indices]


class Generic(Backbone):
    """Adapter of a model of any family. frame_size: pixels a side of a frame, for towers that take any size."""

    model_type = "generic"
    vlm_class = AutoModelForImageTextToText

    def __init__(self, vlm: Any, frame_size: int | None = None) -> None:
        super().__init__(vlm)
        self.family = family_of(vlm.config)
        self._image_size = frame_side(vlm.config, self.family, frame_size)
        self.coder = frame_coder(vlm, self.family, self._image_size)

    @classmethod
    def load(cls, path: str, config: ModelConfig, *, weights: bool) -> Self:
        vlm_config = read_config(path)
        require_contract(path, vlm_config)
        try:
            vlm = cls._read(path, vlm_config, weights=weights)
            return cls(cls.carried_out(vlm, config), config.frame_size)
        except TpoError as error:
            raise TpoError(f"{path} ({vlm_config.model_type}) cannot be a base: {error}") from error

    @classmethod
    def _read(cls, path: str, vlm_config: Any, *, weights: bool) -> Any:
        if weights:
            return read_weights(cls.vlm_class, path)
        vlm_config.dtype = torch.float32
        with no_init_weights():
            return cls.vlm_class.from_config(vlm_config, dtype=torch.float32)

    def load_processor(self, path: str, tokenizer: Any) -> FamilyProcessor:
        if self.family.frames != "patches":
            require_size(Path(path), read_preprocessor(Path(path)), self.image_size)
        return FamilyProcessor.of_base(
            Path(path),
            tokenizer,
            image_size=self.image_size,
            video_token_id=self.video_token_id,
            family=self.family,
            group_size=self.coder.group_size,
            tokens_per_group=self.coder.tokens_per_group,
        )

    @property
    def embedding_VC(self) -> Tensor:
        """As the language model gets them: some families scale the rows of the table (Gemma)."""
        embedding = self.vlm.get_input_embeddings()
        if type(embedding) is nn.Embedding:
            return embedding.weight
        return embedding.forward(torch.arange(embedding.num_embeddings, device=embedding.weight.device))

    @property
    def vision_size(self) -> int:
        return self.coder.vision_size

    @property
    def image_size(self) -> int:
        return self._image_size

    @property
    def video_token_id(self) -> int:
        return getattr(self.vlm.config, self.family.placeholder)

    @property
    def grid_hw(self) -> tuple[int, int]:
        return self.coder.grid_hw

    @property
    def frames_a_group(self) -> int:
        return self.coder.group_size

    def visual_tokens(self, n_frames: int) -> int:
        """Those of its groups of frames."""
        return -(-n_frames // self.coder.group_size) * self.coder.tokens_per_group

    def encode(self, pixels_UTCHW: Tensor, frame_mask_UT: Tensor) -> VisualFeatures:
        return self.coder.encode(pixels_UTCHW, frame_mask_UT)

    def visual_inputs(self, features: VisualFeatures, frame_mask_BT: Tensor, times_s_BT: Tensor) -> dict[str, Any]:
        packed = self.coder.packed(features, self.coder.real(frame_mask_BT))
        inputs: dict[str, Any] = {"mm_encoder_outputs": {self.family.modality: packed}}
        if isinstance(self.coder, PatchGroups):
            spacing_s = frame_spacing(frame_mask_BT, times_s_BT)[frame_mask_BT.any(1)]
            inputs |= {"grid": self.coder.grid(frame_mask_BT), "group_s": spacing_s * self.coder.group_size}
        return inputs

    def hidden_states(
        self,
        input_ids_BL: Tensor,
        attention_mask_BL: Tensor,
        *,
        use_cache: bool = False,
        past_key_values: PositionedCache | None = None,
        grid: Tensor | None = None,
        group_s: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        """As of `Backbone`; grid, group_s: of `visual_inputs`, for families with multimodal rotary embeddings."""
        if past_key_values is None:
            positions, ahead_B1 = self._positions(input_ids_BL, attention_mask_BL, grid, group_s)
            if use_cache:
                past_key_values = PositionedCache(self.vlm.config.get_text_config(), ahead_B1)
            if self.family.token_types is not None:
                inputs[self.family.token_types] = (input_ids_BL == self.video_token_id).long()
        else:
            positions = counted(attention_mask_BL)[:, -input_ids_BL.shape[1] :] + past_key_values.ahead_B1
        return self.vlm.model(
            input_ids=input_ids_BL,
            attention_mask=attention_mask_BL,
            position_ids=positions.expand(3, -1, -1) if self._is_3d and positions.ndim == 2 else positions,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **inputs,
        )

    @property
    def _is_3d(self) -> bool:
        return isinstance(self.coder, PatchGroups)

    def _positions(
        self, ids_BL: Tensor, mask_BL: Tensor, grid: Tensor | None, group_s: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Positions of the tokens of prompts, and how far the next one is ahead of the count of tokens (B, 1)."""
        if not self._is_3d:
            return counted(mask_BL), torch.zeros_like(ids_BL[:, :1])
        types_BL = (ids_BL == self.video_token_id).int() * VIDEO_TOKEN_TYPE
        return self.vlm.model.get_rope_index(
            ids_BL, types_BL, video_grid_thw=grid, second_per_grid_ts=group_s, attention_mask=mask_BL
        )

    def group_of(self, name: str) -> str | None:
        if ".lora_" in name:
            return "lora"
        if (
            name.startswith(f"{self.language_model_name}.")
            or not name.startswith("model.")
            or name in self.coder.unused
        ):
            return None
        tower = f"model.{self.family.tower}."
        inside = name.startswith(tower) and not name.startswith(tuple(tower + part for part in self.family.connectors))
        return "vision_encoder" if inside else "connector"


def counted(mask_BL: Tensor) -> Tensor:
    """Place of each token among those of its row that are no padding, from 0."""
    return (mask_BL.cumsum(1) - 1).clamp(min=0)


def frame_spacing(frame_mask_BT: Tensor, times_s_BT: Tensor) -> Tensor:
    """Mean time between frames of each row (B,), seconds; 1 where there are no two frames."""
    count_B = frame_mask_BT.sum(1)
    first_B = times_s_BT[:, 0]
    last_B = times_s_BT.gather(1, (count_B - 1).clamp(min=0)[:, None])[:, 0]
    return torch.where(count_B > 1, (last_B - first_B) / (count_B - 1).clamp(min=1), torch.ones_like(first_B))


def family_of(config: Any) -> Family:
    return FAMILIES.get(config.model_type, LIKE_LLAVA)


def frame_side(config: Any, family: Family, frame_size: int | None) -> int:
    """Pixels a side of a frame: that of the tower, or, where it takes any size, the recipe's or the family's."""
    if family.frames == "patches":
        return family.frame_size if frame_size is None else frame_size
    vision = config.vision_config
    given = vision.image_size if hasattr(vision, "image_size") else None
    side = given[0] if isinstance(given, list | tuple) else given
    if side is None:
        raise TpoError(
            "its config gives no vision_config.image_size, and a tower of any size is not known of its family"
        )
    if frame_size not in (None, side):
        raise TpoError(f"its vision tower takes {side} pixels a side alone: leave model.frame_size out")
    return side


def require_contract(path: str, config: Any) -> None:
    """Raises TpoError that says what a model lacks, before its weights are read."""
    kind = config.model_type
    if config.is_encoder_decoder:
        raise TpoError(f"{path} ({kind}) is an encoder-decoder: a base needs one language model that reads and writes")
    if type(config) not in AutoModelForImageTextToText._model_mapping:
        raise TpoError(f"{path} ({kind}) is no image-text-to-text model that transformers knows: take another base")
    family = family_of(config)
    try:
        with torch.device("meta"), no_init_weights():
            vlm = AutoModelForImageTextToText.from_config(config)
    except Exception as error:  # of whatever kind: a config that does not fit together, a package that is not there
        raise TpoError(f"{path} ({kind}) cannot be a base: it cannot be built ({first_line(error)})") from error
    needed: dict[str, Callable[[], bool]] = {
        ".model": lambda: hasattr(vlm, "model"),
        ".lm_head": lambda: hasattr(vlm, "lm_head"),
        "an input embedding": lambda: isinstance(vlm.get_input_embeddings(), nn.Embedding),
        f".model.{family.tower}": lambda: hasattr(vlm.model, family.tower),
        f"{family.placeholder} in its config": lambda: hasattr(config, family.placeholder),
        "a forward that takes mm_encoder_outputs": lambda: takes_features(vlm.model),
    }
    for what, there in needed.items():
        if not there():
            raise TpoError(f"{path} ({kind}) cannot be a base: it has no {what.removeprefix('a ')}")


def takes_features(model: nn.Module) -> bool:
    """Whether visual features that were computed before can be handed to a model."""
    return "mm_encoder_outputs" in inspect.signature(model.forward).parameters
