import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from tests.unit.train.stub import Run, StubBatches
from tpo_core.errors import TpoError
from tpo_core.train.strategy import BUCKET_ELEMENTS, DataParallel, buckets, clip_gradients, make_strategy


def test_only_what_is_built_can_be_chosen():
    assert make_strategy("ddp").world == 1
    with pytest.raises(TpoError, match=r"train\.strategy=zero3 is not available .* use train\.strategy=ddp"):
        make_strategy("zero3")


def test_one_process_communicates_nothing():
    strategy = DataParallel()
    param = nn.Parameter(torch.tensor([3.0, 4.0]))
    strategy.backward((param * torch.tensor([3.0, 4.0])).sum())
    assert strategy.reduce_gradients([param, nn.Parameter(torch.zeros(2))]) == pytest.approx(5.0)
    assert strategy.mean([torch.tensor(2.0), torch.tensor(4.0)]) == [2.0, 4.0]
    assert strategy.agree({"a": 1}) == {"a": 1}


def test_clipping_scales_all_gradients_together_and_never_up():
    params = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    params[0].grad, params[1].grad = torch.tensor([3.0, 0.0]), torch.tensor([4.0])
    clip_gradients(params, 5.0, 10.0)
    assert params[1].grad.item() == 4.0
    clip_gradients(params, 5.0, 1.0)
    torch.testing.assert_close(params[0].grad, torch.tensor([0.6, 0.0]))
    torch.testing.assert_close(params[1].grad, torch.tensor([0.8]))


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
    strategy = DataParallel()
    found = {"agree": strategy.agree(f"from {rank}"), "mean": strategy.mean([torch.tensor(float(rank))])}

    one_sided, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    if rank == 1:  # a loss that is constant on rank 0 leaves no gradient there
        strategy.backward((one_sided * 4).sum())
    found["norm"] = strategy.reduce_gradients([one_sided, unused])
    found["one_sided"], found["unused"] = one_sided.grad, unused.grad

    run = Run(steps=6)
    run.model.adapter[2].p = 0.0
    if rank == 1:  # other initial weights, to be overwritten
        nn.init.zeros_(run.model.head.weight)
    strategy.prepare(run.model)
    run.train(StubBatches(rank=rank, world=2), strategy)
    found["weights"], found["rows"] = run.model.state_dict(), run.rows
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_train_as_one(tmp_path):
    mp.spawn(two_ranks, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in (0, 1))
    alone = Run(steps=6)
    alone.model.adapter[2].p = 0.0
    alone.train(StubBatches())
    for found in (first, second):
        assert found["agree"] == "from 0"
        assert found["mean"] == [0.5]
        assert found["one_sided"].tolist() == [2.0, 2.0]
        assert found["unused"] is None
        assert found["norm"] == pytest.approx(8**0.5)
        assert all(torch.equal(tensor, first["weights"][name]) for name, tensor in found["weights"].items())
        for name, tensor in alone.model.state_dict().items():
            torch.testing.assert_close(found["weights"][name], tensor, rtol=1e-4, atol=1e-6)
        for key in ("total", "loss/region", "kind/chat", "grad_norm", "samples"):
            assert found["rows"][-1][key] == pytest.approx(alone.rows[-1][key], rel=1e-4)
