"""What a training micro-batch costs in floating-point operations: the numerator of MFU.

Counted are the products with weights of the language model, its head and the vision tower, each with the positions it
reads (padding left out): 2 a parameter and position forward, 2 backward through activations where something that trains
lies at or before them, 2 for the gradient of a parameter that trains, so none for the frozen base under LoRA (the usual
6 where all trains, arXiv 2001.08361 section 2.1).

Left out, so that the count is rather too low: attention scores (which grow with the square of the length), connector,
heads, recomputed activations, and the second pass of the language model that the kl loss takes.
"""

import math
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from torch import nn

from tpo_core.models.batch import Batch

if TYPE_CHECKING:
    from tpo_core.models.tpo import TpoModel

BEFORE_THE_LANGUAGE_MODEL = {"lora", "task_vectors", "vision_encoder", "connector"}


def batch_flops(model: "TpoModel") -> Callable[[Batch], float]:
    """The count for the micro-batches of one rank, with what trains now. Zero for a mixture of experts, of whose
    parameters a token uses a part that its config does not tell in one way for all families."""
    backbone, groups = model.backbone, model.groups()
    vlm: Any = backbone.vlm
    if any("expert" in name for name in vlm.config.get_text_config().to_dict()):
        return lambda batch: 0.0
    looked_up = {id(part.weight) for part in vlm.modules() if isinstance(part, nn.Embedding)}
    language_model = vlm.get_submodule(backbone.language_model_name)
    inside = [param for param in language_model.parameters() if id(param) not in looked_up]
    tower = [param for _, param in groups.get("vision_encoder", ()) if id(param) not in looked_up]
    trains = {name for name, params in groups.items() if any(param.requires_grad for _, param in params)}
    through = bool(trains & BEFORE_THE_LANGUAGE_MODEL)
    per_token = cost(inside, through=through)
    per_answer_token = cost(vlm.lm_head.parameters(), through=through)
    per_patch = cost(tower, through="vision_encoder" in trains)
    patches = math.prod(backbone.grid_hw)

    def count(batch: Batch) -> float:
        groups_of_frames = sum(math.ceil(frames / backbone.frames_a_group) for frames in batch.frames_of_clips)
        return (
            per_token * batch.n_tokens
            + per_answer_token * batch.n_answer_tokens
            + per_patch * patches * groups_of_frames
        )

    return count


def cost(params: Iterable[nn.Parameter], *, through: bool) -> float:
    """FLOPs a position of products with matrices. through: whether gradients pass through them, or end there."""
    sizes = [(param.numel(), param.requires_grad) for param in params if param.ndim > 1]
    return sum(2.0 * size * (1 + through + trains) for size, trains in sizes)
