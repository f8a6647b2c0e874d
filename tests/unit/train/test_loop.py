import math
import random

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.train.stub import STAGE, WIDTH, Run, StubBatch, StubBatches
from tpo_core.train.loop import DivergedError, LoopConfig, seed_step
from tpo_core.train.strategies.replicated import Replicated


class Broken(StubBatches):
    """The samples of some steps are not finite."""

    def __init__(self, steps):
        super().__init__()
        self.steps = steps

    def step(self, step):
        for batch in super().step(step):
            yield (
                StubBatch(batch.kind, batch.sample_ids, batch.inputs_NC * math.nan, batch.targets_N)
                if (step in self.steps)
                else batch
            )


def test_training_lowers_the_loss_and_leaves_frozen_parameters_alone():
    run = Run(steps=60)
    base = run.model.base.weight.clone()
    run.train(StubBatches())
    assert run.rows[-1]["loss/region"] < 0.7 * run.rows[0]["loss/region"]
    assert torch.equal(run.model.base.weight, base)


def test_rows_come_every_few_steps_and_at_the_end():
    run = Run(steps=8).train(StubBatches())
    assert [row["step"] for row in run.rows] == [3, 6, 8]
    assert run.saved == [5, 8]
    assert [row["samples"] for row in run.rows] == [24, 48, 64]


def test_a_row_tells_losses_by_name_and_kind_rates_and_time():
    row = Run(steps=3).train(StubBatches()).rows[0]
    assert row["total"] == pytest.approx((row["kind/region"] + row["kind/chat"]) / 2)
    assert row["total"] == pytest.approx(row["loss/lm"] + 2.0 * row["loss/region"] / 2)  # half the samples are region
    assert {"lr/lora", "lr/region_head", "grad_norm", "samples_per_s", "eta_s", "report/hidden_max"} <= set(row)
    assert 0 <= row["data_wait"] <= 1
    assert row["eta_s"] == 0
    assert row["skipped"] == 0


def test_a_row_tells_how_long_the_slowest_rank_waited_for_data_and_how_much_memory_the_largest_took():
    """All others wait for it, so that what rank 0 sees of its own loader says nothing."""

    class Two(Replicated):
        def everyone(self, value):
            return [value, (2**60, 5.0)]

    rows = Run(strategy=Two(), steps=6).train(StubBatches()).rows
    assert [(row["data_wait_s"], row["memory_bytes"]) for row in rows] == [(5.0, 2**60)] * 2


def test_accumulated_micro_batches_give_the_gradient_of_one_batch():
    class Whole:
        """The same samples as one micro-batch."""

        def step(self, step):
            parts = [batch for batch in HalfRegion().step(step)]
            yield StubBatch(
                "region",
                [i for part in parts for i in part.sample_ids],
                torch.cat([part.inputs_NC for part in parts]),
                torch.cat([part.targets_N for part in parts]),
            )

    class HalfRegion(StubBatches):
        def step(self, step):
            for batch in super().step(step):
                yield StubBatch("region", batch.sample_ids, batch.inputs_NC, batch.targets_N)

    split, whole = Run(steps=1), Run(steps=1, accumulation=1)
    for run in (split, whole):
        run.model.adapter[2].p = 0.0
    split.train(HalfRegion())
    whole.train(Whole())
    assert split.rows[0]["grad_norm"] == pytest.approx(whole.rows[0]["grad_norm"], rel=1e-5)
    for a, b in zip(split.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_gradients_are_clipped_to_the_global_norm():
    run = Run(steps=1, clip_norm=1e-3).train(StubBatches())
    assert run.rows[0]["grad_norm"] > 1e-3  # the row tells the norm before clipping
    moments = [state["exp_avg"].norm() for state in run.optimizer.state.values()]
    assert float(torch.stack(moments).norm()) == pytest.approx(1e-3 * (1 - STAGE.betas[0]), rel=1e-3)


def test_a_step_that_is_not_finite_does_not_move_the_optimizer():
    run = Run(steps=1).train(StubBatches())
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items() if name != "calls"}
    moments = run.optimizer.state[run.model.head.weight]["exp_avg"].clone()
    run.config = LoopConfig(**{**vars(run.config), "steps": 2})
    run.train(Broken({1}))
    assert all(torch.equal(run.model.state_dict()[name], tensor) for name, tensor in before.items())
    assert torch.equal(run.optimizer.state[run.model.head.weight]["exp_avg"], moments)
    assert run.progress.skipped == 1
    assert run.rows[-1]["skipped"] == 1
    assert "total" not in run.rows[-1]  # nothing finite happened in its window


def test_skipped_steps_are_forgiven_when_training_recovers():
    run = Run(max_skipped=2).train(Broken({1, 2, 5, 6}))
    assert (run.progress.step, run.progress.skipped, run.progress.skipped_in_row) == (12, 4, 0)
    assert all(math.isfinite(row["total"]) for row in run.rows)


def test_too_many_skipped_steps_in_a_row_stop_the_run():
    run = Run(max_skipped=2)
    with pytest.raises(DivergedError, match=r"step 5: total nan.*for 3 steps in a row.*lower the learning rates"):
        run.train(Broken({3, 4, 5, 6}))


def test_an_exploding_gradient_with_a_finite_loss_is_caught():
    class Explode(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(WIDTH, WIDTH))

        def forward(self, batch):
            return {"lm": self.w.clamp(min=0).sqrt().sum()}, {}  # sqrt at 0: loss 0, gradient infinite

        def counts(self, batch):
            return {"lm": 1}

        def groups(self):
            return {"lora": list(self.named_parameters())}

    run = Run(max_skipped=0, model=Explode(), stage=STAGE.model_copy(update={"lr": {"lora": 1.0}}))
    with pytest.raises(DivergedError, match="step 0: grad_norm"):
        run.train(StubBatches())
    assert torch.equal(run.model.w, torch.zeros(WIDTH, WIDTH))


def test_randomness_is_a_function_of_seed_step_and_rank():
    def draw(seed, step, rank):
        seed_step(seed, step=step, rank=rank)
        return float(torch.rand(())), float(np.random.rand()), random.random()

    assert draw(1, 5, 0) == draw(1, 5, 0)
    assert len({draw(*key) for key in [(1, 5, 0), (1, 6, 0), (1, 5, 1), (2, 5, 0)]}) == 4


def test_draws_between_steps_change_nothing():
    quiet, noisy = Run(), Run()
    on_row, noisy.on_row = noisy.on_row, lambda row: (on_row(row), torch.rand(7))
    quiet.train(StubBatches())
    noisy.train(StubBatches())
    assert [row["total"] for row in quiet.rows] == [row["total"] for row in noisy.rows]
