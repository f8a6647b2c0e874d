"""A tiny random LLaVA-OneVision base on disk, and examples for it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlavaOnevisionConfig, LlavaOnevisionForConditionalGeneration, PreTrainedTokenizerFast

from tpo_core.config.schema import ModelConfig
from tpo_core.data.example import Example
from tpo_core.data.record import Media, Provenance, Sample, Target, TrackEntry, Turn
from tpo_core.data.rle import encode
from tpo_core.models.tpo import TpoModel

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<image>", "<video>"]
WIDTH, HEIGHT, DURATION_S = 40, 30, 8.0
MARKER = {"region": "<box_begin><boxes>", "temporal": "<time_begin><temp>", "mask": "<track_begin><tracking>"}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["user assistant Where is the red ball? Answer: seconds."] * 4, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    fast.chat_template = TEMPLATE
    return fast


def tiny_config(vocab_size: int, tokenizer: PreTrainedTokenizerFast) -> LlavaOnevisionConfig:
    return LlavaOnevisionConfig(
        vision_config={
            "model_type": "siglip_vision_model", "hidden_size": 24, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 2, "image_size": 32, "patch_size": 8,
        },
        text_config={
            "model_type": "qwen2", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": vocab_size,
        },
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )  # fmt: skip


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return tiny_tokenizer()


@pytest.fixture
def make_config(tokenizer: PreTrainedTokenizerFast) -> Callable[[int], LlavaOnevisionConfig]:
    return lambda vocab_size: tiny_config(vocab_size, tokenizer)


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base")
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    vlm = LlavaOnevisionForConditionalGeneration(tiny_config(len(tokenizer), tokenizer))
    vlm.save_pretrained(path)
    tokenizer.save_pretrained(path)
    config = {"image_size": 32, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}
    (path / "preprocessor_config.json").write_text(json.dumps(config))
    return path


@pytest.fixture
def config(base: Path) -> ModelConfig:
    return ModelConfig(
        base=str(base), lora={"rank": 2, "alpha": 4}, temporal={"width": 16, "layers": 1}, mask={"width": 8}
    )


@pytest.fixture
def make_model(base: Path, config: ModelConfig) -> Callable[..., TpoModel]:
    def make(heads: tuple[str, ...] = ("region", "temporal", "mask"), seed: int = 0, **changes: object) -> TpoModel:
        torch.manual_seed(seed)
        return TpoModel.from_base(str(base), config.model_copy(update=changes), heads)

    return make


def targets_of(kind: str, frame_index: list[int]) -> tuple[Target, ...]:
    box = (4.0, 3.0, 20.0, 15.0)
    if kind == "region":
        return (Target("box", box=box),)
    if kind == "temporal":
        return (Target("span", span_s=(2.0, 6.0)),)
    if kind == "mask":
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[3:15, 4:20] = True
        track = [TrackEntry(frame, visible=True, rle=encode(mask)) for frame in frame_index]
        return (Target("track", track=tuple(track)), Target("box", box=box, frame=0))
    return ()


@pytest.fixture
def make_example() -> Callable[..., Example]:
    """(kind, frames=4, question=..., answer=..., seed=0): frames of random pixels, every fourth frame stored."""
    tasks = {"region": "box", "temporal": "span", "mask": "track", "chat": "chat"}

    def make(
        kind: str, frames: int = 4, *, question: str | None = None, answer: str | None = None, seed: int = 0
    ) -> Example:
        given = "Where is the ball at <track_box>?" if kind == "mask" else "Where is the red ball?"
        answer = (f"Answer: {MARKER[kind]} ." if kind in MARKER else "It is red.") if answer is None else answer
        frame_index = [4 * i for i in range(frames)]
        targets = targets_of(kind, frame_index)
        sample = Sample(
            sample_id=f"tiny/train/{kind}-{seed}",
            dataset="tiny",
            split="train",
            task=tasks[kind],
            media=(Media(f"clip-{seed}", "video", WIDTH, HEIGHT, duration_s=DURATION_S),) if frames else (),
            turns=(
                Turn("user", question or given, target_refs=(1,) if kind == "mask" else ()),
                Turn("assistant", answer, target_refs=(0,) if targets else ()),
            ),
            targets=targets,
            provenance=Provenance("tiny.json", 0, kind, "tiny"),
        )
        pixels = np.random.default_rng(seed).integers(0, 256, (frames, HEIGHT, WIDTH, 3), dtype=np.uint8)
        times = (np.arange(frames) + 0.5) * DURATION_S / max(frames, 1)
        return Example(sample, pixels, times, np.array(frame_index, np.int64), WIDTH, HEIGHT, DURATION_S)

    return make
