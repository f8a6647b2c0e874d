"""Bases that do not fit, ways to carry a model out, and bases of families that no table names."""

import json
import logging
from pathlib import Path

import pytest
import torch
from transformers import (
    AyaVisionConfig,
    AyaVisionForConditionalGeneration,
    BertConfig,
    Blip2Config,
    Florence2Config,
    LlavaNextConfig,
    MllamaConfig,
    PreTrainedTokenizerFast,
)

from tests.tiny_families import CLIP, SIGLIP, TEXT, write_base
from tpo_core.config.base import identity
from tpo_core.config.schema import ModelConfig
from tpo_core.errors import TpoError
from tpo_core.models.backbones.base import Backbone
from tpo_core.models.backbones.llava_onevision import LlavaOnevision
from tpo_core.models.backbones.registry import load_backbone
from tpo_core.models.tpo import TpoModel

TEXT_ALONE = (
    "{% for m in messages %}{% for part in m['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endfor %}"
)


def generic(base: Path, **changes: object) -> ModelConfig:
    return ModelConfig(**{"base": str(base), "backbone": "generic", "lora": {"rank": 2, "dropout": 0.0}, **changes})


def refusal(base: Path, **changes: object) -> str:
    with pytest.raises(TpoError) as caught:
        TpoModel.from_base(str(base), generic(base, **changes), [])
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def gemma(tmp_path: Path) -> Path:
    return write_base(tmp_path, "gemma3")


def change(path: Path, **values: object) -> None:
    """Sets entries of a JSON file; None takes one out."""
    table = {**json.loads(path.read_text()), **values}
    path.write_text(json.dumps({key: value for key, value in table.items() if value is not None}))


@pytest.mark.parametrize(
    ("config", "lacks"),
    [
        (Florence2Config(), "encoder-decoder"),
        (BertConfig(), "no image-text-to-text model"),
        (Blip2Config(), r"no \.model"),
        (MllamaConfig(), r"no .*(mm_encoder_outputs|vision_tower)"),
    ],
    ids=["florence2", "bert", "blip2", "mllama"],
)
def test_a_model_without_the_contract_is_told_what_it_lacks(tmp_path, config, lacks):
    config.save_pretrained(tmp_path)
    with pytest.raises(TpoError, match=lacks) as caught:
        load_backbone(str(tmp_path), generic(tmp_path), weights=True)
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_known_config_is_refused(tmp_path):
    assert "no config.json" in refusal(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "no_such_family"}')
    assert "no config.json of a model that transformers knows" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"image_mean": None}, "no image_mean"),
        ({"image_std": [0.5]}, "no image_std of three numbers"),
        ({"image_std": [0.5, 0.0, 0.5]}, "image_std of 0"),
        ({"size": {"height": 48, "width": 48}}, "makes images of 48 pixels a side (size), the model"),
        ({"crop_size": {"height": 16, "width": 16}, "size": {"shortest_edge": 32}}, "16 pixels a side (crop_size)"),
        ({"resample": 5}, "resizes by method 5"),
    ],
)
def test_a_preprocessor_that_does_not_fit_is_refused(gemma, values, told):
    change(gemma / "preprocessor_config.json", **values)
    assert told in refusal(gemma)


def test_absent_weights_and_tokenizers_are_told_in_one_line(gemma):
    (gemma / "tokenizer.json").unlink()
    (gemma / "tokenizer_config.json").unlink()
    assert "has no tokenizer (none of tokenizer.json" in refusal(gemma)
    (gemma / "tokenizer.json").write_text("cut off")
    assert "no tokenizer that can be read" in refusal(gemma)
    (gemma / "model.safetensors").write_bytes(b"cut off")
    assert "no weights that can be read" in refusal(gemma)
    (gemma / "model.safetensors").unlink()
    assert "no weights that can be read" in refusal(gemma)


def test_a_tower_that_wants_more_than_frames_is_refused(tmp_path):
    LlavaNextConfig(
        vision_config=CLIP, text_config={"model_type": "llama", **TEXT, "vocab_size": 300}, image_token_index=3
    ).save_pretrained(tmp_path)
    with pytest.raises(TpoError, match=r"does not take a frame alone .*image_sizes"):
        load_backbone(str(tmp_path), generic(tmp_path), weights=False)


def test_settings_of_a_whole_processor_are_read_too(gemma, make_example):
    settings = json.loads((gemma / "preprocessor_config.json").read_text())
    (gemma / "preprocessor_config.json").unlink()
    assert "no preprocessor_config.json" in refusal(gemma)
    (gemma / "processor_config.json").write_text(json.dumps({"image_processor": {**settings, "resample": 2}}))
    processor = TpoModel.from_base(str(gemma), generic(gemma), []).processor
    assert (processor.image_mean, processor.resample) == ([0.5] * 3, "bilinear")
    assert processor.encode(make_example("chat", 2)).pixels_TCHW.shape == (2, 3, 32, 32)


def test_a_placeholder_that_the_tokenizer_does_not_have_is_refused(gemma):
    change(gemma / "config.json", image_token_id=200, image_token_index=200)
    assert "the config has 200 as placeholder" in refusal(gemma)


def test_a_chat_template_that_shows_no_clip_is_refused(gemma, make_example):
    processor = TpoModel.from_base(str(gemma), generic(gemma), []).processor
    processor.tokenizer.chat_template = TEXT_ALONE
    with pytest.raises(TpoError, match="writes no"):
        processor.encode(make_example("chat", 2))
    processor.tokenizer.chat_template = "{% for m in messages if m['role'] == 'user' %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(TpoError, match="writes no answers"):
        processor.encode(make_example("chat", 2))
    (gemma / "chat_template.jinja").unlink()
    assert "no chat template" in refusal(gemma)


def test_frames_of_another_size_are_for_towers_that_take_any(gemma, tmp_path):
    assert "takes 32 pixels a side alone" in refusal(gemma, frame_size=64)
    qwen = write_base(tmp_path / "qwen", "qwen3_vl")
    assert "set model.frame_size to a multiple" in refusal(qwen, frame_size=36)
    assert load_backbone(str(qwen), generic(qwen, frame_size=64), weights=False).grid_hw == (16, 16)
    assert load_backbone(str(qwen), generic(qwen), weights=False).image_size == 448


def test_an_adapter_on_a_layer_that_is_not_there_is_refused(gemma):
    told = refusal(gemma, lora={"targets": ["q_proj", "qkv_proj"]})
    assert "no linear layer qkv_proj" in told
    assert "gate_proj, k_proj" in told


def test_a_family_with_an_adapter_of_its_own_gets_it(base, tmp_path):
    assert isinstance(load_backbone(str(base), generic(base), weights=False), LlavaOnevision)
    qwen = write_base(tmp_path, "qwen3_vl")
    with pytest.raises(TpoError, match=r"is a qwen3_vl model: model\.backbone llava_onevision"):
        load_backbone(str(qwen), ModelConfig(base=str(qwen)), weights=False)


def test_a_family_that_no_table_names_is_tried_as_llava(make_example, tmp_path):
    """AyaVision: a tower of its own kind of connector, and Cohere's language model."""
    write_base(tmp_path, "llava")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    config = AyaVisionConfig(
        vision_config=SIGLIP, text_config={"model_type": "cohere2", **TEXT, "vocab_size": len(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"), downsample_factor=2, adapter_layer_norm_eps=1e-6,
    )  # fmt: skip
    AyaVisionForConditionalGeneration(config).save_pretrained(tmp_path)
    model = TpoModel.from_base(
        str(tmp_path), generic(tmp_path, temporal={"width": 16, "layers": 1}, mask={"width": 8}), ["region"]
    )
    losses, _ = model(model.processor.collate([model.processor.encode(make_example("region", 2))]))
    assert set(losses) == {"lm", "region/l1", "region/giou"}
    assert all(loss.isfinite() for loss in losses.values())
    assert model.backbone.coder.tokens_per_group == 4
    assert len(model.chat([make_example("chat", 2)], 3)) == 1


def losses_and_gradient(model: TpoModel, example: object) -> tuple[float, torch.Tensor]:
    model.train()
    for members in model.groups().values():
        for _, parameter in members:
            parameter.requires_grad_(True)
    losses, _ = model(model.processor.collate([model.processor.encode(example)]))
    losses["lm"].backward()
    vision = [p.grad for _, p in model.groups()["vision_encoder"]]
    lora = [p.grad for _, p in model.groups()["lora"]]
    return losses["lm"].item(), torch.cat([grad.flatten() for grad in vision + lora])


@pytest.mark.parametrize("family", ["llava_onevision", "gemma3", "qwen2_5_vl", "qwen3_vl"])
@pytest.mark.parametrize("way", [{"activation_checkpointing": True}, {"attn_implementation": "eager"}])
def test_ways_to_carry_a_model_out_change_no_result(base, make_example, tmp_path, family, way):
    base = base if family == "llava_onevision" else write_base(tmp_path, family)
    size = {"frame_size": 32} if family.startswith("qwen") else {}
    results, layers = [], []
    for chosen in ({}, way):
        torch.manual_seed(0)
        model = TpoModel.from_base(str(base), generic(base, **size, **chosen), [])
        layers.append((model.backbone.vlm.is_gradient_checkpointing, model.backbone.vlm.config._attn_implementation))
        results.append(losses_and_gradient(model, make_example("chat", 3)))
    assert layers[0] != layers[1]
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-3)


def test_flash_attention_falls_back_where_it_is_not_installed(gemma, caplog, monkeypatch):
    monkeypatch.setattr("tpo_core.models.backbones.base.is_flash_attn_2_available", lambda: False)
    with caplog.at_level(logging.WARNING):
        backbone = load_backbone(str(gemma), generic(gemma, attn_implementation="flash_attention_2"), weights=False)
    assert backbone.vlm.config._attn_implementation == "sdpa"
    told = [record.message for record in caplog.records if record.name == Backbone.__module__]
    assert told == ["flash_attention_2 is not installed for this device: attention is computed by sdpa"]


def test_the_way_is_no_part_of_a_result_and_is_not_saved_with_it(gemma, tmp_path):
    fast = generic(gemma, activation_checkpointing=True, attn_implementation="eager")
    assert identity(fast) == identity(generic(gemma))
    assert identity(generic(gemma, frame_size=28)) != identity(generic(gemma))
    TpoModel.from_base(str(gemma), fast, []).save_pretrained(tmp_path / "saved")
    assert TpoModel.from_pretrained(tmp_path / "saved").config == generic(gemma)
    again = TpoModel.from_pretrained(tmp_path / "saved", run=fast)
    assert again.config == fast
    assert again.backbone.vlm.is_gradient_checkpointing
