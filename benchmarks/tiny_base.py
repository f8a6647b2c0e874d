"""A random LLaVA-OneVision base of a chosen size, and samples of each kind for it: input of models.py and train.py."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    LlavaOnevisionConfig,
    LlavaOnevisionForConditionalGeneration,
    PreTrainedTokenizerFast,
    Sam2VideoConfig,
    Sam2VideoModel,
)

from tpo_core.data import rle
from tpo_core.data.example import Example
from tpo_core.data.instructions import render
from tpo_core.data.record import Media, Provenance, Sample, Target, TrackEntry, Turn

TASKS = {"region": "box", "temporal": "span", "mask": "mask"}
FRAMES = {"region": 1, "temporal": 8, "mask": 8}
SIDE_PX, DURATION_S = 224, 16.0
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
SIZES = {  # width and layers of the language model, of the tower
    "small": (512, 8, 384, 6),
    "wide": (512, 8, 768, 12),
    "base": (896, 24, 768, 12),
}


def write_base(folder: Path, size: str) -> Path:
    """Writes model, tokenizer and preprocessor in the Hugging Face layout; returns the folder."""
    width, layers, vision_width, vision_layers = SIZES[size]
    tokenizer = _tokenizer()
    ids = tokenizer.convert_tokens_to_ids
    config = LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": vision_width, "intermediate_size": 4 * vision_width,
            "num_hidden_layers": vision_layers, "num_attention_heads": vision_width // 64, "image_size": SIDE_PX,
            "patch_size": 16,
        },
        text_config={
            "model_type": "qwen2", "hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers,
            "num_attention_heads": width // 64, "num_key_value_heads": max(1, width // 448), "vocab_size": 32_000,
        },
        image_token_index=ids("<image>"), video_token_index=ids("<video>"), vision_feature_layer=-1,
        vision_feature_select_strategy="full", tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    LlavaOnevisionForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    preprocessor = {"image_size": SIDE_PX, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(preprocessor))
    return folder


def write_sam2(folder: Path) -> Path:
    """A random SAM2 video model with the prompt encoder of the published one and a small image encoder, which training
    does not run."""
    backbone = {
        "model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1,
        "blocks_per_stage": [1, 1, 1, 1], "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 1, 1, 1], "window_size_per_stage": [8, 4, 16, 8],
        "global_attention_blocks": [3],
    }  # fmt: skip
    vision = {"model_type": "sam2_vision_model", "backbone_config": backbone, "backbone_channel_list": [64, 32, 16, 8]}
    Sam2VideoModel(Sam2VideoConfig(vision_config=vision)).save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([" ".join(render(task, "the red ball", "0")) for task in TASKS.values()], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    return fast


def examples_of(kind: str, count: int) -> list[Example]:
    """Samples of a kind on random frames, each on a clip of its own."""
    rng = np.random.default_rng(0)
    return [_example(kind, number, rng) for number in range(count)]


def _example(kind: str, number: int, rng: np.random.Generator) -> Example:
    task, count = TASKS[kind], FRAMES[kind]
    mask = np.zeros((SIDE_PX, SIDE_PX), bool)
    mask[40:120, 60:160] = True
    target = {
        "region": Target("box", box=(60.0, 40.0, 160.0, 120.0)),
        "temporal": Target("span", span_s=(4.0, 9.0)),
        "mask": Target(
            "mask", track=tuple(TrackEntry(frame, visible=True, rle=rle.encode(mask)) for frame in range(count))
        ),
    }[kind]
    question, answer = render(task, "the red ball", str(number))
    sample = Sample(
        sample_id=f"{kind}-{number}",
        dataset="bench",
        split="train",
        task=task,
        media=(Media(f"clip-{number}", "video", SIDE_PX, SIDE_PX, duration_s=DURATION_S),),
        turns=(Turn("user", question), Turn("assistant", answer, target_refs=(0,))),
        targets=(target,),
        provenance=Provenance(source_file="bench", row=number, native_id=str(number), reader="bench"),
    )
    frames = rng.integers(0, 256, (count, SIDE_PX, SIDE_PX, 3), np.uint8)
    times_s = (np.arange(count) + 0.5) * DURATION_S / count
    return Example(sample, frames, times_s, np.arange(count), SIDE_PX, SIDE_PX, DURATION_S)
