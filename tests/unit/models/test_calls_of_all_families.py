"""Heads are called about clips, images and texts in one batch, in either order of tokens, in any kind of cache."""

import numpy as np
import pytest
import torch

from tests.tiny_families import write_base
from tpo_core.config.schema import ModelConfig
from tpo_core.heads.registry import HEADS
from tpo_core.inference.assistant import Assistant
from tpo_core.inference.reply import Request
from tpo_core.models.tpo import TpoModel

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 30, 40, 3), dtype=np.uint8)
REQUESTS = [
    Request(FRAMES, "Where is the red ball, and what happens to it afterwards?"),
    Request(FRAMES[0], "Where?"),
    Request(None, "Who are you?"),
    Request(FRAMES[:2], "Follow {box}.", box_xyxy=(1.0, 2.0, 20.0, 20.0)),
]
SAID = [head.begin for head in HEADS.values()] + ["a"]


class Scripted:
    """In place of the language head: the next token of a script each time."""

    def __init__(self, model, tokens):
        self.ids = [model.processor.token_id(token) for token in tokens]
        self.rows = model.backbone.embedding_VC.shape[0]

    def start(self):
        self.step = 0

    def __call__(self, hidden):
        logits = torch.zeros(*hidden.shape[:-1], self.rows)
        logits[..., self.ids[self.step % len(self.ids)]] = 1
        self.step += 1
        return logits


@pytest.mark.parametrize("published_order", [False, True])
@pytest.mark.parametrize("family", ["qwen3_5", "gemma3", "qwen2_5_vl", "internvl"])
def test_a_batch_of_everything_is_answered_as_one_by_one(tmp_path, monkeypatch, family, published_order):
    base = write_base(tmp_path, family)
    config = ModelConfig(
        base=str(base),
        backbone="generic",
        lora={"rank": 2, "dropout": 0.0},
        temporal={"width": 16, "layers": 1},
        mask={"width": 8},
        frame_size=32 if family.startswith("qwen") else None,
        compat_skip_begin_token=published_order,
    )
    torch.manual_seed(0)
    model = TpoModel.from_base(str(base), config, list(HEADS)).eval()
    # In the order of training a slot is given behind each indicator, and what the language head says there is dropped.
    script = Scripted(model, SAID if published_order else [each for token in SAID for each in (token, "a")])
    monkeypatch.setattr(model.backbone, "lm_head", script)

    def ask(requests):
        script.start()
        return Assistant(model).chat_batch(requests, max_new_tokens=7)

    together = ask(REQUESTS)
    for reply, request in zip(together, REQUESTS, strict=True):
        (alone,) = ask([request])
        assert reply.text == alone.text
        assert reply.activated == list(HEADS)
        assert np.allclose(reply.boxes, alone.boxes, atol=1e-3)
        spans, others = ([(m.start_s, m.end_s, m.score) for m in each.moments] for each in (reply, alone))
        assert np.allclose(spans, others, atol=1e-3)
        assert [track.masks_THW.shape[0] for track in reply.masks] == [len(reply.frame_index)] * len(alone.masks)
    assert "[no moment]" in together[2].readable
