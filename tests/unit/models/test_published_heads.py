"""The published heads inside the whole model: CG-DETR for moments, SAM2 for masks."""

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_sam2 import tiny_sam2
from tests.unit.models.test_generation import make_it_say
from tpo_core.config.model import CgDetrConfig, MaskConfig, Sam2MaskConfig, TemporalConfig
from tpo_core.models.tpo import TpoModel

WIDTH, HEIGHT = 40, 30  # of the examples' media
CG_DETR = CgDetrConfig(width=8, heads=2, sentence_heads=2, ffn_width=16, queries=4, dummies=3, prompts=2)


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sam2")
    tiny_sam2().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def published(make_model, sam2):
    def make(**sam2_options) -> TpoModel:
        return make_model(
            temporal=TemporalConfig(decoder="cg_detr", cg_detr=CG_DETR),
            mask=MaskConfig(decoder="sam2", sam2=Sam2MaskConfig(source=sam2, **sam2_options)),
        )

    return make


def batch_of(model, examples):
    return model.processor.collate([model.processor.encode(example) for example in examples])


@pytest.mark.parametrize("pixel_weight", [0.0, 1.0])
def test_a_batch_of_each_kind_trains_its_head_and_the_adapters(published, make_example, pixel_weight):
    model = published(pixel_weight=pixel_weight).train()
    for kind in ("region", "temporal", "mask"):
        model.zero_grad()
        losses, report = model(batch_of(model, [make_example(kind, seed=seed) for seed in (0, 1)]))
        sum(losses.values()).backward()
        grads = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters() if parameter.grad is not None)
        assert {name for name in grads if name.startswith("heads.")} == {
            name for name, _ in model.named_parameters() if name.startswith(f"heads.{kind}.")
        }
        assert any(".lora_" in name for name in grads)
        assert f"task_tokens.vectors.{kind}" in grads
    assert ("mask/pixel_bce" in report) == (pixel_weight > 0)


def test_frames_travel_only_where_sam2_looks_at_them(published, make_example):
    for pixel_weight, kept in ((0.0, False), (1.0, True)):
        model = published(pixel_weight=pixel_weight)
        assert (batch_of(model, [make_example("mask")]).stored_frames is not None) == kept
        asked = model.processor.collate([model.processor.encode(make_example("mask"), train=False)])
        assert asked.stored_frames is not None


def test_a_call_gives_masks_of_the_media_on_every_stored_frame(published, make_example):
    model = published()
    make_it_say(model, "<track_begin>")
    examples = [make_example("mask", 3), make_example("mask", 5, seed=1)]
    together = [answer.first("mask") for answer in model.chat(examples, 1)]
    for example, found in zip(examples, together, strict=True):
        assert found.masks_THW.shape == (len(example.frame_index), HEIGHT, WIDTH)
        alone = model.chat([example], 1)[0].first("mask")
        assert (alone.masks_THW != found.masks_THW).float().mean() < 0.01


def test_the_given_box_may_prompt_sam2_in_place_of_the_language_model(published, make_example):
    model = published(box_prompt="given")
    make_it_say(model, "<track_begin>")
    example = make_example("mask", 2)
    before = model.chat([example], 1)[0].first("mask")
    with torch.no_grad():
        for parameter in model.heads["mask"].parameters():
            parameter.add_(1.0)
    after = model.chat([example], 1)[0].first("mask")
    assert torch.equal(before.masks_THW, after.masks_THW)


def test_a_saved_model_holds_nothing_of_sam2_and_answers_alike(published, make_example, tmp_path):
    model = published()
    model.save_pretrained(tmp_path)
    names = {name for name in load_file(tmp_path / "model.safetensors") if name.startswith("heads.mask.")}
    assert {name.split(".")[2] for name in names} == {"track_embed", "track_embed_decode2"}
    loaded = TpoModel.from_pretrained(tmp_path)
    for made in (model, loaded):
        make_it_say(made, "<track_begin>")
    one, other = (made.chat([make_example("mask", 2)], 1)[0].first("mask") for made in (model, loaded))
    assert torch.equal(one.masks_THW, other.masks_THW)
