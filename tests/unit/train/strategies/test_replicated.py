import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from tests.unit.train.stub import STAGE, Run, StubBatches, StubModel
from tpo_core.train.stages import select_trainable
from tpo_core.train.strategies.base import clip_gradients
from tpo_core.train.strategies.replicated import BUCKET_ELEMENTS, Replicated, buckets


class Two(nn.Module):
    """Two parameters, of which a loss may use one."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Parameter(torch.tensor([3.0, 4.0])), nn.Parameter(torch.ones(2))


def prepared(strategy):
    model = Two()
    strategy.prepare(model, lambda: torch.optim.AdamW(model.parameters(), lr=0.1))
    return model


def test_one_process_communicates_nothing():
    strategy = Replicated()
    model = prepared(strategy)
    strategy.backward((model.used * torch.tensor([3.0, 4.0])).sum(), last=True)
    assert strategy.gradient_norm() == pytest.approx(5.0)
    assert strategy.total([torch.tensor(2.0), 4.0]) == [2.0, 4.0]
    assert strategy.agree({"a": 1}) == {"a": 1}


def test_a_parameter_without_a_gradient_counts_as_one_with_gradient_zero():
    strategy = Replicated()
    model = prepared(strategy)
    strategy.backward(model.used.sum(), last=True)
    strategy.update(strategy.gradient_norm(), 1.0)
    state = dict(strategy.state())
    assert torch.equal(state["exp_avg/unused"], torch.zeros(2))
    assert (model.unused < 1).all()  # decayed, as under the strategies with flat partitions


def test_a_state_that_was_taken_over_does_not_change_with_the_run():
    strategy = Replicated()
    model = prepared(strategy)
    given = {
        f"{part}/{name}": torch.ones(2) for part in ("param", "exp_avg", "exp_avg_sq") for name in ("used", "unused")
    }
    strategy.set_state(given.__getitem__, 3)
    strategy.backward(model.used.sum(), last=True)
    strategy.update(strategy.gradient_norm(), 1.0)
    assert all(torch.equal(tensor, torch.ones(2)) for tensor in given.values())


def test_clipping_scales_all_gradients_together_and_never_up():
    gradients = [torch.tensor([3.0, 0.0]), torch.tensor([4.0])]
    clip_gradients(gradients, 5.0, 10.0)
    assert gradients[1].item() == 4.0
    clip_gradients(gradients, 5.0, 1.0)
    torch.testing.assert_close(gradients, [torch.tensor([0.6, 0.0]), torch.tensor([0.8])])


def test_buckets_keep_order_hold_one_dtype_and_are_bounded():
    def param(numel, dtype=torch.float32):
        return nn.Parameter(torch.empty(numel, dtype=dtype, device="meta"))

    params = [
        param(1),
        param(2),
        param(3, torch.bfloat16),
        param(BUCKET_ELEMENTS + 1),
        param(BUCKET_ELEMENTS),
        param(1),
    ]
    cut = buckets(params)
    assert [[p.numel() for p in bucket] for bucket in cut] == [
        [1, 2], [3], [BUCKET_ELEMENTS + 1], [BUCKET_ELEMENTS], [1],
    ]  # fmt: skip
    assert buckets([]) == []


def two_ranks(rank: int, folder: str) -> None:
    """What each of two gloo processes does; leaves its findings in `folder`."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    strategy = Replicated()
    model = prepared(strategy)
    found = {"agree": strategy.agree(f"from {rank}"), "total": strategy.total([float(rank), 1])}
    if rank == 1:  # a loss that is constant on rank 0 leaves no gradient there
        strategy.backward((model.used * 4).sum(), last=True)
    found["norm"] = strategy.gradient_norm()
    found["used"], found["unused"] = model.used.grad, model.unused.grad

    run = Run(steps=6, strategy=Replicated(), model=unlike(rank))
    run.train(StubBatches(rank=rank, world=2))
    found["weights"], found["rows"] = run.model.state_dict(), run.rows
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


def unlike(rank):
    """The stub without dropout; rank 1 has other initial weights, to be overwritten."""
    torch.manual_seed(0)
    model = StubModel()
    select_trainable(model, model.groups(), STAGE.lr)
    model.adapter[2].p = 0.0
    if rank == 1:
        nn.init.zeros_(model.head.weight)
    return model


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path):
    mp.spawn(two_ranks, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    alone = Run(steps=6, model=unlike(0)).train(StubBatches())
    for found in (first, second):
        assert found["agree"] == "from 0"
        assert found["total"] == [1, 2]
        assert found["used"].tolist() == [4.0, 4.0]
        assert found["unused"].tolist() == [0.0, 0.0]
        assert found["norm"] == pytest.approx(32**0.5)
        assert all(torch.equal(tensor, first["weights"][name]) for name, tensor in found["weights"].items())
        for name, tensor in alone.model.state_dict().items():
            torch.testing.assert_close(found["weights"][name], tensor, rtol=1e-4, atol=1e-6)
        for key in ("total", "loss/region", "kind/chat", "grad_norm", "samples"):
            assert found["rows"][-1][key] == pytest.approx(alone.rows[-1][key], rel=1e-4)
