"""Tiny random bases of several families, each as the directory that the family's models come in."""

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText, PreTrainedTokenizerFast

QWEN = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
INTERNVL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>"]
GEMMA = [
    "<pad>",
    "<eos>",
    "<bos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
]
LLAVA = ["<unk>", "<s>", "</s>", "<image>", "<video>"]

# Shortened from those of the families: the same parts in the same places.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}IMAGE{% elif part['type'] == 'video' %}VIDEO"
    "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}"
)
GEMMA_TURNS = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<start_of_image>"
    "{% elif part['type'] == 'text' %}{{ part['text'] | trim }}{% endif %}"
    "{% endfor %}<end_of_turn>\n{% endfor %}"
)
# Ends no answer, as that of LLaVA-NeXT-Video.
VICUNA = (
    "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
    "{% for part in message['content'] | selectattr('type', 'ne', 'text') %}"
    "{{ '<' + part['type'] + '>\n' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ part['text'] + ' ' }}{% endfor %}"
    "{% endfor %}"
)

TEXT: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8,
}  # fmt: skip
TOWER: dict[str, Any] = {
    "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2, "image_size": 32,
    "patch_size": 8,
}  # fmt: skip
QWEN_TOWER: dict[str, Any] = {
    "depth": 3, "hidden_size": 24, "intermediate_size": 48, "num_heads": 2, "out_hidden_size": 32, "patch_size": 4,
    "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip


def mrope(**more: object) -> dict[str, object]:
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2], **more}


CLIP = {"model_type": "clip_vision_model", **TOWER}
SIGLIP = {"model_type": "siglip_vision_model", **TOWER}
# name: (special tokens, chat template, end of text, placeholders (image, video), vision and text sections, the rest)
FAMILIES: dict[str, tuple[list[str], str, str, tuple[str, str], dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "llava_next_video": (
        LLAVA, VICUNA, "</s>", ("<image>", "<video>"), CLIP, {"model_type": "llama", **TEXT},
        {"image_seq_length": 16},
    ),
    "qwen2_vl": (
        QWEN, CHATML.replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"), "<|im_end|>",
        ("<|image_pad|>", "<|video_pad|>"),
        {
            "depth": 2, "embed_dim": 24, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4,
            "spatial_merge_size": 2, "temporal_patch_size": 2,
        },
        {"rope_parameters": mrope(), **TEXT}, {},
    ),
    "qwen2_5_vl": (
        QWEN, CHATML.replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"), "<|im_end|>",
        ("<|image_pad|>", "<|video_pad|>"),
        {**QWEN_TOWER, "window_size": 16, "fullatt_block_indexes": [1], "tokens_per_second": 2},
        {"rope_parameters": mrope(), **TEXT}, {},
    ),
    "qwen3_vl": (
        QWEN, CHATML.replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"), "<|im_end|>",
        ("<|image_pad|>", "<|video_pad|>"),
        {**QWEN_TOWER, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1]},
        {"rope_parameters": mrope(mrope_interleaved=True), **TEXT}, {},
    ),
    "qwen3_5": (
        QWEN, CHATML.replace("VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"), "<|im_end|>",
        ("<|image_pad|>", "<|video_pad|>"), {**QWEN_TOWER, "num_position_embeddings": 64},
        {
            **TEXT, "rope_parameters": mrope(mrope_interleaved=True, partial_rotary_factor=1.0),
            "layer_types": ["linear_attention", "full_attention"], "linear_key_head_dim": 8, "linear_value_head_dim": 8,
            "linear_num_key_heads": 2, "linear_num_value_heads": 4,
        },
        {},
    ),
    "internvl": (
        INTERNVL, CHATML.replace("VIDEO", "<video>\n").replace("IMAGE", "<IMG_CONTEXT>\n"), "<|im_end|>",
        ("<IMG_CONTEXT>", "<video>"), {**TOWER, "image_size": [32, 32], "patch_size": [8, 8]},
        {"model_type": "qwen2", **TEXT}, {"image_seq_length": 4},
    ),
    "gemma3": (
        GEMMA, GEMMA_TURNS, "<eos>", ("<image_soft_token>", "<image_soft_token>"), SIGLIP,
        {"model_type": "gemma3_text", "sliding_window": 16, "query_pre_attn_scalar": 8, **TEXT},
        {"mm_tokens_per_image": 4},
    ),
    "llava": (LLAVA, VICUNA, "</s>", ("<image>", "<video>"), CLIP, {"model_type": "llama", **TEXT}, {}),
}  # fmt: skip


def tiny_tokenizer(special: list[str], template: str, end: str) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(["user assistant Where is the red ball? Answer: seconds. Frame"] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=end, pad_token=special[0])
    if "<bos>" in special:
        fast.bos_token = "<bos>"
    fast.chat_template = template
    return fast


def write_base(path: Path, name: str, *, spare: int = 0, tied: bool = False, **changes: object) -> Path:
    """The directory of a tiny model: `spare` rows of the vocabulary beyond the tokenizer's, `changes` to its config."""
    special, template, end, (image, video), vision, text, rest = FAMILIES[name]
    tokenizer = tiny_tokenizer(special, template, end)
    config = CONFIG_MAPPING[name](
        vision_config=vision,
        text_config={**text, "vocab_size": len(tokenizer) + spare, "tie_word_embeddings": tied, "pad_token_id": 0},
        tie_word_embeddings=tied,
        **rest | changes,
    )
    config.image_token_id = tokenizer.convert_tokens_to_ids(image)
    if hasattr(config, "video_token_id"):
        config.video_token_id = tokenizer.convert_tokens_to_ids(video)
    torch.manual_seed(0)
    vlm = AutoModelForImageTextToText.from_config(config)
    with torch.no_grad():
        for key, value in vlm.named_parameters():
            if "mm_input_projection" in key:  # zero at first, which would hide the pixels
                value.normal_(std=0.1)
    vlm.save_pretrained(path)
    tokenizer.save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}))
    return path
