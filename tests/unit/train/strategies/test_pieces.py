"""Where the ranks keep their parts of a parameter: together they have each element once, whatever the sizes."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tpo_core.train.strategies.zero import Zero2, Zero3, put

SIZES = (7, 1, 12, 3)


def whole_of(pieces):
    """The elements that the ranks' pieces name, in order of their place in the parameter."""
    return torch.cat(
        [flat.narrow(0, start, length) for flat, start, _, length in sorted(pieces, key=lambda p: p.first)]
    )


@pytest.mark.parametrize("world", [2, 3, 5])
def test_zero2_cuts_a_flat_group_into_equal_parts(world):
    params = [nn.Parameter(torch.zeros(size)) for size in SIZES]
    offsets = [sum(SIZES[:index]) for index in range(len(SIZES))]
    size = -(-sum(SIZES) // world)
    flat = torch.arange(size * world)
    pieces = {param: [] for param in params}
    for rank in range(world):
        strategy = Zero2("cpu")
        strategy.rank = rank
        strategy.zero = SimpleNamespace(
            partition_size=[size], single_partition_of_fp32_groups=[flat[rank * size : (rank + 1) * size]]
        )
        strategy._places = {param: (0, offset) for param, offset in zip(params, offsets, strict=True)}
        for param in params:
            pieces[param].append(strategy._piece(param))
    for param, offset in zip(params, offsets, strict=True):
        assert torch.equal(whole_of(pieces[param]), flat[offset : offset + param.numel()])


@pytest.mark.parametrize("world", [2, 3, 5])
def test_zero3_cuts_every_parameter_and_pads_the_last_parts(world):
    for numel in SIZES:
        size = -(-numel // world)
        padded = torch.arange(size * world)
        pieces = []
        for rank in range(world):
            strategy = Zero3("cpu")
            strategy.rank = rank
            strategy.zero = SimpleNamespace(
                get_param_id=lambda param: "p",
                grad_position={"p": [0, 2, size]},
                fp32_partitioned_groups_flat=[
                    torch.cat([torch.full((2,), -1), padded[rank * size : (rank + 1) * size]])
                ],
            )
            pieces.append(strategy._piece(SimpleNamespace(ds_numel=numel)))
        assert torch.equal(whole_of(pieces), padded[:numel])


def test_a_rank_writes_its_part_of_a_whole_tensor():
    strategy = Zero2("cpu")
    strategy.rank, param = 1, nn.Parameter(torch.zeros(2, 3))
    strategy.zero = SimpleNamespace(partition_size=[4], single_partition_of_fp32_groups=[torch.zeros(4)])
    strategy._places = {param: (0, 1)}
    piece = strategy._piece(param)
    put(piece, piece.flat, torch.arange(6.0).view(2, 3))
    assert piece.flat.tolist() == [3, 4, 5, 0]
