"""Which parameters one optimizer step moves in each stage: figure 3 of the paper (arXiv 2412.19326)."""

from collections.abc import Iterator

import pytest
import torch

from tpo_core.config.schema import STAGES, StageConfig, fill_stage_defaults
from tpo_core.models.tpo import TpoModel
from tpo_core.train.loop import LoopConfig, Progress, train
from tpo_core.train.optim import build_optimizer
from tpo_core.train.stages import select_trainable
from tpo_core.train.strategies.replicated import Replicated

KINDS = ("region", "temporal", "mask", "chat")
HEADS = {"region_head", "temporal_head", "mask_head"}
FIGURE_3 = {
    "task_assignment": {"lora"},
    "vision_task": {"lora", "task_vectors", *HEADS},
    "multitask": {"lora", "task_vectors", *HEADS, "vision_encoder", "connector"},
}


class OneOfEach:
    """A micro-batch of each kind."""

    def __init__(self, model: TpoModel, make_example) -> None:
        self.model, self.make_example = model, make_example

    def step(self, step: int) -> Iterator:
        for kind in KINDS:
            examples = [self.make_example(kind, seed=seed) for seed in range(2)]
            yield self.model.processor.collate([self.model.processor.encode(example) for example in examples])


def stage_of(name: str) -> StageConfig:
    """The stage as a recipe gets it that sets no rates."""
    phase = {"name": name, "mixture": dict.fromkeys(KINDS, 1), "steps": 1, "batch_size": 8, "micro_batch_size": 2}
    return StageConfig(**fill_stage_defaults({"stages": {name: {"phases": [phase]}}})["stages"][name])


def step_once(model: TpoModel, stage: StageConfig, make_example) -> dict[str, torch.Tensor]:
    """One optimizer step of the real loop; returns the parameters of before."""
    select_trainable(model, model.groups(), stage.lr)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    config = LoopConfig(
        steps=1, accumulation=len(KINDS), loss_weights=stage.loss_weights, clip_norm=1.0, seed=0, log_every=1,
        max_skipped=0, counts=model.counts,
    )  # fmt: skip
    strategy = Replicated()
    module = strategy.prepare(model, lambda: build_optimizer(model.groups(), stage))
    train(
        module, OneOfEach(model, make_example), lambda step: 1.0, config=config, strategy=strategy,
        progress=Progress(), on_row=lambda row: None, on_step=lambda progress: None,
    )  # fmt: skip
    return before


@pytest.mark.parametrize("stage_name", STAGES)
def test_a_step_moves_what_the_stage_trains_and_nothing_else(make_model, make_example, stage_name):
    stage = stage_of(stage_name)
    model = make_model(heads=tuple(stage.heads))
    before = step_once(model, stage, make_example)
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    group_of = {name: group for group, members in model.groups().items() for name, _ in members}
    assert {group_of.get(name) for name in moved} == FIGURE_3[stage_name]
    asked = {name for name, group in group_of.items() if group in FIGURE_3[stage_name]}
    assert sorted(asked - moved) == []


def test_the_base_of_the_language_model_is_in_no_group(make_model):
    model = make_model()
    grouped = {name for members in model.groups().values() for name, _ in members}
    language = {name for name, _ in model.named_parameters() if "language_model" in name or "lm_head" in name}
    assert {name for name in language if ".lora_" not in name} & grouped == set()
    assert {name for name in language if ".lora_" in name} <= grouped
