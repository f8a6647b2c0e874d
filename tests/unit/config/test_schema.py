"""Defaults, validators and identity of the recipe."""

from typing import Any, get_args

import pytest
from pydantic import BaseModel, ValidationError

from tpo_core.config.names import nearest, require_known
from tpo_core.config.schema import (
    GROUPS,
    DataConfig,
    GateConfig,
    LoraConfig,
    ModelConfig,
    PhaseConfig,
    Recipe,
    StageConfig,
    TrainConfig,
    identity,
)

SOURCE = {"name": "boxes", "reader": "native", "root": "boxes", "split": "train", "part": "train"}
PHASE = {"name": "mix", "mixture": {"region": 1}, "steps": 2, "batch_size": 8, "micro_batch_size": 4}


def recipe(**changes: Any) -> Recipe:
    raw = {
        "name": "small",
        "data": {"root": "/data", "sources": [SOURCE]},
        "model": {"base": "bases/tiny"},
        "stages": {"vision_task": {"phases": [PHASE]}},
    }
    return Recipe.model_validate({**raw, **changes})


def stage(**changes: Any) -> StageConfig:
    return StageConfig.model_validate({"heads": ["region"], "lr": {"lora": 1e-5}, "phases": [PHASE], **changes})


def models(root: type[BaseModel]) -> set[type[BaseModel]]:
    """All sections below a model."""
    found = {root}
    for field in root.model_fields.values():
        stack = [field.annotation]
        while stack:
            annotation = stack.pop()
            if isinstance(annotation, type) and issubclass(annotation, BaseModel):
                found |= models(annotation)
            stack.extend(get_args(annotation))
    return found


def test_every_field_is_described():
    sections = models(Recipe)
    assert {TrainConfig, GateConfig, PhaseConfig, LoraConfig} <= sections
    bare = [f"{m.__name__}.{n}" for m in sections for n, f in m.model_fields.items() if not f.description]
    assert bare == []


def test_the_threads_of_a_loader_do_not_identify_a_result():
    assert recipe().train.loader_workers == 2
    assert identity(recipe(train={"loader_workers": 0})) == identity(recipe())
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        recipe(train={"loader_workers": -1})


def test_every_section_is_frozen_and_refuses_unknown_keys():
    for model in models(Recipe):
        assert model.model_config["frozen"]
        assert model.model_config["extra"] == "forbid"
    with pytest.raises(ValidationError, match="frozen"):
        recipe().seed = 3


def test_defaults_are_the_published_ones():
    vision = recipe().stages["vision_task"]
    assert (vision.min_lr_fraction, vision.warmup_fraction, vision.weight_decay) == (0.05, 0.2, 0.02)
    assert (vision.grad_clip_norm, vision.betas, vision.eps) == (1.0, (0.9, 0.999), 1e-5)
    lora = recipe().model.lora
    assert (lora.rank, lora.alpha, lora.dropout) == (16, 32.0, 0.1)
    assert "lm_head" in lora.targets
    assert recipe().work_uri == "runs/small"


@pytest.mark.parametrize(
    ("name", "heads", "rates"),
    [
        ("task_assignment", [], {"lora": 2e-5}),
        (
            "vision_task",
            ["region", "temporal", "mask"],
            {"lora": 2e-5, "task_vectors": 1e-4, "region_head": 1e-4, "temporal_head": 1e-4, "mask_head": 1e-4},
        ),
        ("multitask", ["region", "temporal", "mask"], dict.fromkeys(GROUPS, 2e-5)),
    ],
)
def test_a_stage_takes_heads_and_rates_of_its_name(name, heads, rates):
    made = recipe(stages={name: {"phases": [PHASE]}}).stages[name]
    assert (made.heads, made.lr) == (heads, rates)


def test_default_rates_leave_out_heads_the_stage_does_not_have():
    made = recipe(stages={"multitask": {"heads": ["region"], "phases": [PHASE]}}).stages["multitask"]
    assert set(made.lr) == {"lora", "task_vectors", "region_head", "vision_encoder", "connector"}


def test_rates_of_a_recipe_replace_the_table_and_null_freezes():
    written = {"multitask": {"lr": {"lora": 1e-5, "connector": None}, "phases": [PHASE]}}
    assert recipe(stages=written).stages["multitask"].lr == {"lora": 1e-5}


def test_stages_run_in_the_order_of_the_method_whatever_order_they_are_written_in():
    written = {name: {"phases": [PHASE]} for name in ("multitask", "vision_task", "task_assignment")}
    assert list(recipe(stages=written).stages) == ["task_assignment", "vision_task", "multitask"]


def test_a_null_stage_is_left_out():
    assert list(recipe(stages={"vision_task": {"phases": [PHASE]}, "multitask": None}).stages) == ["vision_task"]


def test_loss_weights_are_complete():
    assert stage(loss_weights={"temporal": 0.5}).loss_weights == {
        "lm": 1, "kl": 0, "region": 1, "temporal": 0.5, "mask": 1,
    }  # fmt: skip
    assert stage().loss_weights == {"lm": 1, "kl": 0, "region": 1, "temporal": 1, "mask": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 2, "epochs": 1.0}, "exactly one of steps and epochs"),
        ({"steps": None}, "exactly one of steps and epochs"),
        ({"micro_batch_size": 3}, "micro_batch_size 3 must divide batch_size 8"),
        ({"mixture": {"regions": 1}}, "unknown kind 'regions'; did you mean 'region'"),
        ({"mixture": {}}, "at least 1 item"),
        ({"mixture": {"region": 0}}, "greater than 0"),
        ({"name": "a/b"}, "pattern"),
    ],
)
def test_phase_refuses(changes, message):
    with pytest.raises(ValidationError, match=message):
        PhaseConfig.model_validate({**PHASE, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": ["regoin"]}, "unknown head 'regoin'; did you mean 'region'"),
        ({"heads": ["region", "region"]}, "named twice"),
        ({"lr": {"Lora": 1e-5}}, "unknown lr group 'Lora'; did you mean 'lora'"),
        ({"weight_decay": {"Lora": 0.1}}, "unknown weight_decay group 'Lora'; did you mean 'lora'"),
        ({"weight_decay": {"lora": -0.1}}, "must be a number >= 0, or such numbers by group"),
        ({"weight_decay": "much"}, "must be a number >= 0, or such numbers by group"),
        ({"lr": {"mask_head": 1e-5}}, "lr.mask_head is set but heads does not hold 'mask'"),
        ({"lr": {"task_vectors": 1e-5}, "heads": []}, "no heads"),
        ({"lr": {}}, "at least 1 item"),
        ({"lr": {"lora": -1}}, "greater than 0"),
        ({"phases": [PHASE, PHASE]}, "'mix' is used twice"),
        ({"phases": []}, "at least 1 item"),
        ({"phases": [{**PHASE, "mixture": {"mask": 1}}]}, "phases.mix.mixture holds 'mask' but heads does not"),
        ({"loss_weights": {"box": 1}}, "unknown loss 'box'"),
        ({"betas": [0.9, 1.0]}, "< 1"),
        ({"precision": "fp16"}, "'fp32' or 'bf16'"),
        ({"warmup_fraction": 1.5}, "less than or equal to 1"),
        ({"eps": float("nan")}, "finite"),
    ],
)
def test_stage_refuses(changes, message):
    with pytest.raises(ValidationError, match=message):
        stage(**changes)


def test_a_stage_without_heads_takes_task_samples():
    assert stage(heads=[], phases=[{**PHASE, "mixture": {"mask": 1}}]).heads == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"workers": 3}}, "train.workers 3 must divide stages.vision_task.phases.mix.micro_batch_size 4"),
        ({"train": {"workers": [1, 5]}}, r"train.workers \[1, 5\] must not exceed stages.vision_task.phases.mix.micro"),
        ({"train": {"workers": [2, 1]}}, r"must be \[min, max\] with min <= max"),
        ({"train": {"workers": [0, 1]}}, "must be >= 1"),
        ({"train": {"workers": [1, 2, 3]}}, r"must be a whole number, or \[min, max\]"),
        ({"train": {"workers": True}}, r"must be a whole number, or \[min, max\]"),
        ({"model": {"base": "b", "heads": ["mask"]},
          "stages": {"vision_task": {"heads": ["region"], "phases": [PHASE]}}},
         "stages.vision_task.heads holds 'region' but model.heads does not"),
        ({"stages": {"vison_task": {"heads": [], "lr": {"lora": 1}, "phases": [PHASE]}}}, "did you mean 'vision_task'"),
        ({"data": {"root": "/data"}}, "data.sources is empty"),
        ({"data": {"sources": [SOURCE]}}, "set data.root"),
        ({"data": {"root": "/data", "sources": [SOURCE, SOURCE]}}, "'boxes' is used twice"),
        ({"evaluation": {"parts": ["tests"]}}, "did you mean 'test'"),
        ({"evaluation": {"limit_by_task": {"moments": 3}}}, "did you mean 'moment'"),
        ({"promotion": {"gates": [{"metric": "acc"}]}}, "pattern"),
    ],
)  # fmt: skip
def test_recipe_refuses(changes, message):
    with pytest.raises(ValidationError, match=message):
        recipe(**changes)


@pytest.mark.parametrize("root", ["/data/boxes", "s3://bucket/boxes", "file:///data/boxes"])
def test_an_absolute_source_needs_no_data_root(root):
    assert DataConfig.model_validate({"sources": [{**SOURCE, "root": root}]}).root is None


def test_reader_options_written_as_numbers_become_text():
    assert DataConfig.model_validate({"root": "/d", "sources": [{**SOURCE, "options": {"fps": 2}}]}).sources[
        0
    ].options == {"fps": "2"}


def test_identity_ignores_where_and_how():
    base = recipe()
    moved = recipe(
        work_uri="s3://elsewhere",
        train={"workers": 2, "strategy": "ddp"},
        tracking={"uri": "http://mlflow"},
        data={"root": "/data", "sources": [SOURCE], "reject_budget": 0.5},
        evaluation={"batch_size": 1},
    )
    assert identity(moved) == identity(base)
    assert identity(TrainConfig()) == {}


@pytest.mark.parametrize(
    "changes",
    [{"seed": 1}, {"data": {"root": "/other", "sources": [SOURCE]}}, {"model": {"base": "bases/other"}}],
)
def test_identity_holds_what_is_computed(changes):
    assert identity(recipe(**changes)) != identity(recipe())


def test_identity_holds_every_other_field():
    assert set(identity(recipe())) == {"seed", "data", "model", "stages", "evaluation", "promotion"}
    assert identity(ModelConfig(base="b"))["lora"]["rank"] == 16
    came_late = {"balance", "balance_lr", "balance_alpha"}  # named away from their defaults alone
    assert set(identity(stage())) == set(StageConfig.model_fields) - came_late


def test_nearest_names_one_or_lists_all():
    assert nearest("lorra", ["lora", "connector"]) == "did you mean 'lora'?"
    assert nearest("zzz", ["lora", "connector"]) == "known: lora, connector"
    assert nearest("zzz", []) == "known: none"


def test_require_known_returns_what_it_was_given():
    assert require_known("head", ["mask", "region"], ["region", "mask"]) == ["mask", "region"]


@pytest.mark.parametrize(("workers", "ends"), [(2, (2, 2)), ([1, 3], (1, 3)), ((1, 4), (1, 4))])
def test_a_varying_number_of_workers_need_not_divide_a_micro_batch(workers, ends):
    made = recipe(train={"workers": workers})
    assert (made.train.least_workers, made.train.most_workers) == ends
    assert Recipe.model_validate(made.model_dump(mode="json")) == made
