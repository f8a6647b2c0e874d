"""What is advised when a phase does not fit."""

from types import SimpleNamespace

import pytest

from tpo_core.config.load import load_recipe
from tpo_core.plan.assumptions import Assumptions
from tpo_core.plan.facts import GPUS
from tpo_core.plan.memory import STRATEGIES, Memory
from tpo_core.plan.warn import GIB, misfits

GPU, ASSUMED = GPUS["a100-80"], Assumptions()


def phase(rows=1, **needed_gib):
    memory = {name: Memory(needed_gib[name] * GIB, 0, 0, 0, 0) for name in STRATEGIES}
    return SimpleNamespace(name="multitask", rows=rows, memory=memory)


def told(recipe, *phases):
    return misfits(recipe, list(phases), GPU, ASSUMED)


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("videochat_tpo")


def test_what_fits_is_not_spoken_of(recipe):
    assert told(recipe, phase(ddp=73, zero2=50, zero3=20, fsdp2=20)) == []


def test_the_first_strategy_that_fits(recipe):
    (line,) = told(recipe, phase(ddp=74, zero2=74, zero3=20, fsdp2=20))
    assert line.startswith("multitask does not fit: ddp needs 74 GiB of a GPU, which has 79 GiB less 6 in reserve")
    assert line.endswith("set train.strategy=zero3")


def test_then_checkpointing_then_fewer_rows_then_another_gpu(recipe):
    full = {"ddp": 99, "zero2": 99, "zero3": 99, "fsdp2": 99}
    spared = load_recipe("videochat_tpo", ["model.activation_checkpointing=true"])
    assert told(recipe, phase(rows=4, **full))[0].endswith("set model.activation_checkpointing=true")
    assert "of which each GPU now takes 4" in told(spared, phase(rows=4, **full))[0]
    assert told(spared, phase(**full))[0].endswith("take GPUs with more memory, or a smaller base")


def test_it_is_the_strategy_of_the_recipe_that_counts():
    cut = load_recipe("videochat_tpo", ["train.strategy=fsdp2"])
    assert told(cut, phase(ddp=99, zero2=99, zero3=99, fsdp2=20)) == []
