import pytest
from torch import nn

from tests.unit.train.stub import StubModel, stub_recipe
from tpo_core.config.schema import PhaseConfig
from tpo_core.errors import TpoError
from tpo_core.train.stages import describe_trainable, find_phase, phases_of, plan_phase, select_trainable

STAGE = stub_recipe().stages["vision_task"]


def phase(**fields):
    return PhaseConfig(**{"name": "p", "mixture": {"region": 1}, "steps": 10, "batch_size": 8, **fields})


def test_only_the_groups_with_a_rate_train():
    model = StubModel()
    select_trainable(model, model.groups(), {"region_head": 1e-3})
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    select_trainable(model, model.groups(), {"lora": 1e-3})  # a later stage may freeze what an earlier one trained
    assert all(p.requires_grad == name.startswith("adapter") for name, p in model.named_parameters())


def test_parameters_of_no_group_are_frozen():
    model = StubModel()
    groups = {"lora": model.groups()["lora"]}
    select_trainable(model, groups, {"lora": 1e-3})
    assert not model.head.weight.requires_grad


def test_a_rate_for_a_group_the_model_lacks_is_told():
    model = StubModel()
    with pytest.raises(TpoError, match=r"lr\.mask_head is set but .* it has lora, region_head, vision_encoder"):
        select_trainable(model, model.groups(), {"lora": 1e-3, "mask_head": 1e-3})


def test_a_parameter_in_two_groups_is_a_broken_model():
    param = ("w", nn.Parameter(nn.Linear(1, 1).weight.data))
    with pytest.raises(AssertionError, match="w is in the groups lora and connector"):
        select_trainable(nn.Linear(1, 1), {"lora": [param], "connector": [param]}, {"lora": 1.0})


def test_trainable_share_is_printed_as_arithmetic():
    model = StubModel()
    line = describe_trainable(model, model.groups(), {"region_head": 1e-4})
    assert line == "region_head 5 at 0.0001; 5 of 53 parameters train, the rest is frozen"


def test_steps_come_from_epochs_and_the_counts_of_the_mixture_rounded_up():
    two = phase(mixture={"region": 3, "chat": 1}, steps=None, epochs=3, batch_size=128, micro_batch_size=16)
    plan = plan_phase(STAGE, two, counts={"region": 1000, "chat": 500, "mask": 9999}, world=2)
    assert plan.steps == 36  # 3 x 1500 / 128 = 35.2
    assert plan.warmup_steps == 7  # 0.2 x 36
    assert plan.accumulation == 8
    assert plan.samples == 36 * 128
    assert plan.describe() == (
        "36 steps of 8 micro-batches (region 16, chat 16) over 2 workers = 4608 samples = 3.07 epochs of 1500;"
        " 7 warm-up steps"
    )


def test_a_kind_may_have_micro_batches_of_its_own_size():
    images = phase(
        mixture={"region": 1, "mask": 3}, steps=None, epochs=2, batch_size=8, micro_batch_size=4,
        micro_batch_sizes={"region": 32},
    )  # fmt: skip
    plan = plan_phase(STAGE, images, counts={"region": 300, "mask": 100}, world=2)
    assert plan.sizes == {"region": 32, "mask": 4}
    assert images.samples_per_step == 2 * (32 + 3 * 4) / 4 == 22
    assert (plan.steps, plan.samples) == (37, 37 * 22)  # 2 x 400 / 22 = 36.4


def test_given_steps_are_taken_as_they_are():
    plan = plan_phase(STAGE, phase(steps=10, micro_batch_size=4), counts={"region": 16}, world=1)
    assert (plan.steps, plan.samples, plan.accumulation) == (10, 80, 2)


def test_a_kind_without_samples_is_told_with_what_there_is():
    with pytest.raises(TpoError, match=r"draws from 'mask' but .* \(region 4\): add a source"):
        plan_phase(STAGE, phase(mixture={"mask": 1}, micro_batch_size=4), counts={"region": 4, "mask": 0}, world=1)


def test_phases_run_in_the_order_of_the_recipe_and_are_found_by_name():
    recipe = stub_recipe()
    phases = [phase(name=name, micro_batch_size=4) for name in ("vision_task", "mask")]
    many = recipe.model_copy(
        update={
            "stages": {
                "task_assignment": STAGE,
                "vision_task": STAGE.model_copy(update={"phases": phases}),
            }
        }
    )
    refs = phases_of(many)
    assert [ref.name for ref in refs] == ["task_assignment.all", "vision_task", "vision_task.mask"]
    assert find_phase(many, "vision_task", "mask").phase.name == "mask"
    assert find_phase(many, "task_assignment").phase.name == "all"
    with pytest.raises(TpoError, match="has the phases vision_task, mask: name one"):
        find_phase(many, "vision_task")
    with pytest.raises(TpoError, match="no stage 'multitask': choose one of task_assignment, vision_task"):
        find_phase(many, "multitask")
