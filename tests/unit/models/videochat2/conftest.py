"""A tiny random VideoChat2: 32 pixels, four patches a frame, three visual tokens a clip."""

import functools
import io
from collections.abc import Callable
from typing import Any

import pytest
import torch
from sentencepiece import SentencePieceTrainer

from tpo_core.models.task_tokens import TASK_TOKENS
from tpo_core.models.videochat2.config import VideoChat2Config
from tpo_core.models.videochat2.model import VideoChat2ForConditionalGeneration
from tpo_core.models.videochat2.tokenizer import FragmentTokenizer

VOCABULARY = 60


def tiny_config(**changes: Any) -> VideoChat2Config:
    return VideoChat2Config(
        **{
            "vision_config": {
                "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32,
                "num_frames": 4, "tubelet_size": 1, "image_size": 32, "patch_size": 16, "layer_norm_eps": 1e-6,
            },
            "qformer_config": {
                "hidden_size": 12, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24,
                "vocab_size": 9, "max_position_embeddings": 8, "encoder_hidden_size": 16,
            },
            "text_config": {
                "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
                "intermediate_size": 32, "vocab_size": VOCABULARY, "sliding_window": None,
            },
            "num_query_tokens": 2,
            "num_extra_query_tokens": 1,
            **changes,
        }
    )  # fmt: skip


@pytest.fixture
def make_vlm() -> Callable[..., VideoChat2ForConditionalGeneration]:
    """(**changes of the config) -> a model with weights large enough that every input shows in the output."""

    def make(**changes: Any) -> VideoChat2ForConditionalGeneration:
        torch.manual_seed(0)
        model = VideoChat2ForConditionalGeneration(tiny_config(**changes)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        return model

    return make


@pytest.fixture
def vlm(make_vlm: Callable[..., VideoChat2ForConditionalGeneration]) -> VideoChat2ForConditionalGeneration:
    return make_vlm()


@functools.cache
def sentencepiece_model() -> bytes:
    """A tiny SentencePiece file of Mistral's kind: BPE, byte fallback, blanks kept, a dummy blank in front."""
    words = "[INST] <Video> </Video> [/INST] Where is the red ball? What happens at which timestamp (A) one (B) two."
    written = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter([words] * 20),
        model_writer=written,
        vocab_size=340,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    return written.getvalue()


@pytest.fixture
def spm() -> bytes:
    return sentencepiece_model()


@pytest.fixture
def tokenizer(spm: bytes) -> FragmentTokenizer:
    return FragmentTokenizer(spm, added=TASK_TOKENS)
