"""The model of a recipe without its numbers: every parameter with its shape and group, and what a step would compute
and keep, at no memory. Nothing is fetched.

It is the model's own code, built on torch's meta device; for activations it runs on fake tensors, which have a shape
and no content, so that what autograd keeps for the backward pass is counted and not guessed.
"""

import math
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import Sam2VideoModel
from transformers.modeling_layers import GradientCheckpointingLayer

from tpo_core.config.schema import ModelConfig
from tpo_core.errors import TpoError
from tpo_core.heads.base import TaskHead
from tpo_core.heads.registry import build_head
from tpo_core.heads.sam2.frozen import FrozenSam2
from tpo_core.heads.sam2.head import Sam2MaskHead
from tpo_core.models.backbones.base import Backbone
from tpo_core.models.backbones.generic import Generic
from tpo_core.models.backbones.registry import load_backbone
from tpo_core.models.convert.sam2 import hiera_large
from tpo_core.models.task_tokens import TASK_TOKENS, TaskTokens
from tpo_core.models.tpo import TpoModel
from tpo_core.models.videochat2.vision import position_table
from tpo_core.plan.facts import BASES
from tpo_core.storage.local import to_path
from tpo_core.storage.uri import is_local
from tpo_core.train.stages import select_trainable

FP32, BF16 = 4, 2  # bytes


@dataclass(frozen=True)
class Load:
    """What a micro-batch asks of the model, in the terms of `batch_flops`: tokens that the language model reads, those
    with a label, and the frames of each clip."""

    n_tokens: int
    n_answer_tokens: int
    frames_of_clips: tuple[int, ...]


@dataclass(frozen=True)
class Activations:
    """Bytes kept for the backward pass. row_bytes: of one sample. copy_bytes: of frozen weights in bf16, which autocast
    makes once a pass, however many rows there are. With activation checkpointing both are those of one layer, and
    row_bytes holds the inputs of all layers besides."""

    row_bytes: float
    copy_bytes: float


class Skeleton(TpoModel):
    """A TpoModel on the meta device, without a processor."""

    def __init__(self, config: ModelConfig, backbone: Backbone, heads: Iterable[str]) -> None:
        nn.Module.__init__(self)
        self.config, self.backbone = config, backbone
        built = {name: head_of(name, config, backbone) for name in heads}
        self.heads = nn.ModuleDict(built)
        slots = {name: place for place, name in enumerate(built)}
        self.task_tokens = TaskTokens(slots, len(slots), backbone.hidden_size)

    @classmethod
    def on(cls, backbone: Backbone, config: ModelConfig, heads: Iterable[str], lr: Mapping[str, float]) -> "Skeleton":
        """The model with these heads on a backbone, of which the groups that `lr` names train: as long as no other is
        made on the same backbone. TpoError for a group that it does not have."""
        with torch.device("meta"):
            model = cls(config, backbone, heads)
        select_trainable(model, model.groups(), lr)
        return model

    @property
    def size(self) -> int:
        """Parameters."""
        return sum(param.numel() for param in self.parameters())

    @property
    def trained_size(self) -> int:
        """Parameters that train."""
        return sum(param.numel() for param in self.parameters() if param.requires_grad)

    @property
    def gathered_size(self) -> int:
        """Parameters that a rank holds at once where all are cut into pieces: those of no unit, and the largest two
        units, one at work and one on its way."""
        units = [sum(param.numel() for param in unit.parameters()) for unit in self.sharding_units()]
        return self.size - sum(units) + sum(sorted(units)[-2:])

    def load(self, n_frames: int, text_tokens: int, answer_tokens: int) -> Load:
        """Of one sample."""
        return Load(self.backbone.visual_tokens(n_frames) + text_tokens, answer_tokens, (n_frames,))

    def step_flops(self, load: Load) -> float:
        """Forward and backward, as training counts them for its MFU."""
        count: Callable[[Any], float] = self.flops()
        return count(load)


def backbone_of(config: ModelConfig) -> Backbone:
    """The base of a recipe with its adapters, on the meta device: from its own config.json where it lies on this disk,
    else from the shapes known here. TpoError where they are not."""
    # Checkpointing hides what is kept, and changes no shape; the estimate of it is in `activations`.
    plain = config.model_copy(update={"activation_checkpointing": False, "attn_implementation": "sdpa"})
    with torch.device("meta"), tempfile.TemporaryDirectory() as folder:
        backbone = load_backbone(config_folder(config, folder), plain, weights=False)
        if backbone.model_type == "videochat2":  # whose vocabulary is never padded; those of others are
            backbone.vlm.resize_token_embeddings(len(backbone.embedding_VC) + len(TASK_TOKENS), mean_resizing=False)
        backbone.add_lora(config.lora)
    return backbone


def config_folder(config: ModelConfig, scratch: str) -> str:
    """A folder with the config.json of the base, `scratch` if it is written there."""
    if is_local(config.base) and (to_path(config.base) / "config.json").is_file():
        return str(to_path(config.base))
    # There is one VideoChat2 with Mistral; wherever a recipe keeps it, it has the published sizes.
    name = config.base if config.base in BASES else config.backbone
    if name not in BASES:
        raise TpoError(
            f"the shapes of model.base {config.base!r} are not known here: copy its config.json into a folder and plan"
            f" with model.base=FOLDER, or take one of {', '.join(BASES)}"
        )
    BASES[name]().save_pretrained(scratch)
    return scratch


def head_of(name: str, config: ModelConfig, backbone: Backbone) -> TaskHead:
    """A head; SAM2, which a mask head keeps beside itself, in the sizes of hiera-large."""
    if name == Sam2MaskHead.name and config.mask.decoder == "sam2":
        return Sam2MaskHead(config.mask.sam2, backbone.hidden_size, FrozenSam2(Sam2VideoModel(hiera_large())))
    return build_head(name, config, backbone.hidden_size, backbone.vision_size)


def activations(model: Skeleton, *, n_frames: int, text_tokens: int, answer_tokens: int) -> Activations:
    """What tower, connector and language model keep of a sample in bf16; heads are left out: they look at one vector.

    Rows come on top of each other, and copies of weights do not, so two passes tell them apart.
    """
    tokens = model.backbone.visual_tokens(n_frames) + text_tokens
    parts: dict[str, Callable[[int], Any]] = {
        "tower": partial(run_tower, model.backbone, n_frames),
        "language": partial(run_language, model.backbone, tokens, answer_tokens),
    }
    with on_fake_tensors(model.backbone):
        kept = {
            name: [kept_bytes(model.backbone, partial(run, rows)) for rows in (1, 2)] for name, run in parts.items()
        }
    found = {name: Activations(two - one, 2 * one - two) for name, (one, two) in kept.items()}
    if not model.config.activation_checkpointing:
        return Activations(
            sum(each.row_bytes for each in found.values()), sum(each.copy_bytes for each in found.values())
        )
    layers = {name: count_layers(model.backbone, name) for name in found}
    patches = math.prod(model.backbone.grid_hw) * math.ceil(n_frames / model.backbone.frames_a_group)
    tower_trains = found["tower"].row_bytes > 0
    inputs = layers["language"] * tokens * model.backbone.hidden_size + (
        layers["tower"] * patches * model.backbone.vision_size if tower_trains else 0
    )
    one = [Activations(each.row_bytes / layers[name], each.copy_bytes / layers[name]) for name, each in found.items()]
    return Activations(FP32 * inputs + max(each.row_bytes for each in one), max(each.copy_bytes for each in one))


def count_layers(backbone: Backbone, part: str) -> int:
    """Layers that checkpointing computes again, of the language model or of all else; 1 where there are none."""
    language = set(backbone.vlm.get_submodule(backbone.language_model_name).modules())
    layers = [each for each in backbone.modules() if isinstance(each, GradientCheckpointingLayer)]
    return max(1, sum((each in language) == (part == "language") for each in layers))


def run_tower(backbone: Backbone, n_frames: int, rows: int) -> Any:
    """Tower and connector; generic bases, whose towers take pictures in a dozen ways, are counted without them."""
    if isinstance(backbone, Generic):
        return None
    pixels = torch.zeros(rows, n_frames, 3, backbone.image_size, backbone.image_size)
    return backbone.vlm.get_video_features(pixels)


def run_language(backbone: Backbone, tokens: int, answer_tokens: int, rows: int) -> Any:
    """The language model, and its head at the tokens with a label."""
    embedded = torch.zeros(rows, tokens, backbone.hidden_size, requires_grad=True)
    language = backbone.vlm.get_submodule(backbone.language_model_name)
    states = language(
        inputs_embeds=embedded, attention_mask=torch.ones(rows, tokens, dtype=torch.long), use_cache=False
    )
    return backbone.lm_head(states.last_hidden_state[:, :answer_tokens]).float().log_softmax(-1)


def kept_bytes(backbone: Backbone, run: Callable[[], Any]) -> int:
    """Bytes that autograd keeps of a run under bf16 autocast, parameters left out, what shares a storage once."""
    own = {storage_of(param) for param in backbone.parameters()}
    kept: dict[int, Tensor] = {}  # the tensors themselves, so that no storage is let go and its number given again

    def keep(tensor: Tensor) -> Tensor:
        if storage_of(tensor) not in own:
            kept.setdefault(storage_of(tensor), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        result = run()
    del result
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def storage_of(tensor: Tensor) -> int:
    """A number that tensors share which share their memory."""
    return tensor.untyped_storage()._cdata


@contextmanager
def on_fake_tensors(module: nn.Module) -> Iterator[None]:
    """Inside, a module of meta tensors holds fake ones of the CPU, for which autocast works, and is in training."""
    was_training = module.training
    held: list[tuple[dict[str, Any], str, Any]] = []
    with FakeTensorMode(allow_non_fake_inputs=True):
        for part in module.modules():
            tables: list[tuple[dict[str, Any], Callable[[Tensor], Tensor]]]
            tables = [(part._parameters, fake_parameter), (part._buffers, fake_buffer)]
            for table, make in tables:
                for name, tensor in list(table.items()):
                    if tensor is not None:
                        held.append((table, name, tensor))
                        table[name] = make(tensor)
        module.train()
        try:
            yield
        finally:
            for table, name, tensor in held:
                table[name] = tensor
            module.train(was_training)
            position_table.cache_clear()  # it would hand a table without content to whoever asks next


def fake_parameter(param: Tensor) -> nn.Parameter:
    return nn.Parameter(torch.empty(param.shape, dtype=param.dtype), requires_grad=param.requires_grad)


def fake_buffer(buffer: Tensor) -> Tensor:
    return torch.empty(buffer.shape, dtype=buffer.dtype)
