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


def counts_of(micro):
    return {"lm": micro.tokens, micro.kind: len(micro.sample_ids)}


def shares_of(*micros, counts=counts_of):
    return Shares.of(
        list(micros), WEIGHTS, Replicated(), counts=counts, flops=lambda micro: 10.0 * len(micro.sample_ids)
    )


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


def test_the_terms_of_a_loss_share_its_weight_and_are_means_over_targets_of_their_own():
    frames, moments = {"first": 8, "second": 2}, {"first": 1, "second": 3}
    micros = [Micro("region", 1, 0), Micro("region", 1, 0)]
    micros[0].sample_ids, micros[1].sample_ids = ["first"], ["second"]
    shares = shares_of(
        *micros,
        counts=lambda micro: {"region/label": frames[micro.sample_ids[0]], "region/span": moments[micro.sample_ids[0]]},
    )
    losses = [{"region/label": 16.0, "region/span": 2.0}, {"region/label": 1.0, "region/span": 10.0}]
    added = [shares.add("region", {name: torch.tensor(value) for name, value in each.items()}) for each in losses]
    expected = 17 / 10 + 12 / 4  # the mean of means would be 1.25 + 2.67
    assert sum(added).item() == pytest.approx(3.0 * expected)
    assert shares.values(Replicated()) == pytest.approx(
        {"total": 3 * expected, "kind/region": 3 * expected, "loss/region": expected}
    )


def test_a_kind_without_a_target_adds_nothing():
    shares = shares_of(Micro("chat", 2, tokens=0))
    assert shares.add("chat", {"lm": torch.zeros(())}).item() == 0
    assert shares.values(Replicated())["total"] == 0


def test_a_loss_without_a_target_is_no_loss_of_zero():
    """A mean over steps, the best checkpoint and a balancer would take it for a perfect one."""
    shares = shares_of(Micro("region", 2, tokens=4), counts=lambda micro: {"lm": 4, "region/label": 0})
    shares.add("region", {"lm": torch.tensor(8.0), "region/label": torch.zeros(())})
    values = shares.values(Replicated())
    assert values == pytest.approx({"total": 4.0, "kind/region": 4.0, "loss/lm": 2.0})


def test_every_loss_needs_a_weight():
    shares = shares_of(Micro("mask", 2, tokens=3))
    with pytest.raises(KeyError, match="mask"):
        shares.add("mask", {"mask": torch.tensor(1.0)})
