"""What a converted VideoChat-TPO consists of: every tensor of our model and of SAM2, without its values.

The sizes are the published ones, or those of a folder that already has our layout. They are not read off the tensors of
a checkpoint, whose shapes do not tell the number of attention heads.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, Sam2VideoConfig, Sam2VideoModel
from transformers.initialization import no_init_weights
from transformers.utils import CONFIG_NAME

from tpo_core.config.model import HEADS
from tpo_core.config.schema import ModelConfig
from tpo_core.errors import TpoError
from tpo_core.heads.cgdetr.head import CgDetrHead
from tpo_core.heads.region import RegionHead
from tpo_core.heads.sam2.frozen import FrozenSam2
from tpo_core.heads.sam2.head import Sam2MaskHead
from tpo_core.models.backbones.videochat2 import VideoChat2
from tpo_core.models.convert.sam2 import hiera_large
from tpo_core.models.source import local_path
from tpo_core.models.task_tokens import TASK_TOKENS, TaskTokens
from tpo_core.models.tpo import SETTINGS, VLM_PREFIX, saved_name
from tpo_core.models.videochat2.config import PUBLISHED_TEXT, VideoChat2Config
from tpo_core.models.videochat2.model import VideoChat2ForConditionalGeneration

PUBLISHED = "OpenGVLab/VideoChat-TPO"
# Clip features as wide as those of InternVideo2-CLIP. Word features are as wide as the language model, in the published
# model too, so that it runs with the task embedding as its only word until a recipe names an encoder of questions.
PUBLISHED_MODEL = {
    "base": PUBLISHED,
    "backbone": "videochat2",
    "temporal": {"decoder": "cg_detr", "cg_detr": {"clip_width": 768}},
    "mask": {"decoder": "sam2"},
}
SAM2_FOLDER = "sam2"
C = TypeVar("C", bound=PreTrainedConfig)
DECODERS = {"temporal": "cg_detr", "mask": "sam2"}


@dataclass(frozen=True)
class Sizes:
    """backbone: with the task tokens in its vocabulary; model: adapters and heads; sam2: what follows the masks."""

    backbone: VideoChat2Config
    model: ModelConfig
    sam2: Sam2VideoConfig

    @classmethod
    def published(cls) -> "Sizes":
        words = PUBLISHED_TEXT["vocab_size"]
        assert isinstance(words, int)
        text = {**PUBLISHED_TEXT, "vocab_size": words + len(TASK_TOKENS)}
        return cls(VideoChat2Config(text_config=text), ModelConfig.model_validate(PUBLISHED_MODEL), hiera_large())

    @classmethod
    def of_folder(cls, uri: str | Path) -> "Sizes":
        """Those of a model in our layout. Raises TpoError when it is none, or has other parts than the published."""
        folder = Path(local_path(str(uri)))
        try:
            settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            model = ModelConfig.model_validate(settings["model"])
            heads = set(settings["heads"])
        except (OSError, ValueError, KeyError, TypeError) as error:  # those of JSON and of pydantic are ValueErrors
            raise TpoError(
                f"{uri} is no model in our layout (no good {SETTINGS}): give the `model` of a run"
            ) from error
        chosen = {"temporal": model.temporal.decoder, "mask": model.mask.decoder}
        if model.backbone != VideoChat2.model_type or heads != set(HEADS) or chosen != DECODERS:
            raise TpoError(
                f"{uri} has not the parts of VideoChat-TPO: it needs the backbone videochat2, the heads "
                f"{', '.join(HEADS)}, model.temporal.decoder cg_detr and model.mask.decoder sam2"
            )
        sam2 = read_config(Sam2VideoConfig, sam2_folder(folder, model))
        return cls(read_config(VideoChat2Config, folder), model, sam2)


def read_config(kind: type[C], folder: str | Path) -> C:
    """The config.json of a folder. Raises TpoError when there is none of that kind; Hugging Face's loader would take
    the defaults, which are other sizes."""
    try:
        model_type = json.loads((Path(folder) / CONFIG_NAME).read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TpoError(f"{folder} has no good {CONFIG_NAME}: give the folder of a {kind.model_type} model") from error
    if model_type != kind.model_type:
        raise TpoError(f"{folder} is a {model_type} model: give the folder of a {kind.model_type} model")
    return kind.from_pretrained(folder)


def sam2_folder(folder: Path, model: ModelConfig) -> str:
    """Where the SAM2 of a model in our layout lies: beside it, or else where its settings say."""
    beside = folder / SAM2_FOLDER
    return str(beside) if beside.is_dir() else local_path(model.mask.sam2.source)


class Layout:
    """model: our tensors by saved name; sam2: those of Sam2VideoModel; all of them on the meta device.

    backbone: without values too, for its configuration and the groups of its parameters.
    """

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        config = sizes.model
        with torch.device("meta"), no_init_weights():
            self.backbone = VideoChat2(VideoChat2ForConditionalGeneration(sizes.backbone))
            self.backbone.add_lora(config.lora)
            hidden, vision = self.backbone.hidden_size, self.backbone.vision_size
            sam2 = Sam2VideoModel(sizes.sam2)
            heads = {
                RegionHead.name: RegionHead.from_config(config, hidden, vision),
                CgDetrHead.name: CgDetrHead.from_config(config, hidden, vision),
                Sam2MaskHead.name: Sam2MaskHead(config.mask.sam2, hidden, FrozenSam2(sam2)),
            }
            tokens = TaskTokens(dict.fromkeys(heads, 0), 0, hidden)
        self.model: dict[str, Tensor] = {
            **{saved_name(VLM_PREFIX + name): value for name, value in self.backbone.vlm.state_dict().items()},
            **{f"task_tokens.{name}": value for name, value in tokens.state_dict().items()},
            **{f"heads.{name}": value for name, value in nn.ModuleDict(heads).state_dict().items()},
        }
        self.sam2: dict[str, Tensor] = sam2.state_dict()

    def group_of(self, name: str) -> str | None:
        """Parameter group of one of our tensors, as `TpoModel.groups` has it."""
        part, _, rest = name.partition(".")
        if part == "task_tokens":
            return "task_vectors"
        return f"{rest.partition('.')[0]}_head" if part == "heads" else self.backbone.group_of(name)
