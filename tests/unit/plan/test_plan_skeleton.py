"""The model without numbers against the model with them."""

import pytest
import torch

from tests.tiny_families import write_base
from tpo_core.config.load import load_recipe
from tpo_core.errors import TpoError
from tpo_core.models.tpo import TpoModel
from tpo_core.plan.skeleton import (
    Skeleton,
    activations,
    backbone_of,
    kept_bytes,
    on_fake_tensors,
    run_language,
    run_tower,
)

ASKED = {"n_frames": 4, "text_tokens": 24, "answer_tokens": 6}


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("quickstart")


@pytest.fixture(scope="module")
def real(recipe):
    return TpoModel.from_base(recipe.model.base, recipe.model, recipe.model.heads)


def skeleton(recipe, stage):
    chosen = recipe.stages[stage]
    return Skeleton.on(backbone_of(recipe.model), recipe.model, chosen.heads, chosen.lr)


def test_it_has_the_parameters_of_the_model_in_the_same_groups(recipe, real):
    bare = skeleton(recipe, "multitask")
    shapes = {name: tuple(param.shape) for name, param in bare.named_parameters()}
    assert shapes == {name: tuple(param.shape) for name, param in real.named_parameters()}
    assert {group: [name for name, _ in own] for group, own in bare.groups().items()} == {
        group: [name for name, _ in own] for group, own in real.groups().items()
    }
    assert all(param.is_meta for param in bare.parameters())


def test_stages_train_what_they_name(recipe):
    first, last = skeleton(recipe, "task_assignment"), skeleton(recipe, "multitask")
    lora = sum(param.numel() for _, param in first.groups()["lora"])
    assert first.trained_size == lora
    assert last.trained_size == sum(param.numel() for own in last.groups().values() for _, param in own)
    assert last.size > first.size  # by the heads


def test_work_is_counted_as_training_counts_it(recipe, real):
    bare = skeleton(recipe, "multitask")
    for parameter in real.parameters():
        parameter.requires_grad_(False)
    for group in recipe.stages["multitask"].lr:
        for _, parameter in real.groups()[group]:
            parameter.requires_grad_(True)
    load = bare.load(8, 40, 10)
    assert load.n_tokens == real.backbone.visual_tokens(8) + 40
    assert bare.step_flops(load) == real.flops()(load) > 0


def test_fake_tensors_keep_what_real_ones_keep(recipe, real):
    bare = skeleton(recipe, "multitask")
    trains = {name for name, param in bare.named_parameters() if param.requires_grad}
    for name, parameter in real.named_parameters():
        parameter.requires_grad_(name in trains)
    real.train()
    for run in (lambda backbone: run_language(backbone, 30, 5, 2), lambda backbone: run_tower(backbone, 4, 2)):
        with on_fake_tensors(bare.backbone):
            fake = kept_bytes(bare.backbone, lambda run=run: run(bare.backbone))
        true = kept_bytes(real.backbone, lambda run=run: run(real.backbone))
        assert fake == pytest.approx(true, rel=0.03) != 0  # of a real mask it is seen that it hides nothing


def test_afterwards_it_is_as_before(recipe):
    bare = skeleton(recipe, "vision_task")
    before = {name: (id(param), param.requires_grad) for name, param in bare.named_parameters()}
    activations(bare, **ASKED)
    assert {name: (id(param), param.requires_grad) for name, param in bare.named_parameters()} == before


def test_a_frozen_tower_keeps_nothing(recipe):
    frozen, trained = (activations(skeleton(recipe, stage), **ASKED) for stage in ("vision_task", "multitask"))
    longer = activations(skeleton(recipe, "vision_task"), **{**ASKED, "text_tokens": 48})
    assert 0 < frozen.row_bytes < longer.row_bytes
    assert frozen.copy_bytes == pytest.approx(longer.copy_bytes, rel=0.01)
    assert trained.row_bytes > frozen.row_bytes


def test_checkpointing_keeps_less(recipe):
    stage = recipe.stages["multitask"]
    config = recipe.model.model_copy(update={"activation_checkpointing": True})
    spared = activations(Skeleton.on(backbone_of(config), config, stage.heads, stage.lr), **ASKED)
    whole = activations(skeleton(recipe, "multitask"), **ASKED)
    assert 0 < spared.row_bytes < whole.row_bytes
    assert spared.copy_bytes < whole.copy_bytes


def test_the_published_sizes():
    recipe = load_recipe("videochat_tpo")
    stage = recipe.stages["multitask"]
    model = Skeleton.on(backbone_of(recipe.model), recipe.model, stage.heads, stage.lr)
    sizes = {group: sum(param.numel() for _, param in own) for group, own in model.groups().items()}
    assert sizes["lora"] == pytest.approx(42.5e6, rel=0.001)  # as published with the weights
    # 16.2 GB in bf16 as published, with a frozen SAM2-L and parts that never run
    assert 7.5e9 < model.size < 8.1e9
    assert not any(param.device.type != "meta" for param in model.parameters())


def test_a_generic_base_from_its_folder(recipe, tmp_path):
    path = write_base(tmp_path / "base", "qwen2_5_vl")
    config = recipe.model.model_copy(update={"base": str(path), "backbone": "generic", "heads": ["region"]})
    model = Skeleton.on(backbone_of(config), config, ["region"], {"lora": 1e-4, "region_head": 1e-4})
    load = model.load(4, 20, 5)
    assert model.step_flops(load) > 0
    assert load.n_tokens > 20
    kept = activations(model, **ASKED)
    assert min(kept.row_bytes, kept.copy_bytes) > 0


def test_a_base_of_unknown_shape_is_one_line(recipe):
    config = recipe.model.model_copy(update={"base": "s3://models/mine", "backbone": "llava_onevision"})
    with pytest.raises(TpoError, match=r"the shapes of model.base 's3://models/mine' are not known.*model.base=FOLDER"):
        backbone_of(config)
    assert torch.get_default_device().type == "cpu"
