"""The count that MFU is made of, against what torch counts and against the rule of 6 a parameter and token."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.tiny_families import write_base
from tpo_core.models.flops import cost
from tpo_core.models.tpo import TpoModel


def batch_of(model, examples):
    return model.processor.collate([model.processor.encode(example) for example in examples])


def trains(model, *groups):
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for group in groups:
        for _, parameter in model.groups()[group]:
            parameter.requires_grad_(True)


def counted_by_torch(model, batch):
    """FLOPs of products with weights in one training step, as torch dispatches them."""
    with FlopCounterMode(display=False) as counter:
        losses, _ = model(batch)
        torch.stack(list(losses.values())).sum().backward()
    return counter.get_total_flops()


@pytest.mark.parametrize(
    "groups",
    [("lora",), ("lora", "task_vectors", "region_head"), ("lora", "vision_encoder", "connector", "region_head")],
    ids=["lora", "heads", "all"],
)
def test_the_count_is_most_of_what_torch_counts(make_model, make_example, groups):
    model = make_model(["region"])
    trains(model, *groups)
    batch = batch_of(model, [make_example("region"), make_example("region")])
    ours, theirs = model.flops()(batch), counted_by_torch(model, batch)
    assert 0.7 < ours / theirs < 1.02  # head and connector are a large part of a model this small; under LoRA nothing
    # goes back through the first layer's projections, which is one layer of two here


def test_a_frozen_weight_costs_no_gradient_and_what_nothing_before_trains_costs_no_backward():
    frozen, trained = (torch.nn.Parameter(torch.zeros(3, 5), requires_grad=on) for on in (False, True))
    assert cost([frozen], through=False) == 2 * 15
    assert cost([frozen], through=True) == 4 * 15
    assert cost([trained], through=True) == 6 * 15


def test_heads_alone_send_nothing_back_through_the_model(make_model, make_example):
    model = make_model(["region"])
    batch = batch_of(model, [make_example("region")])
    trains(model, "region_head")
    forward = model.flops()(batch)
    trains(model, "task_vectors")
    there_and_back = model.flops()(batch)
    assert forward < there_and_back < 2 * forward  # the tower stays forward only


def test_padding_and_shared_clips_count_once(make_model, make_example):
    model = make_model(["region"])
    one, long = make_example("region"), make_example("chat")
    flops = model.flops()
    alone = flops(batch_of(model, [one]))
    assert flops(batch_of(model, [one, one])) < 2 * alone  # the same clip is encoded once
    assert batch_of(model, [one, one]).frames_of_clips == batch_of(model, [one]).frames_of_clips
    assert flops(batch_of(model, [long])) > 0


def test_a_mixture_of_experts_is_not_counted(make_model, make_example):
    model = make_model(["region"])
    model.backbone.vlm.config.get_text_config().num_experts = 8
    assert model.flops()(batch_of(model, [make_example("region")])) == 0


def test_frames_that_share_their_patches_are_counted_together(tmp_path, make_example, config):
    path = write_base(tmp_path / "base", "qwen2_5_vl")
    model = TpoModel.from_base(str(path), config.model_copy(update={"backbone": "generic"}), [])
    assert model.backbone.frames_a_group == 2
