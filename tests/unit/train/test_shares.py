import pytest
import torch

from tests.unit.train.stub import StubBatch
from tpo_core.train.shares import Shares
from tpo_core.train.strategies.replicated import Replicated

WEIGHTS = {"lm": 2.0, "region": 3.0}


class Micro(StubBatch):
    """A micro-batch of so many samples and answer tokens."""

    def __init__(self, kind, samples, tokens):
        super().__init__(kind, [str(i) for i in range(samples)], torch.zeros(samples, 1), torch.zeros(samples))
        self.tokens = tokens

    @property
    def counts(self):
        return {"lm": self.tokens, self.kind: len(self.sample_ids)}


def shares_of(*micros):
    return Shares.of(list(micros), WEIGHTS, Replicated(), flops=lambda micro: 10.0 * len(micro.sample_ids))


def test_a_loss_is_a_mean_over_the_targets_of_the_step_and_not_of_means():
    shares = shares_of(Micro("chat", 1, tokens=1), Micro("chat", 1, tokens=99))
    first, second = (shares.add("chat", {"lm": torch.tensor(total)}) for total in (5.0, 99.0))
    assert first.item() + second.item() == pytest.approx(2.0 * 104 / 100)  # means of 5 and 1 would give 6
    assert shares.values(Replicated()) == pytest.approx({"total": 2.08, "kind/chat": 2.08, "loss/lm": 1.04})


def test_the_mixture_decides_what_a_kind_weighs_and_not_the_length_of_its_answers():
    shares = shares_of(
        Micro("region", 2, tokens=4), Micro("chat", 2, tokens=400), Micro("chat", 2, tokens=600), Micro("chat", 1, 0)
    )
    region = shares.add("region", {"lm": torch.tensor(8.0), "region": torch.tensor(1.0)})
    assert region.item() == pytest.approx((2.0 * 8 / 4 + 3.0 * 1 / 2) / 4)  # one micro-batch of four
    chat = sum(shares.add("chat", {"lm": torch.tensor(total)}).item() for total in (1000.0, 500.0, 0.0))
    assert chat == pytest.approx(3 / 4 * 2.0 * 1500 / 1000)
    values = shares.values(Replicated())
    assert values["total"] == pytest.approx(region.item() + chat)
    assert values["loss/lm"] == pytest.approx(1508 / 1004)
    assert (shares.samples, shares.tokens, shares.flops) == ({"region": 2, "chat": 5}, 21, 70.0)


def test_a_kind_without_a_target_adds_nothing():
    shares = shares_of(Micro("chat", 2, tokens=0))
    assert shares.add("chat", {"lm": torch.zeros(())}).item() == 0
    assert shares.values(Replicated())["total"] == 0


def test_every_loss_needs_a_weight():
    shares = shares_of(Micro("mask", 2, tokens=3))
    with pytest.raises(KeyError, match="mask"):
        shares.add("mask", {"mask": torch.tensor(1.0)})
