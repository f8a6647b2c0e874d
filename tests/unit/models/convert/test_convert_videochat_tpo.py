import json
import shutil

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.unit.models.convert.published_files import (
    read_checkpoint,
    same_bits,
    sentencepiece_model,
    write_checkpoint,
    write_settings,
)
from tpo_core.errors import TpoError
from tpo_core.models.convert.layout import Layout, Sizes
from tpo_core.models.convert.videochat_tpo import convert, publish
from tpo_core.models.task_tokens import TASK_TOKENS
from tpo_core.models.tpo import TpoModel
from tpo_core.storage.commit import is_committed


@pytest.fixture
def ours(published, like, tmp_path):
    assert convert(str(published), str(tmp_path / "ours"), like) == []
    return tmp_path / "ours"


def test_a_converted_checkpoint_loads_strictly_with_every_weight_in_its_place(ours, tensors):
    model = TpoModel.from_pretrained(ours)
    assert model.new_parameters == []
    assert list(model.heads) == ["region", "temporal", "mask"]
    state = model.state_dict()
    assert state.keys() == {
        name if name.startswith(("heads.", "task_tokens.")) else f"backbone.vlm.{name}"
        for name in read_checkpoint(ours)
    }

    def equal(ours, published):
        return torch.equal(state[ours], tensors[published].float())

    assert equal("backbone.vlm.lm_head.base_layer.weight", "lm.base_model.model.lm_head.base_layer.weight")
    assert equal("task_tokens.loc_encoder.2.bias", "loc_encoder.2.bias")
    assert equal("heads.region.loc_decoder.0.weight", "loc_decoder.0.weight")
    assert equal("heads.mask.track_embed.layers.1.weight", "track_embed.layers.1.weight")
    assert equal("heads.mask.track_embed_decode2.layers.1.weight", "track_embed_decode2.layers.1.weight")
    name = "transformer.decoder.layers.0.ca_qpos_proj.weight"
    assert equal(f"heads.temporal.network.{name}", f"cg_model.{name}")
    for token, head in (("box_token", "region"), ("temporal_token", "temporal"), ("track_token", "mask")):
        assert torch.equal(model.task_tokens.vectors[head], tensors[token].float().flatten())
    sam2 = model.heads["mask"].sam.model.state_dict()
    assert torch.equal(
        sam2["prompt_encoder.point_embed.weight"][2],
        tensors["sam.sam_prompt_encoder.point_embeddings.2.weight"].float()[0],
    )


def test_settings_are_those_of_the_published_model(ours, layout):
    model = TpoModel.from_pretrained(ours)
    assert model.frames.n_frames == 16
    assert model.config.lora == layout.sizes.model.lora
    assert model.config.temporal == layout.sizes.model.temporal
    assert model.config.mask.sam2.source == str(ours / "sam2")
    assert model.processor.tokenizer.added == list(TASK_TOKENS)
    assert len(model.processor.tokenizer) == len(model.backbone.embedding_VC)
    assert model.processor.image_mean == [0.485, 0.456, 0.406]
    assert is_committed(ours)
    assert is_committed(ours / "sam2")


def test_the_list_of_parameters_is_the_one_that_a_saved_model_has(ours, tmp_path):
    TpoModel.from_pretrained(ours).save_pretrained(tmp_path / "saved")
    converted, saved = (
        {row["name"]: row for row in json.loads((folder / "parameters.json").read_text())}
        for folder in (ours, tmp_path / "saved")
    )
    assert {name: row["group"] for name, row in converted.items()} == {name: r["group"] for name, r in saved.items()}
    assert {name: row["shape"] for name, row in converted.items()} == {name: r["shape"] for name, r in saved.items()}
    assert {row["dtype"] for row in converted.values()} == {"bfloat16"}
    assert converted["model.language_model.embed_tokens.weight"]["trained"] is False
    assert converted["heads.mask.track_embed.layers.0.bias"]["trained"] is True


def test_the_way_back_is_complete_bit_for_bit(ours, tensors, tmp_path):
    publish(str(ours), str(tmp_path / "back"))
    assert same_bits(read_checkpoint(tmp_path / "back"), tensors)
    index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == tensors.keys()
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in tensors.values())
    assert (tmp_path / "back" / "tokenizer.model").read_bytes() == sentencepiece_model()


def test_bits_that_are_no_numbers_come_back_too(tensors, like, tmp_path):
    odd = dict(tensors)
    odd["box_token"] = torch.full_like(tensors["box_token"], torch.nan)
    odd["track_token"] = torch.zeros_like(tensors["track_token"]).neg()
    odd["vision_encoder.encoder.blocks.0.attn.qkv.weight"] = (
        tensors["vision_encoder.encoder.blocks.0.attn.qkv.weight"].clone().fill_(torch.inf)
    )
    convert(str(write_checkpoint(tmp_path / "odd", odd)), str(tmp_path / "ours"), like)
    publish(str(tmp_path / "ours"), str(tmp_path / "back"))
    assert same_bits(read_checkpoint(tmp_path / "back"), odd)


def test_an_fp32_checkpoint_stays_one(tensors, like, tmp_path):
    wide = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    wide["query_tokens"] = torch.randn(wide["query_tokens"].shape)
    wide["cg_criterion.empty_weight"] = torch.tensor([1.0, 0.1])
    convert(str(write_checkpoint(tmp_path / "wide", wide)), str(tmp_path / "ours"), like)
    publish(str(tmp_path / "ours"), str(tmp_path / "back"))
    assert same_bits(read_checkpoint(tmp_path / "back"), wide)


def test_a_model_that_was_trained_goes_back_in_the_published_dtype(ours, tensors, tmp_path):
    model = TpoModel.from_pretrained(ours)
    with torch.no_grad():
        model.heads["region"].loc_decoder[2].bias.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    model.save_pretrained(tmp_path / "trained")
    with pytest.raises(TpoError, match=r"lacks published/unused.safetensors.*copy the folder published from the model"):
        publish(str(tmp_path / "trained"), str(tmp_path / "back"))
    shutil.copytree(ours / "published", tmp_path / "trained" / "published")
    publish(str(tmp_path / "trained"), str(tmp_path / "back"))
    changed = {**tensors, "loc_decoder.2.bias": torch.tensor([0.1, 0.2, 0.3, 0.4]).bfloat16()}
    assert same_bits(read_checkpoint(tmp_path / "back"), changed)


def test_unused_tensors_are_kept_with_the_reason(ours, tensors):
    file = ours / "published" / "unused.safetensors"
    kept = load_file(file)
    assert {name.split(".")[0] for name in kept} == {
        "project_down", "merge_proj", "temporal_embed", "action_embed", "cg_model",
    }  # fmt: skip
    assert same_bits(kept, {name: tensors[name] for name in kept})
    with safe_open(file, framework="pt") as opened:
        reasons = opened.metadata()
    assert reasons.keys() == kept.keys()
    assert all(reasons.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("box_token"), r"lacks box_token \(1 of \d+ tensors differ\)"),
        (lambda t: t.pop("sam.no_obj_ptr"), r"lacks sam.no_obj_ptr"),
        (lambda t: t.pop("merge_proj.bias"), r"lacks merge_proj.bias"),
        (lambda t: t.pop("qformer.bert.embeddings.position_ids"), r"lacks qformer.bert.embeddings.position_ids"),
        (lambda t: t.update({"extra.weight": torch.zeros(2)}), r"holds extra.weight, which does not belong there"),
        (
            lambda t: t.update({"box_token": t["box_token"].reshape(1, 2, -1).contiguous()}),
            r"holds box_token of shape \(1, 2, 12\) where \(1, 1, 24\) is needed",
        ),
        (
            lambda t: t.update({"sam.no_mem_embed": torch.zeros(1, 1, 5, dtype=torch.bfloat16)}),
            r"holds sam.no_mem_embed of shape \(1, 1, 5\)",
        ),
        (
            lambda t: t.update({"project_down.bias": torch.zeros(3, dtype=torch.bfloat16)}),
            r"holds project_down.bias of shape \(3\) where \(12\) is needed",
        ),
        (lambda t: t.update({"box_token": t["box_token"].float()}), r"holds box_token as F32 where BF16 is needed"),
        (
            lambda t: t.update({"loc_decoder.0.bias": torch.zeros(12, dtype=torch.int8)}),
            r"holds loc_decoder.0.bias as I8 where BF16 is needed",
        ),
        (
            lambda t: t.update({"qformer.bert.embeddings.position_ids": torch.arange(8, dtype=torch.int32)[None]}),
            r"holds qformer.bert.embeddings.position_ids as I32 where I64 is needed",
        ),
        (
            lambda t: t.update({"qformer.bert.embeddings.position_ids": torch.ones(1, 8, dtype=torch.int64)}),
            r"holds qformer.bert.embeddings.position_ids with other values than the published",
        ),
        (
            lambda t: t.update({"cg_criterion.empty_weight": torch.ones(2, dtype=torch.bfloat16)}),
            r"holds cg_criterion.empty_weight with other values",
        ),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_and_leaves_nothing(tensors, like, tmp_path, change, message):
    changed = dict(tensors)
    change(changed)
    source = write_checkpoint(tmp_path / "source", changed)
    with pytest.raises(TpoError, match=message) as told:
        convert(str(source), str(tmp_path / "out" / "ours"), like)
    assert "\n" not in str(told.value)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_other_sizes_than_the_published_need_a_model_that_has_them(published, tmp_path):
    with pytest.raises(TpoError, match=r"give --like with a model of its sizes"):
        convert(str(published), str(tmp_path / "ours"))


def test_what_is_there_is_never_overwritten(published, like, tmp_path):
    (tmp_path / "ours").mkdir()
    (tmp_path / "ours" / "mine.txt").write_text("mine")
    with pytest.raises(TpoError, match=r"ours exists: give a new folder"):
        convert(str(published), str(tmp_path / "ours"), like)
    assert (tmp_path / "ours" / "mine.txt").read_text() == "mine"


def test_a_conversion_that_fails_midway_leaves_nothing(published, like, tmp_path, monkeypatch):
    def full(*args, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tpo_core.models.convert.videochat_tpo.save_hf", full)
    with pytest.raises(TpoError, match=r"disk full while writing"):
        convert(str(published), str(tmp_path / "ours"), like)
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_a_missing_tokenizer_is_told_and_can_be_put_there_later(published, like, tmp_path):
    (published / "tokenizer.model").unlink()
    assert convert(str(published), str(tmp_path / "ours"), like) == [
        f"{published} has no tokenizer.model: copy that of the base model into {tmp_path / 'ours'}"
    ]
    (tmp_path / "ours" / "tokenizer.model").write_bytes(sentencepiece_model())
    model = TpoModel.from_pretrained(tmp_path / "ours")
    assert len(model.processor.tokenizer) == len(model.backbone.embedding_VC)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1", r"tokenizer.model is no SentencePiece file"),
        (sentencepiece_model(90), r"tokenizer.model has 90 tokens, and 7 are added, but the embedding has 107 rows"),
    ],
)
def test_a_tokenizer_that_does_not_fit_is_refused(published, like, tmp_path, content, message):
    (published / "tokenizer.model").write_bytes(content)
    with pytest.raises(TpoError, match=message):
        convert(str(published), str(tmp_path / "ours"), like)


def test_only_models_with_the_published_parts_can_be_published(ours, layout, tmp_path):
    sizes = layout.sizes
    light = sizes.model.model_copy(update={"mask": sizes.model.mask.model_copy(update={"decoder": "light"})})
    for number, changes in enumerate(({"heads": ["region"]}, {"model": light.model_dump(mode="json")})):
        folder = write_settings(tmp_path / f"other{number}", sizes, **changes)
        with pytest.raises(TpoError, match=r"has not the parts of VideoChat-TPO"):
            publish(str(folder), str(tmp_path / "back"))


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("tpo.json", None, r"is no model in our layout \(no good tpo.json\)"),
        ("tpo.json", '{"model": {"base": ""}}', r"is no model in our layout \(no good tpo.json\)"),
        ("config.json", None, r"has no good config.json: give the folder of a videochat2 model"),
        ("config.json", "{", r"has no good config.json"),
        ("config.json", '{"model_type": "qwen2"}', r"is a qwen2 model: give the folder of a videochat2 model"),
        ("sam2/config.json", None, r"sam2 has no good config.json: give the folder of a sam2_video model"),
    ],
)
def test_settings_that_are_missing_or_damaged_are_named(ours, tmp_path, file, text, message):
    (ours / file).unlink()
    if text is not None:
        (ours / file).write_text(text)
    with pytest.raises(TpoError, match=message):
        publish(str(ours), str(tmp_path / "back"))


def test_a_model_of_ours_that_lost_a_tensor_is_not_published(ours, tmp_path):
    (file,) = ours.glob("*.safetensors")
    state = load_file(file)
    del state["heads.region.loc_decoder.0.bias"]
    save_file(state, file)
    (ours / "model.safetensors.index.json").unlink()
    with pytest.raises(TpoError, match=r"lacks heads.region.loc_decoder.0.bias \(1 of \d+ tensors differ\)"):
        publish(str(ours), str(tmp_path / "back"))


def test_unused_tensors_of_another_model_are_refused(ours, tmp_path):
    file = ours / "published" / "unused.safetensors"
    kept = load_file(file)
    kept["merge_proj.bias"] = torch.zeros(2, dtype=torch.bfloat16)
    save_file(kept, file)
    with pytest.raises(TpoError, match=r"merge_proj.bias of shape \(2\).*copy published again"):
        publish(str(ours), str(tmp_path / "back"))


def test_a_folder_that_moved_is_loaded_and_published_with_its_own_sam2(ours, tensors, tmp_path):
    ours.rename(tmp_path / "moved")
    assert TpoModel.from_pretrained(tmp_path / "moved").config.mask.sam2.source == str(tmp_path / "moved" / "sam2")
    publish(str(tmp_path / "moved"), str(tmp_path / "back"))
    assert same_bits(read_checkpoint(tmp_path / "back"), tensors)


def test_published_sizes_are_those_of_the_release():
    layout = Layout(Sizes.published())
    text = layout.sizes.backbone.text_config
    assert (text.vocab_size, text.rms_norm_eps, text.rope_parameters["rope_theta"]) == (32007, 1e-5, 1e6)
    assert text.sliding_window is None
    assert layout.model["heads.temporal.network.input_vid_proj.0.LayerNorm.weight"].shape == (770,)
    assert all(value.is_meta for value in layout.model.values())


def test_target_and_source_can_be_remote(published, tensors, like, bucket, tmp_path):
    convert(str(published), f"{bucket}/models/ours", like)
    assert is_committed(f"{bucket}/models/ours")
    model = TpoModel.from_pretrained(f"{bucket}/models/ours")
    assert model.config.mask.sam2.source.endswith("/sam2")  # below the copy of the folder
    with pytest.raises(TpoError, match=r"models/ours exists"):
        convert(str(published), f"{bucket}/models/ours", like)
    publish(f"{bucket}/models/ours", str(tmp_path / "back"))
    assert same_bits(read_checkpoint(tmp_path / "back"), tensors)
