from itertools import pairwise

import pytest
import torch
from torch import nn

from tests.unit.train.stub import StubModel, stub_recipe
from tpo_core.train.optim import build_optimizer, cosine, lr_factor, set_learning_rates


def test_each_group_has_its_own_rate_and_norms_and_biases_are_not_decayed():
    model = StubModel()
    stage = stub_recipe().stages["vision_task"]
    optimizer = build_optimizer(model.groups(), stage)
    found = {
        (group["group"], group["weight_decay"]): [tuple(p.shape) for p in group["params"]]
        for group in optimizer.param_groups
    }
    assert found == {
        ("lora", 0.02): [(4, 4)],
        ("lora", 0.0): [(4,), (4,), (4,)],  # bias of the linear layer, weight and bias of the norm
        ("region_head", 0.02): [(1, 4)],
        ("region_head", 0.0): [(1,)],
    }
    assert {group["group"]: group["peak_lr"] for group in optimizer.param_groups} == {"lora": 1e-2, "region_head": 5e-2}
    assert {group["eps"] for group in optimizer.param_groups} == {stage.eps}


def test_a_group_may_have_a_decay_of_its_own():
    stage = stub_recipe().stages["vision_task"].model_copy(update={"weight_decay": {"lora": 0.0}})
    decays = {
        (group["group"], group["weight_decay"]) for group in build_optimizer(StubModel().groups(), stage).param_groups
    }
    assert decays == {("lora", 0.0), ("region_head", 0.02), ("region_head", 0.0)}


def test_rates_follow_the_factor_and_come_back_by_group():
    optimizer = build_optimizer(StubModel().groups(), stub_recipe().stages["vision_task"])
    assert set_learning_rates(optimizer, 0.5) == {"lora": 5e-3, "region_head": 2.5e-2}
    assert set_learning_rates(optimizer, 0.1) == {"lora": pytest.approx(1e-3), "region_head": pytest.approx(5e-3)}


def test_schedule_warms_up_linearly_peaks_once_and_ends_at_the_floor():
    factor = cosine(steps=100, warmup_steps=20, floor=0.05)
    values = [factor(step) for step in range(100)]
    assert values[0] == 1 / 20
    assert values[9] == 0.5
    assert values[19] == max(values) == 1
    assert all(later < earlier for earlier, later in pairwise(values[19:]))
    assert values[59] == pytest.approx((1 + 0.05) / 2)  # halfway through the cosine
    assert values[-1] == pytest.approx(0.05)


@pytest.mark.parametrize(("steps", "warmup"), [(1, 0), (1, 1), (2, 1), (5, 5)])
def test_schedule_of_very_short_phases_stays_in_range(steps, warmup):
    values = [lr_factor(step, steps=steps, warmup_steps=warmup, floor=0.1) for step in range(steps)]
    assert all(0.1 <= value <= 1 for value in values)


def test_schedule_has_no_memory():
    factor = cosine(steps=10, warmup_steps=2, floor=0)
    assert [factor(7), factor(3), factor(7)] == [factor(7), factor(3), factor(7)]
    with pytest.raises(AssertionError, match="step 10 outside"):
        factor(10)


def test_a_parameter_without_gradient_is_neither_moved_nor_decayed():
    param = nn.Parameter(torch.ones(2, 2))
    optimizer = build_optimizer({"lora": [("p", param)], "region_head": []}, only_lora())
    optimizer.step()
    assert torch.equal(param, torch.ones(2, 2))


def only_lora():
    return stub_recipe().stages["vision_task"].model_copy(update={"lr": {"lora": 1e-2}})
