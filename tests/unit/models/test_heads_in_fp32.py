"""A stage in bf16 computes the language model in bf16, and its heads, to the last layer, in fp32."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass

import pytest
import torch
from torch import Tensor, nn

from tests.unit.models.test_generation import make_it_say
from tests.unit.models.test_published_heads import published, sam2  # noqa: F401 (fixtures)
from tpo_core.train.phase import autocast
from tpo_core.train.shares import loss_of

BEGIN = {"region": "<box_begin>", "temporal": "<time_begin>", "mask": "<track_begin>"}


def bf16():
    """What the loop enters around each forward of such a stage."""
    return autocast(torch.device("cpu"), "bf16")


def floats_of(value: object) -> Iterator[torch.dtype]:
    """The dtype of each tensor of floating point numbers in arguments or results."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value.dtype
    elif is_dataclass(value):
        for field in fields(value):
            yield from floats_of(getattr(value, field.name))
    elif isinstance(value, dict | list | tuple):
        for each in value.values() if isinstance(value, dict) else value:
            yield from floats_of(each)


@contextmanager
def watched(module: nn.Module) -> Iterator[dict[str, set[torch.dtype]]]:
    """By name, inside, what went into and came out of the module and each one below it."""
    seen: dict[str, set[torch.dtype]] = {}

    def note(name: str):
        def hook(module, args, named, result):
            seen.setdefault(name, set()).update(floats_of([args, named, result]))

        return hook

    hooks = [each.register_forward_hook(note(name), with_kwargs=True) for name, each in module.named_modules()]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@pytest.fixture(params=["make_model", "published"])
def model(request):
    """With our own heads, and with the published ones."""
    return request.getfixturevalue(request.param)().train()


@pytest.mark.parametrize("kind", BEGIN)
def test_what_enters_a_head_its_layers_and_its_losses_are_fp32(model, make_example, monkeypatch, kind):
    hidden = model._hidden  # whose last norm gives fp32 here; that of another family may not
    monkeypatch.setattr(model, "_hidden", lambda *given: hidden(*given).bfloat16())
    batch = model.processor.collate([model.processor.encode(make_example(kind, seed=seed)) for seed in (0, 1)])
    with bf16(), watched(model.head(kind)) as seen, watched(model.backbone.vlm) as language_model:
        losses, _ = model(batch)
    assert torch.bfloat16 in set().union(*language_model.values())  # or there is nothing to keep out
    assert seen[""] == {torch.float32}  # hidden vectors, all that the context holds, the terms
    assert {name: dtypes for name, dtypes in seen.items() if dtypes != {torch.float32}} == {}
    terms = {name: value for name, value in losses.items() if loss_of(name) == kind}
    assert terms
    assert {value.dtype for value in terms.values()} == {torch.float32}
    sum(terms.values()).backward()
    assert {each.grad.dtype for each in model.head(kind).parameters() if each.grad is not None} == {torch.float32}


@pytest.mark.parametrize("kind", BEGIN)
def test_a_head_predicts_in_fp32(model, make_example, kind):
    make_it_say(model, BEGIN[kind])
    with bf16(), watched(model.head(kind)) as seen, watched(model.backbone.vlm) as language_model:
        [answer] = model.chat([make_example(kind)], 1)
    assert answer.activated == [kind]
    assert torch.bfloat16 in set().union(*language_model.values())
    assert seen
    assert {name: dtypes for name, dtypes in seen.items() if dtypes != {torch.float32}} == {}
