"""VideoChat2-Mistral as the Hugging Face base model that TPO starts from.

Its tensors are those of VideoChat-TPO without task tokens, heads and SAM2, two parts under other names. Adapters of the
language model are merged into it, W + alpha / r * B A in fp32, rounded once to the dtype of the checkpoint: a base has
none, and TPO adds fresh ones. Every tensor of the Q-Former is kept. (The loader published with VideoChat-TPO drops all
whose name holds "bert.embeddings", and with them the layer norm of the queries.)
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.initialization import no_init_weights

from tpo_core.config.schema import LoraConfig
from tpo_core.errors import TpoError
from tpo_core.models.backbones.videochat2 import VideoChat2
from tpo_core.models.convert.checkpoint import Checkpoint, Header, Wanted, differences, write_shards
from tpo_core.models.convert.layout import read_config
from tpo_core.models.convert.output import progress, written_aside
from tpo_core.models.convert.settings import copy_tokenizer, write_pixels
from tpo_core.models.convert.videochat_tpo import float_dtypes
from tpo_core.models.source import local_path
from tpo_core.models.videochat2.config import PUBLISHED_TEXT, VideoChat2Config
from tpo_core.models.videochat2.model import VideoChat2ForConditionalGeneration
from tpo_core.models.videochat2.published import (
    POSITION_IDS,
    from_videochat2_mistral,
    published_name,
    to_ours,
    to_published,
)
from tpo_core.models.videochat2.tokenizer import MODEL_FILE

BASE_LAYER, DOWN, UP = ".base_layer.weight", ".lora_A.default.weight", ".lora_B.default.weight"


@dataclass(frozen=True)
class Parts:
    """Names in the checkpoint of what makes one of its weights: base, and the two matrices of an adapter if any."""

    base: str
    down: str | None = None
    up: str | None = None


def sort_out(names: Mapping[str, Header]) -> dict[str, Parts]:
    """The parts of each weight, by its VideoChat-TPO name without adapters. Raises TpoError for half an adapter, and
    for an adapter of nothing."""
    known = _distinct((from_videochat2_mistral(name), name) for name in names)
    halves = {name: stored for name, stored in known.items() if name.endswith((DOWN, UP))}
    plain = _distinct((_without_adapter(name), stored) for name, stored in known.items() if name not in halves)
    parts = {}
    for name, stored in plain.items():
        layer = name.removesuffix(".weight")
        parts[name] = Parts(stored, halves.pop(layer + DOWN, None), halves.pop(layer + UP, None))
        if (parts[name].down is None) != (parts[name].up is None):
            half = parts[name].down or parts[name].up
            raise TpoError(f"the checkpoint holds {half} but not the other half of this adapter: download it again")
    for stored in halves.values():
        raise TpoError(f"the checkpoint holds {stored} but no weight that it adapts: download it again")
    return parts


def _without_adapter(name: str) -> str:
    return f"{name.removesuffix(BASE_LAYER)}.weight" if name.endswith(BASE_LAYER) else name


def _distinct(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, stored in pairs:
        if name in found:
            raise TpoError(f"the checkpoint holds one tensor twice, as {found[name]} and {stored}: download it again")
        found[name] = stored
    return found


def merged(parts: Parts, checkpoint: Checkpoint, alpha: float) -> Tensor:
    """A weight with its adapter."""
    base = checkpoint.read(parts.base)
    if parts.down is None or parts.up is None:
        return base
    down_RI, up_OR = checkpoint.read(parts.down).float(), checkpoint.read(parts.up).float()
    return (base.float() + alpha / len(down_RI) * (up_OR @ down_RI)).to(base.dtype)


def backbone(like: str | None) -> VideoChat2:
    """Without values, adapters and task tokens.

    like: a base in the layout of Hugging Face; None: the published sizes.
    """
    if like is None:
        config = VideoChat2Config(text_config=PUBLISHED_TEXT)
    else:
        config = read_config(VideoChat2Config, local_path(like))
    with torch.device("meta"), no_init_weights():
        return VideoChat2(VideoChat2ForConditionalGeneration(config))


def convert_base(source: str, target: str, like: str | None = None) -> list[str]:
    """Write the checkpoint as a base model in the layout of Hugging Face; gives remarks for the user.

    source, target, like: as of `videochat_tpo.convert`. Raises TpoError when the source is not, in full, such a
    checkpoint, or when something is at `target` already.
    """
    checkpoint = Checkpoint.open(source)
    ours = backbone(like)
    parts = sort_out(checkpoint.headers)
    _check(checkpoint, parts, ours)
    alpha = LoraConfig().alpha
    sizes = {name: checkpoint.headers[each.base].size_bytes for name, each in parts.items() if name != POSITION_IDS}
    with written_aside(target) as folder:
        ours.save_config(folder)
        write_pixels(folder, ours.image_size)
        has_tokenizer = copy_tokenizer(checkpoint.folder, folder, rows=len(ours.embedding_VC))
        with progress("convert", sum(sizes.values())) as bar:
            write_shards(folder, sizes, lambda name: to_ours(name, merged(parts[name], checkpoint, alpha)), bar.update)
    return [] if has_tokenizer else [f"{source} has no {MODEL_FILE}: copy that of the base model into {target}"]


def _check(checkpoint: Checkpoint, parts: Mapping[str, Parts], ours: VideoChat2) -> None:
    """Raises TpoError that names the first tensor which is missing, extra, or of another shape or dtype."""
    headers, floats = checkpoint.headers, float_dtypes(checkpoint.headers)
    state: dict[str, Tensor] = ours.vlm.state_dict()
    names = sorted({published_name(name) for name in state})
    wanted = {name: Wanted(tuple(to_published(name, state.__getitem__).shape), floats) for name in names}
    plain = {name: headers[each.base] for name, each in parts.items()}
    if POSITION_IDS in plain:  # not saved by every release of transformers
        qformer: Any = ours.vlm.config.qformer_config
        wanted[POSITION_IDS] = Wanted((1, qformer.max_position_embeddings), ("I64",))
    halves: dict[str, Wanted] = {}
    wrong = differences(plain, wanted)
    if not wrong:
        for name, each in parts.items():
            if each.down is not None and each.up is not None:
                rows, columns = plain[name].shape
                rank = (*headers[each.down].shape, None)[0]
                halves |= {each.down: Wanted((rank, columns), floats), each.up: Wanted((rows, rank), floats)}
        wrong = differences({half: headers[half] for half in halves}, halves)
    if wrong:
        raise TpoError(
            f"{checkpoint.folder} {wrong[0]} ({len(wrong)} tensors differ): download it again, or give --like with a "
            "base of its sizes"
        )
