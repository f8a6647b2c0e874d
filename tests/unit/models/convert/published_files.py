"""A VideoChat-TPO of tiny sizes under the published names, with random weights."""

import functools
import io
import json
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentencepiece import SentencePieceTrainer
from torch import Tensor

from tests.tiny_sam2 import tiny_config as tiny_sam2_config
from tpo_core.config.schema import ModelConfig
from tpo_core.models.convert.layout import Layout, Sizes
from tpo_core.models.convert.places import constants, places
from tpo_core.models.videochat2.config import VideoChat2Config

WORDS = 100
HEADS = ["region", "temporal", "mask"]


def tiny_sizes(hidden: int = 24) -> Sizes:
    """Of which no two are the same where the published are not."""
    backbone = VideoChat2Config(
        vision_config={
            "hidden_size": 20, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
            "num_frames": 4, "tubelet_size": 1, "image_size": 32, "patch_size": 16, "layer_norm_eps": 1e-6,
        },
        qformer_config={
            "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 20,
            "vocab_size": 9, "max_position_embeddings": 8, "encoder_hidden_size": 20,
        },
        text_config={
            "hidden_size": hidden, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 40, "vocab_size": WORDS + 7, "sliding_window": None,
        },
        num_query_tokens=2,
        num_extra_query_tokens=3,
    )  # fmt: skip
    sizes = {"width": 16, "heads": 2, "sentence_heads": 2, "ffn_width": 28, "queries": 4, "dummies": 3, "prompts": 5}
    model = ModelConfig(
        base="published",
        backbone="videochat2",
        lora={"rank": 2, "alpha": 4},
        temporal={"decoder": "cg_detr", "cg_detr": {"clip_width": 14, **sizes}},
        mask={"decoder": "sam2"},
    )
    return Sizes(backbone, model, tiny_sam2_config())


def write_settings(folder: Path, sizes: Sizes, **changes: object) -> Path:
    """A folder in our layout as far as sizes go."""
    folder.mkdir(parents=True)
    sizes.backbone.save_pretrained(folder)
    sizes.sam2.save_pretrained(folder / "sam2")
    settings = {"format": 2, "heads": HEADS, "model": sizes.model.model_dump(mode="json"), **changes}
    (folder / "tpo.json").write_text(json.dumps(settings))
    return folder


def random_tensors(layout: Layout, dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    torch.manual_seed(0)
    found = {
        name: torch.randn([6 if size is None else size for size in place.shape]).to(dtype)
        for name, place in places(layout).items()
    }
    return found | {
        name: value.to(dtype) if value.is_floating_point() else value for name, value in constants(layout).items()
    }


def write_checkpoint(folder: Path, tensors: dict[str, Tensor], shards: int = 3) -> Path:
    """As published: shards and an index, neighbours in different shards."""
    folder.mkdir(parents=True)
    names = sorted(tensors)
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        save_file({name: tensors[name] for name in names[number::shards]}, folder / file)
        weight_map |= dict.fromkeys(names[number::shards], file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def read_checkpoint(folder: Path) -> dict[str, Tensor]:
    return {name: value for file in folder.glob("*.safetensors") for name, value in load_file(file).items()}


def same_bits(got: dict[str, Tensor], want: dict[str, Tensor]) -> bool:
    """Whether names, dtypes, shapes and bits are the same; unlike values, bits tell NaN from NaN."""
    return got.keys() == want.keys() and all(
        (got[name].dtype, got[name].shape) == (value.dtype, value.shape)
        and torch.equal(got[name].flatten().view(torch.uint8), value.flatten().view(torch.uint8))
        for name, value in want.items()
    )


@functools.cache
def sentencepiece_model(pieces: int = WORDS) -> bytes:
    """A SentencePiece file of so many pieces."""
    words = "[INST] <Video> </Video> [/INST] Where is the red ball? What happens at which timestamp (A) one (B) two."
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([words] * 20),
        model_writer=written,
        vocab_size=pieces,
        model_type="bpe",
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return written.getvalue()
