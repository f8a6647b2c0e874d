"""Packs of published values for VideoChat2, and our model built from them; all sizes come from the packs."""

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file
from torch import Tensor, nn

from tpo_core.models.videochat2.config import VideoChat2Config
from tpo_core.models.videochat2.model import VideoChat2ForConditionalGeneration
from tpo_core.models.videochat2.published import to_ours, to_published

PACKS = Path(__file__).resolve().parents[1] / "golden" / "models"
BACKBONE = (
    "lm.",
    "vision_encoder.",
    "vision_layernorm.",
    "qformer.",
    "query_tokens",
    "extra_query_tokens",
    "project_up.",
)
SMALL_VISION = {"embed_dim": 16, "heads": 2, "blocks_run": 1, "image_size": 32, "patch_size": 16}
SMALL_QFORMER = {
    "hidden_size": 12, "heads": 2, "layers": 1, "intermediate_size": 16, "vocab_size": 9, "max_position_embeddings": 4,
    "query_tokens": 2, "extra_query_tokens": 1,
}  # fmt: skip
SMALL_LLM = {"vocab_size": 11, "hidden_size": 16, "intermediate_size": 16, "layers": 1, "heads": 2, "kv_heads": 1}


class Pack:
    """One pack: its json, weights under published names, and cases."""

    def __init__(self, name: str) -> None:
        self.json: dict[str, Any] = json.loads((PACKS / f"{name}.json").read_text())
        self.config: dict[str, Any] = self.json["config"]
        self.weights = load_file(PACKS / f"{name}.weights.safetensors")
        self.cases = load_file(PACKS / f"{name}.cases.safetensors")

    def close(self, got: Tensor, want: Tensor, of: str = "") -> None:
        tolerance = self.json["tolerance"]
        torch.testing.assert_close(got, want, atol=tolerance[f"{of}atol"], rtol=tolerance[f"{of}rtol"])


def case_of(pack: Pack, name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): value for key, value in pack.cases.items() if key.startswith(f"{name}.")}


def vision_config(sizes: dict[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": sizes["embed_dim"], "num_attention_heads": sizes["heads"], "num_frames": 4, "tubelet_size": 1,
        "num_hidden_layers": sizes["blocks_run"], "intermediate_size": 4 * sizes["embed_dim"], "layer_norm_eps": 1e-6,
        "image_size": sizes["image_size"], "patch_size": sizes["patch_size"],
    }  # fmt: skip


def qformer_config(sizes: dict[str, Any], encoder_width: int) -> dict[str, Any]:
    return {
        "hidden_size": sizes["hidden_size"], "num_hidden_layers": sizes["layers"], "vocab_size": sizes["vocab_size"],
        "num_attention_heads": sizes["heads"], "intermediate_size": sizes["intermediate_size"],
        "max_position_embeddings": sizes["max_position_embeddings"], "encoder_hidden_size": encoder_width,
    }  # fmt: skip


def text_config(sizes: dict[str, Any]) -> dict[str, Any]:
    return {
        "vocab_size": sizes["vocab_size"], "hidden_size": sizes["hidden_size"], "num_hidden_layers": sizes["layers"],
        "intermediate_size": sizes["intermediate_size"], "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"], "rms_norm_eps": 1e-5, "rope_theta": 1e6, "sliding_window": None,
    }  # fmt: skip


def build(
    weights: dict[str, Tensor],
    *,
    vision: dict[str, Any] = SMALL_VISION,
    qformer: dict[str, Any] = SMALL_QFORMER,
    llm: dict[str, Any] = SMALL_LLM,
    attention: str = "sdpa",
) -> VideoChat2ForConditionalGeneration:
    """Our model with the sizes of a pack and its weights; adapters where the pack has them. What the pack does not
    cover is small and random; of what it covers, everything is loaded."""
    config = VideoChat2Config(
        vision_config=vision_config(vision),
        qformer_config=qformer_config(qformer, vision["embed_dim"]),
        text_config=text_config(llm),
        num_query_tokens=qformer["query_tokens"],
        num_extra_query_tokens=qformer["extra_query_tokens"],
        attn_implementation=attention,
    )
    model = VideoChat2ForConditionalGeneration(config)
    if "lora" in llm:
        lora = llm["lora"]
        targets = [name for name in lora["targets"] if name != "lm_head"]
        pattern = rf".*language_model.*\.({'|'.join(targets)})|lm_head"
        inject_adapter_in_model(LoraConfig(r=lora["r"], lora_alpha=lora["alpha"], target_modules=pattern), model)
    ours: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name.startswith(BACKBONE):
            ours |= to_ours(name, tensor)
    result = model.load_state_dict(ours, strict=False)
    assert result.unexpected_keys == []
    covered = {name.split(".")[1] for name in ours}
    assert [name for name in result.missing_keys if name.split(".")[1] in covered] == []
    return model.eval()


def enlarged(pixels_u8: Tensor, size: int) -> Tensor:
    """The packs' rule: (u8 - 128) / 64, every pixel repeated up to `size`; H and W are the last two dimensions."""
    times = size // pixels_u8.shape[-1]
    return ((pixels_u8.float() - 128) / 64).repeat_interleave(times, -1).repeat_interleave(times, -2)


def gradient_of(model: nn.Module, published: str) -> Tensor:
    """The gradient of a parameter of the backbone, by its published name."""
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return to_published(published, gradients.__getitem__)
