"""A converted model answers, travels and is trained on; what is damaged in its folder is told in one line."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.unit.models.convert.published_files import (
    read_checkpoint,
    same_bits,
    sentencepiece_model,
    write_checkpoint,
)
from tpo_core.config.schema import ModelConfig
from tpo_core.errors import TpoError
from tpo_core.heads.registry import HEADS
from tpo_core.inference.assistant import Assistant
from tpo_core.inference.reply import Request
from tpo_core.models.convert.videochat_tpo import convert, publish
from tpo_core.models.tpo import SETTINGS, TpoModel

FRAMES = np.random.default_rng(0).integers(0, 256, (5, 30, 40, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def converted(tensors, like, tmp_path_factory):
    source = write_checkpoint(tmp_path_factory.mktemp("source") / "published", tensors)
    (source / "tokenizer.model").write_bytes(sentencepiece_model())
    target = tmp_path_factory.mktemp("converted") / "model"
    convert(str(source), str(target), like)
    return target


@pytest.fixture
def copied(converted, tmp_path):
    return shutil.copytree(converted, tmp_path / "model")


def says(model, monkeypatch, token):
    """The language model writes one token for ever."""
    number, head = model.processor.token_id(token), model.backbone.lm_head
    monkeypatch.setattr(
        model.backbone,
        "lm_head",
        lambda hidden: torch.zeros_like(head(hidden)).index_fill(-1, torch.tensor(number), 1.0),
    )


def settings_of(folder):
    return json.loads((folder / SETTINGS).read_text())


def test_published_weights_are_asked_in_the_published_order_about_frames_that_sam2_can_use(converted):
    model = TpoModel.from_pretrained(converted)
    assert model.config.compat_skip_begin_token
    assert model.frames.n_frames == 16
    assert model.frames.short_side_px == model.head("mask").sam.image_size


def test_a_model_that_is_trained_on_is_asked_in_the_order_of_its_training(converted):
    run = ModelConfig(base="base", backbone="videochat2", attn_implementation="eager")
    model = TpoModel.from_pretrained(converted, run=run)
    assert model.config.compat_skip_begin_token  # as it is evaluated
    model.ask_in_order_of(run)
    assert not model.config.compat_skip_begin_token


@pytest.mark.parametrize("name", ["region", "mask"])
def test_clips_images_and_texts_are_answered_together(converted, monkeypatch, name):
    model = TpoModel.from_pretrained(converted).eval()
    says(model, monkeypatch, HEADS[name].begin)
    requests = [Request(FRAMES, "Where?"), Request(FRAMES[0], "Where is it?"), Request(None, "Who are you?")]
    replies = Assistant(model).chat_batch(requests, max_new_tokens=2)
    alone = [Assistant(model).chat_batch([request], max_new_tokens=2)[0] for request in requests]
    for together, one in zip(replies, alone, strict=True):
        assert together.text == HEADS[name].begin * 2
        assert np.allclose(together.boxes, one.boxes, atol=1e-2)
        assert [len(track.masks_THW) for track in together.masks] == [len(one.frame_index)] * len(one.masks)
    assert model.training is False


def test_images_and_texts_need_no_clip_features_and_videos_do(converted, monkeypatch):
    model = TpoModel.from_pretrained(converted).eval()
    says(model, monkeypatch, "<time_begin>")
    for reply in Assistant(model).chat_batch([Request(FRAMES[0], "When?"), Request(None, "When?")], max_new_tokens=1):
        assert all(np.isfinite([moment.start_s, moment.end_s, moment.score]).all() for moment in reply.moments)
    with pytest.raises(TpoError, match=r"clip_width is 14, but the samples carry no clip features: name what makes"):
        Assistant(model).chat(FRAMES, "When?", max_new_tokens=1)


def test_a_video_with_clip_features_is_answered_beside_images_and_texts_as_alone(converted, monkeypatch):
    model = TpoModel.from_pretrained(converted).eval()
    says(model, monkeypatch, "<time_begin>")
    requests = [Request(media, "When?") for media in (FRAMES, FRAMES[:3], FRAMES[0], None)]
    film, short, image, text = (example for example, _ in Assistant(model).shown_and_said(requests, max_new_tokens=0))
    features = np.random.default_rng(1).normal(size=(6, 14)).astype(np.float16)
    film, short = replace(film, features_SD=features), replace(short, features_SD=features[:1])
    examples = [film, short, image, text]
    for together, example in zip(model.chat(examples, 1), examples, strict=True):
        (alone,) = model.chat([example], 1)
        assert torch.allclose(together.first("temporal").spans_s, alone.first("temporal").spans_s, atol=2e-4)
        assert torch.allclose(together.first("temporal").scores, alone.first("temporal").scores, atol=2e-4)
    with pytest.raises(TpoError, match=r"the samples carry no clip features"):
        model.chat([film, replace(short, features_SD=None)], 1)


def test_an_answer_leaves_the_weights_as_published(converted, tensors, tmp_path):
    model = TpoModel.from_pretrained(converted)
    Assistant(model).chat(FRAMES, "Where is the ball?", max_new_tokens=3)
    model.save_pretrained(tmp_path / "again")
    shutil.copytree(converted / "published", tmp_path / "again" / "published")
    publish(str(tmp_path / "again"), str(tmp_path / "back"))
    assert same_bits(read_checkpoint(tmp_path / "back"), tensors)


def test_a_saved_model_names_the_sam2_of_the_place_that_it_was_loaded_from(converted, tmp_path, monkeypatch):
    monkeypatch.chdir(converted.parent)
    TpoModel.from_pretrained("model").save_pretrained(tmp_path / "a")
    assert settings_of(tmp_path / "a")["model"]["mask"]["sam2"]["source"] == str(converted / "sam2")
    monkeypatch.chdir(tmp_path)
    assert list(TpoModel.from_pretrained(tmp_path / "a").heads) == ["region", "temporal", "mask"]


def test_a_remote_model_names_its_remote_sam2(converted, tmp_path, monkeypatch):
    monkeypatch.setattr("tpo_core.models.tpo.local_path", lambda uri: str(converted))
    monkeypatch.setattr("tpo_core.heads.sam2.frozen.fetch", lambda uri: converted / "sam2")
    TpoModel.from_pretrained("s3://bucket/model").save_pretrained(tmp_path / "a")
    assert settings_of(tmp_path / "a")["model"]["mask"]["sam2"]["source"] == "s3://bucket/model/sam2"


@pytest.mark.parametrize("damage", [b'{"a": ', b"[]", b""])
@pytest.mark.parametrize(
    "file",
    ["tpo.json", "fragment_tokenizer.json", "preprocessor_config.json", "tokenizer.model", "sam2/model.safetensors"],
)
def test_a_damaged_file_is_named_in_one_line(copied, file, damage):
    (copied / file).write_bytes(damage)
    with pytest.raises(TpoError, match=file.split("/")[0].split(".")[0]) as caught:
        TpoModel.from_pretrained(copied)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_the_task_tokens_is_refused(copied):
    (copied / "fragment_tokenizer.json").unlink()
    with pytest.raises(TpoError, match=r"has 100 tokens, the embedding 107 rows"):
        TpoModel.from_pretrained(copied)


def test_pixels_of_another_model_are_refused(copied):
    pixels = json.loads((copied / "preprocessor_config.json").read_text())
    (copied / "preprocessor_config.json").write_text(json.dumps({**pixels, "image_size": 48}))
    with pytest.raises(TpoError, match=r"makes images of 48 pixels a side"):
        TpoModel.from_pretrained(copied)


def test_a_trained_model_is_no_base(converted):
    config = TpoModel.from_pretrained(converted).config
    with pytest.raises(TpoError, match=r"the weights of .* lack lm_head\.weight \(15 tensors differ\)"):
        TpoModel.from_base(str(converted), config, [])
