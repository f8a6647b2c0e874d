import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tpo_core.heads.ranks import mean_over_ranks
from tpo_core.heads.region import box_loss

PREDICTED_N4 = torch.tensor([[0.1, 0.1, 0.5, 0.6], [0.9, 0.2, 0.3, 0.8], [0.2, 0.3, 0.4, 0.9], [0.7, 0.7, 0.2, 0.1]])
TRUE_N4 = torch.tensor([[0.1, 0.2, 0.5, 0.5], [0.3, 0.2, 0.9, 0.8], [0.1, 0.3, 0.5, 0.7], [0.1, 0.1, 0.6, 0.7]])


def test_in_one_process_it_is_the_mean():
    values = torch.tensor([1.0, 2.0, 6.0])
    assert mean_over_ranks(values.sum(), 3, samples=8).item() == 3.0
    assert mean_over_ranks(values.sum(), torch.tensor(2), samples=8).item() == 4.5


def test_of_no_target_it_is_zero_or_what_is_said_with_a_gradient_of_zero():
    value = torch.zeros(3, requires_grad=True)
    for of_none in (0.0, 2.0):
        mean = mean_over_ranks(value[:0].sum(), 0, samples=4, of_none=of_none)
        assert mean.item() == of_none
    mean.backward()
    assert torch.equal(value.grad, torch.zeros(3))


def two_ranks(rank: int, folder: str) -> None:
    """Rank 0 has one sample, an upright box; rank 1 three, of which one is upright."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    mine = slice(0, 1) if rank == 0 else slice(1, 4)
    losses = box_loss(PREDICTED_N4[mine], TRUE_N4[mine])
    torch.save({name: value.item() for name, value in losses.items()}, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_ranks_averaged_by_their_samples_give_the_loss_of_all(tmp_path):
    mp.spawn(two_ranks, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name, value in box_loss(PREDICTED_N4, TRUE_N4).items():
        assert (first[name] + 3 * second[name]) / 4 == pytest.approx(value.item(), rel=1e-6)
