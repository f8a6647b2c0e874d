"""Balancers: what they aim at, that their state is in the checkpoint, and that a resumed run goes on exactly."""

import json
import math
from dataclasses import asdict

import pytest
import torch
from torch import nn

from tests.unit.train.checkpoints.made import comparable
from tests.unit.train.in_process import phase_job, run_phase_in_process
from tests.unit.train.stub import Run, StubBatches, StubModel, build_stub
from tpo_core.config.load import load_recipe
from tpo_core.errors import TpoError
from tpo_core.train.balance import Fixed, GradNorm, Uncertainty, make_balance
from tpo_core.train.checkpoints.manifest import Manifest, folder_name
from tpo_core.train.recorder import read_history
from tpo_core.train.rows import Progress
from tpo_core.train.shares import Shares

WEIGHTS = {"lm": 1.0, "kl": 0.0, "region": 2.0}


def test_uncertainty_settles_where_each_loss_has_the_same_share():
    """The minimum of exp(-s) w loss + s is at exp(-s) = 1 / (w loss)."""
    balance, state = Uncertainty(WEIGHTS, rate=0.1), {}
    assert balance.factors(state) == {}
    for _ in range(400):
        balance.update(state, {"lm": 4.0, "region": 0.25, "kl": 3.0}, world=1)
    assert balance.factors(state) == pytest.approx({"lm": 1 / 4, "region": 1 / (2 * 0.25)}, rel=1e-3)


def test_uncertainty_follows_the_gradient_of_its_total():
    s, weight, loss, rate = torch.tensor(0.0, requires_grad=True), 2.0, 0.3, 0.05
    (torch.exp(-s) * weight * loss + s).backward()
    state = {}
    Uncertainty(WEIGHTS, rate).update(state, {"region": loss}, world=1)
    assert state["log_variance"]["region"] == pytest.approx(-rate * s.grad.item())


def test_uncertainty_takes_a_huge_loss_in_steps_and_leaves_what_is_absent():
    state = {"log_variance": {"lm": 0.5}}
    Uncertainty(WEIGHTS, rate=0.1).update(state, {"region": 1e9}, world=1)
    assert state["log_variance"] == pytest.approx({"lm": 0.5, "region": 0.1})


def test_uncertainty_of_a_loss_that_stays_zero_stays_a_number():
    balance, state = Uncertainty(WEIGHTS, rate=1.0), {}
    for _ in range(1000):
        balance.update(state, {"region": 0.0}, world=1)
    assert balance.factors(state) == {"region": pytest.approx(math.exp(10))}


class Pair(nn.Module):
    """Two losses on one shared parameter, whose gradients there are `scales`."""

    def __init__(self, scales):
        super().__init__()
        self.shared, self.scales = nn.Parameter(torch.zeros(2)), scales

    def losses(self):
        return {name: scale * (self.shared.sum() + 1.0) for name, scale in self.scales.items()}


def watch(balance, losses):
    shares = Shares(WEIGHTS, counts={("region", name): 1.0 for name in losses}, fractions={"region": 1.0}, samples={},
                    tokens=0, flops=0.0)  # fmt: skip
    balance.watch(shares, "region", losses)


def test_gradnorm_brings_the_gradients_to_one_norm():
    pair = Pair({"lm": 9.0, "region": 0.5})
    balance, state = GradNorm(WEIGHTS, rate=0.05, alpha=1.5, shared=[pair.shared]), {}
    for _ in range(400):
        watch(balance, pair.losses())
        balance.update(state, {"lm": 9.0, "region": 0.5}, world=1)
    factors = balance.factors(state)
    assert factors["lm"] * WEIGHTS["lm"] * 9.0 == pytest.approx(factors["region"] * WEIGHTS["region"] * 0.5, rel=0.05)
    assert sum(factors.values()) == pytest.approx(2.0)
    assert pair.shared.grad is None


@pytest.mark.parametrize(("alpha", "favoured"), [(0.0, False), (1.5, True)])
def test_gradnorm_favours_what_has_fallen_less(alpha, favoured):
    pair = Pair({"lm": 2.0, "region": 1.0})
    balance, state = GradNorm(WEIGHTS, rate=0.05, alpha=alpha, shared=[pair.shared]), {}
    for step in range(400):
        watch(balance, pair.losses())
        balance.update(state, {"lm": 1.0, "region": 1.0 if step == 0 else 0.5}, world=1)
    ratio = state["factor"]["lm"] / state["factor"]["region"]
    assert ratio > 2 if favoured else ratio == pytest.approx(1.0, rel=0.05)


def test_gradnorm_forgets_a_step_that_was_not_made_and_leaves_out_what_has_no_gradient():
    pair = Pair({"lm": 2.0, "region": 1.0})
    balance, state = GradNorm(WEIGHTS, rate=0.05, alpha=0.0, shared=[pair.shared]), {}
    watch(balance, {**pair.losses(), "kl": 3 * pair.shared.sum()})
    assert set(balance.gradients) == {"lm", "region"}
    balance.forget()
    balance.update(state, {"lm": 1.0, "region": 1.0}, world=1)
    assert balance.factors(state) == {}
    watch(balance, {"lm": pair.losses()["lm"], "region": torch.tensor(1.0)})  # the head was not in the graph
    balance.update(state, {"lm": 1.0, "region": 1.0}, world=1)
    assert balance.factors(state) == {"lm": 1.0}
    watch(balance, pair.losses())
    balance.update(state, {"lm": 1.0}, world=1)  # of region the step had no target
    assert balance.factors(state) == {"lm": 1.0}


def test_gradnorm_adds_up_the_gradients_of_a_step_and_not_their_norms():
    pair = Pair({"lm": 1.0, "region": 1.0})
    balance = GradNorm(WEIGHTS, rate=0.05, alpha=0.0, shared=[pair.shared])
    watch(balance, {"lm": pair.shared.sum()})
    watch(balance, {"lm": -pair.shared.sum()})
    assert balance._norms(1) == {"lm": 0.0}


def test_fixed_is_what_a_stage_has_unless_it_asks():
    model = StubModel()
    stage = phase_job("unused").stage
    assert isinstance(make_balance(stage, model.groups()), Fixed)
    made = make_balance(stage.model_copy(update={"balance": "gradnorm"}), model.groups())
    assert [id(param) for param in made.shared] == [id(p) for _, p in model.groups()["lora"][-2:]]
    assert make_balance(stage.model_copy(update={"balance": "uncertainty"}), model.groups()).rate == stage.balance_lr


def test_factors_multiply_the_weights_of_the_next_step():
    run = Run(steps=2, log_every=1, balance=Uncertainty({"lm": 1.0, "region": 2.0}, rate=0.5)).train(StubBatches())
    assert not any(name.startswith("weight/") for name in run.rows[0])
    lm = run.rows[0]["loss/lm"]
    assert run.rows[1]["weight/lm"] == pytest.approx(math.exp(0.5 * max(-1.0, 1 - lm)))
    total = sum(run.rows[1][f"weight/{name}"] * run.rows[1][f"loss/{name}"] * share
                for name, share in (("lm", 1.0), ("region", 0.5)))  # fmt: skip
    assert run.rows[1]["total"] == pytest.approx(total)


def job_of(output, balance):
    job = phase_job(output)
    stage = job.stage.model_copy(update={"balance": balance, "balance_lr": 0.2})
    recipe = job.recipe.model_copy(update={"stages": {"vision_task": stage}})
    return type(job)(**{**vars(job), "recipe": recipe})


class KilledError(Exception):
    """Stands for a process that dies."""


def build_dying(job, strategy):
    model, batches = build_stub(job, strategy)
    inner = batches.step

    def step(number):
        if number == 7:
            raise KilledError
        return inner(number)

    batches.step = step
    return model, batches


@pytest.mark.parametrize("balance", ["uncertainty", "gradnorm"])
def test_a_killed_run_goes_on_with_the_factors_that_it_had(tmp_path, balance):
    straight, killed = job_of(tmp_path / "a", balance), job_of(tmp_path / "b", balance)
    run_phase_in_process(straight)
    with pytest.raises(KilledError):
        run_phase_in_process(killed, build_dying)
    held = Manifest.read(f"{killed.checkpoints}/{folder_name(4)}").progress["balance"]
    assert held
    run_phase_in_process(killed)
    rows = [comparable(read_history(job.history)) for job in (straight, killed)]
    assert rows[0] == rows[1]
    assert {"weight/lm", "weight/region"} <= set(rows[0][-1])
    assert any(rows[0][-1][f"weight/{name}"] != phase_job("x").stage.loss_weights[name] for name in ("lm", "region"))
    weights = [torch.load(job.model / "weights.pt") for job in (straight, killed)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_progress_survives_json_to_the_last_digit_and_older_ones_have_no_balance():
    progress = Progress(step=3, balance={"log_variance": {"lm": 0.1 + 0.2}})
    state = json.loads(json.dumps(asdict(progress)))
    assert Progress.from_dict(state) == progress
    del state["balance"]
    assert Progress.from_dict(state).balance == {}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.strategy=zero2"], r"gradnorm needs train\.strategy ddp, not zero2"),
        (["train.strategy=ddp", "model.activation_checkpointing=true"], r"set one of them off"),
        (["stages.multitask.lr.lora=null"], r"looks at the adapters: set lr\.lora"),
    ],
)
def test_gradnorm_says_what_it_cannot_run_with(overrides, message):
    with pytest.raises(TpoError, match=message):
        load_recipe("quickstart", ["stages.multitask.balance=gradnorm", *overrides])
