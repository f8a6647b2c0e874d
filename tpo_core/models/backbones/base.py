"""The contract between the TPO model and a vision-language model of any family.

A backbone wraps one Hugging Face model, kept as `.vlm`, and answers what differs between families: how pixels become
visual tokens and patches, how these enter the language model, which parameters belong to which group. What is alike for
all (adapters, language head, saving) is here.

Shape letters: B rows, U different clips, T frames, L tokens, N patches of a frame, C a width, V vocabulary.
"""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from peft import LoraConfig as PeftLoraConfig
from peft import inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer
from transformers.initialization import no_init_weights
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.utils import is_flash_attn_2_available

from tpo_core.config.schema import LoraConfig, ModelConfig
from tpo_core.errors import TpoError
from tpo_core.models.processing import Processor

LM_HEAD = "lm_head"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
log = logging.getLogger(__name__)


@dataclass
class VisualFeatures:
    """What the vision side says of clips, one a row.

    tokens_BLC: visual tokens of the language model, C its width; those of padding frames, where a family has such, are
    among them and are dropped by `Backbone.visual_inputs`. patches_BTNC: the vision tower's features that feed the
    connector, rows by frame, patches row-major. deeper: what some families add to the states of the visual tokens
    behind the first layers of the language model, one tensor like tokens_BLC a layer.
    """

    tokens_BLC: Tensor
    patches_BTNC: Tensor
    deeper: list[Tensor] = field(default_factory=list)

    def rows(self, index_B: Tensor) -> "VisualFeatures":
        """The features with row index_B[b] as row b."""
        return VisualFeatures(
            self.tokens_BLC[index_B], self.patches_BTNC[index_B], [layer_BLC[index_B] for layer_BLC in self.deeper]
        )


def read_config(path: str) -> Any:
    """The configuration of a model directory. Raises TpoError when it has none that transformers knows."""
    try:
        return AutoConfig.from_pretrained(path)
    except (OSError, ValueError) as error:
        raise TpoError(f"{path} has no config.json of a model that transformers knows: {first_line(error)}") from error


def read_weights(vlm_class: Any, path: str) -> Any:
    """The model of a directory in fp32. Raises TpoError when its weights are absent, cannot be read, or are not all of
    those of the model in their shapes (transformers would start the others at random). Further ones are told."""
    how: Any = {"dtype": torch.float32, "output_loading_info": True, "ignore_mismatched_sizes": True}
    try:
        vlm, info = vlm_class.from_pretrained(path, **how)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise TpoError(f"{path} has no weights that can be read ({first_line(error)}): copy the model again") from error
    wrong = [f"lack {name}" for name in sorted(info["missing_keys"])]
    wrong += [
        f"hold {name} as {tuple(there)} where its config.json has {tuple(own)}"
        for name, there, own in sorted(info["mismatched_keys"])
    ]
    if wrong:
        raise TpoError(f"the weights of {path} {wrong[0]} ({len(wrong)} tensors differ): take all files from one model")
    if info["unexpected_keys"]:
        first, count = min(info["unexpected_keys"]), len(info["unexpected_keys"])
        log.warning("%s holds %s and %d more tensors that the model does not have: unused", path, first, count - 1)
    return vlm


def first_line(error: Exception) -> str:
    """What an error says first, or what kind it is."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


class Backbone(nn.Module, ABC):
    """Adapter of a Hugging Face image-text-to-text model with `.model`, `.lm_head` and `get_input_embeddings()`.

    model_type: what its config.json says. vlm_class: the Hugging Face class.
    """

    model_type: ClassVar[str]
    vlm_class: ClassVar[Any]

    def __init__(self, vlm: Any) -> None:
        super().__init__()
        self.vlm = vlm

    @classmethod
    def load(cls, path: str, config: ModelConfig, *, weights: bool) -> Self:
        """From a Hugging Face directory, in fp32; `weights=False` gives the architecture alone.

        Raises TpoError for a model of another family.
        """
        vlm_config = read_config(path)
        kind = vlm_config.model_type
        if kind != cls.model_type:
            raise TpoError(f"{path} is a {kind} model: model.backbone {cls.model_type} needs its own type")
        if weights:
            return cls(cls.carried_out(read_weights(cls.vlm_class, path), config))
        vlm_config.dtype = torch.float32
        with no_init_weights():
            return cls(cls.carried_out(cls.vlm_class(vlm_config), config))

    @staticmethod
    def carried_out(vlm: Any, config: ModelConfig) -> Any:
        """The model, told how to compute attention and what to keep of a forward pass."""
        attention = config.attn_implementation
        if attention == "flash_attention_2" and not is_flash_attn_2_available():
            log.warning("flash_attention_2 is not installed for this device: attention is computed by sdpa")
            attention = "sdpa"
        if attention != "sdpa":  # which transformers takes of its own accord where a model has it
            try:
                vlm.set_attn_implementation(attention)
            except ValueError as error:
                raise TpoError(f"model.attn_implementation {attention} is not for {type(vlm).__name__}") from error
        if config.activation_checkpointing:
            if not vlm.supports_gradient_checkpointing:
                raise TpoError(f"{type(vlm).__name__} cannot checkpoint activations: leave it out")
            vlm.gradient_checkpointing_enable({"use_reentrant": False})
        return vlm

    @classmethod
    def load_tokenizer(cls, path: str) -> Any:
        """The tokenizer of a model directory. Raises TpoError when it has none."""
        if not any((Path(path) / name).exists() for name in TOKENIZER_FILES):  # transformers would make an empty one
            raise TpoError(f"{path} has no tokenizer (none of {', '.join(TOKENIZER_FILES)}): copy its files")
        try:
            return AutoTokenizer.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise TpoError(f"{path} has no tokenizer that can be read ({first_line(error)}): copy its files") from error

    @abstractmethod
    def load_processor(self, path: str, tokenizer: Any) -> Processor:
        """What makes batches for this model, with the preprocessor settings of a model directory."""

    @property
    def hidden_size(self) -> int:
        """Width of the language model."""
        return self.vlm.config.get_text_config().hidden_size

    @property
    def embedding_VC(self) -> Tensor:
        """The input embedding, one row a token."""
        embedding = self.vlm.get_input_embeddings()
        assert isinstance(embedding, nn.Embedding)
        return embedding.weight

    @property
    def language_model_name(self) -> str:
        """Where the language model is: the part of `.vlm` that holds the input embedding."""
        embedding = self.vlm.get_input_embeddings()
        name = next(name for name, part in self.vlm.named_modules() if part is embedding)
        return name.rpartition(".")[0]

    @property
    @abstractmethod
    def vision_size(self) -> int:
        """Width of `VisualFeatures.patches_BTNC`."""

    @property
    def image_size(self) -> int:
        """Pixels of a side of a frame."""
        return self.vlm.config.vision_config.image_size

    @property
    def video_token_id(self) -> int:
        """Placeholder of a visual token in the prompt."""
        return self.vlm.config.video_token_id

    @property
    def grid_hw(self) -> tuple[int, int]:
        """Patches of a frame per column and per row."""
        side = self.image_size // self.vlm.config.vision_config.patch_size
        return side, side

    @property
    def frames_a_group(self) -> int:
        """Frames that share their patches in the vision tower."""
        return 1

    @abstractmethod
    def visual_tokens(self, n_frames: int) -> int:
        """Tokens of a clip of n_frames in the prompt."""

    @abstractmethod
    def encode(self, pixels_UTCHW: Tensor, frame_mask_UT: Tensor) -> VisualFeatures:
        """Features of normalised clips. frame_mask_UT: bool, False on padding frames, which come last; a row without
        any frame has features that mean nothing and must be finite."""

    @abstractmethod
    def visual_inputs(self, features: VisualFeatures, frame_mask_BT: Tensor, times_s_BT: Tensor) -> dict[str, Any]:
        """Keyword arguments that hand the tokens of the real frames to `hidden_states`; without frames, no tokens.

        times_s_BT: time of each frame, seconds; some families put them into positions.
        """

    def hidden_states(self, input_ids_BL: Tensor, attention_mask_BL: Tensor, **inputs: Any) -> Any:
        """Output of the language model with `.last_hidden_state` (B, L, C) after the final norm, and its cache."""
        return self.vlm.model(input_ids=input_ids_BL, attention_mask=attention_mask_BL, **inputs)

    def lm_head(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of hidden states (..., C)."""
        return self.vlm.lm_head(hidden)

    @abstractmethod
    def group_of(self, name: str) -> str | None:
        """Parameter group of a parameter of `.vlm`, None when it is never trained or never used."""

    def add_lora(self, config: LoraConfig) -> None:
        """Adapters on the named layers of the language model (and lm_head); the vision tower has none.

        Raises TpoError for a name that no linear layer has.
        """
        inner = [name for name in config.targets if name != LM_HEAD]
        language_model = self.vlm.get_submodule(self.language_model_name)
        linear = {path.split(".")[-1] for path, part in language_model.named_modules() if isinstance(part, nn.Linear)}
        unknown = [name for name in inner if name not in linear]
        if unknown:
            have = ", ".join(sorted(linear))
            raise TpoError(
                f"the language model has no linear layer {unknown[0]}: set model.lora.targets to some of {have}"
            )
        named = "|".join(re.escape(name) for name in inner)
        patterns = [rf"{re.escape(self.language_model_name)}\..*\.({named})"] if inner else []
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
        """Inside, the language model is the base model.

        Not by peft's `enable_adapters`, which also freezes and thaws: strategies that cut a model into pieces decide by
        `requires_grad` what becomes of a parameter, and must not see it change between a forward and its backward.
        """
        layers = [module for module in self.modules() if isinstance(module, BaseTunerLayer)]
        for layer in layers:
            layer._disable_adapters = True
        try:
            yield
        finally:
            for layer in layers:
                layer._disable_adapters = False

    def sharding_units(self) -> list[nn.Module]:
        """The layers of the language model and of the vision tower, inner before outer."""
        layers: list[nn.Module] = [p for p in self.vlm.modules() if isinstance(p, GradientCheckpointingLayer)]
        return layers[::-1]

    def end_token_ids(self) -> set[int]:
        """Ids that end an answer according to the base model's generation settings."""
        end = self.vlm.generation_config.eos_token_id
        return set(end) if isinstance(end, list) else set() if end is None else {end}

    def save_config(self, path: Path) -> None:
        """Write config.json and generation_config.json."""
        self.vlm.config.save_pretrained(path)
        self.vlm.generation_config.save_pretrained(path)
