import pytest
import torch

from tpo_core.errors import TpoError
from tpo_core.models.videochat2.published import (
    POSITION_IDS,
    from_videochat2_mistral,
    our_names,
    position_ids,
    published_name,
    to_ours,
    to_published,
)

VISION = "vision_encoder.encoder.blocks.3."
OURS = "model.vision_tower.encoder.layer.3."


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("lm.base_model.model.model.embed_tokens.weight", "model.language_model.embed_tokens.weight"),
        ("lm.base_model.model.lm_head.base_layer.weight", "lm_head.base_layer.weight"),
        (
            "lm.base_model.model.model.layers.9.mlp.up_proj.lora_A.default.weight",
            "model.language_model.layers.9.mlp.up_proj.lora_A.default.weight",
        ),
        (
            "vision_encoder.encoder.patch_embed.proj.bias",
            "model.vision_tower.embeddings.patch_embeddings.projection.bias",
        ),
        (f"{VISION}norm1.weight", f"{OURS}layernorm_before.weight"),
        (f"{VISION}norm2.bias", f"{OURS}layernorm_after.bias"),
        (f"{VISION}attn.q_bias", f"{OURS}attention.attention.query.bias"),
        (f"{VISION}attn.v_bias", f"{OURS}attention.attention.value.bias"),
        (f"{VISION}attn.proj.weight", f"{OURS}attention.output.dense.weight"),
        (f"{VISION}mlp.fc1.weight", f"{OURS}intermediate.dense.weight"),
        (f"{VISION}mlp.fc2.bias", f"{OURS}output.dense.bias"),
        ("vision_layernorm.weight", "model.vision_layernorm.weight"),
        ("query_tokens", "model.query_tokens"),
        ("extra_query_tokens", "model.extra_query_tokens"),
        ("project_up.bias", "model.project_up.bias"),
        ("qformer.bert.embeddings.LayerNorm.bias", "model.qformer.embeddings.layernorm.bias"),
        ("qformer.bert.embeddings.word_embeddings.weight", "model.qformer.embeddings.word_embeddings.weight"),
        (
            "qformer.bert.encoder.layer.2.attention.self.query.bias",
            "model.qformer.encoder.layer.2.attention.attention.query.bias",
        ),
        (
            "qformer.bert.encoder.layer.2.crossattention.self.key.weight",
            "model.qformer.encoder.layer.2.crossattention.attention.key.weight",
        ),
        (
            "qformer.bert.encoder.layer.2.attention.output.LayerNorm.weight",
            "model.qformer.encoder.layer.2.attention.output.LayerNorm.weight",
        ),
        (
            "qformer.bert.encoder.layer.2.output_query.dense.weight",
            "model.qformer.encoder.layer.2.output_query.dense.weight",
        ),
    ],
)
def test_names_go_both_ways(published, ours):
    assert our_names(published) == (ours,)
    assert published_name(ours) == published


def test_the_fused_rows_are_query_key_value_and_come_back():
    name, rows = f"{VISION}attn.qkv.weight", torch.arange(18.0).view(9, 2)
    ours = to_ours(name, rows)
    assert list(ours) == [f"{OURS}attention.attention.{part}.weight" for part in ("query", "key", "value")]
    assert torch.equal(ours[f"{OURS}attention.attention.key.weight"], rows[3:6])
    assert torch.equal(to_published(name, ours.__getitem__), rows)
    assert {published_name(each) for each in ours} == {name}


def test_the_constant_is_counted_not_kept():
    assert to_ours(POSITION_IDS, position_ids(5)) == {}
    assert position_ids(3).tolist() == [[0, 1, 2]]
    with pytest.raises(TpoError, match=r"make it with position_ids"):
        to_published(POSITION_IDS, {}.__getitem__)


@pytest.mark.parametrize(
    "name", ["cg_model.query_embed.weight", "box_token", "project_down.weight", "sam.no_mem_embed"]
)
def test_names_of_other_parts_are_refused(name):
    with pytest.raises(TpoError, match=r"no tensor of the VideoChat2 backbone"):
        to_ours(name, torch.zeros(1))
    with pytest.raises(TpoError, match=r"no tensor of the VideoChat2 backbone"):
        published_name(name)


def test_videochat2_mistral_calls_two_parts_otherwise():
    assert from_videochat2_mistral("mistral_proj.weight") == "project_up.weight"
    name = "mistral_model.base_model.model.model.norm.weight"
    assert from_videochat2_mistral(name) == "lm.base_model.model.model.norm.weight"
    assert from_videochat2_mistral("qformer.bert.embeddings.LayerNorm.bias") == "qformer.bert.embeddings.LayerNorm.bias"
