"""What strategies that cut a model into pieces ask of it."""

import torch


def test_units_are_the_layers_of_both_towers(make_model):
    model = make_model()
    names = {module: name for name, module in model.named_modules()}
    units = [names[unit] for unit in model.sharding_units()]
    assert sorted(units) == [
        *(f"backbone.vlm.model.language_model.layers.{layer}" for layer in range(2)),
        *(f"backbone.vlm.model.vision_tower.encoder.layers.{layer}" for layer in range(2)),
    ]


def test_an_inner_unit_comes_before_an_outer_one(make_model):
    units = make_model().sharding_units()
    for place, unit in enumerate(units):
        assert not any(later in unit.modules() for later in units[place + 1 :])


def test_without_adapters_nothing_is_frozen_or_thawed(make_model):
    model = make_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("layers.0" in name and "lora_" in name)
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    with model.backbone.without_lora():
        inside = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    after = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    assert before == inside == after


def test_without_adapters_it_is_the_base_model(make_model):
    model = make_model().eval()
    ids_BL = torch.tensor([[6, 7, 8]])
    mask_BL = torch.ones_like(ids_BL)

    def last():
        return model.backbone.hidden_states(ids_BL, mask_BL).last_hidden_state

    base = last()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.ones_(parameter)
    assert not torch.allclose(last(), base)
    with model.backbone.without_lora():
        assert torch.equal(last(), base)
    assert not torch.allclose(last(), base)
