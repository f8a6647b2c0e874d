"""Means over the targets of all ranks, where a term counts something else than samples.

The loop weighs a head's loss by the number of its samples on each rank. A term that is a mean over frames, say, or over
boxes that happen to be valid, would so become a mean of means; `mean_over_ranks` makes it the mean over all.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(total: Tensor, count: Tensor | int, samples: int, *, of_none: float = 0.0) -> Tensor:
    """total / count, both summed over the ranks, once the ranks' results are averaged with weights `samples`.

    total: sum of a term over this rank's `count` targets, scalar. samples: of this rank's micro-batch. of_none: the
    value when no rank has a target. In a single process it is total / count. Every rank must call it, for the same
    terms in the same order.
    """
    counts_2 = torch.tensor([0.0, samples], dtype=torch.float64, device=total.device)
    counts_2[0] = count
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(counts_2)
    mean = total * (counts_2[1] / samples).to(total.dtype) / counts_2[0].clamp(min=1).to(total.dtype)
    return mean + of_none * (counts_2[0] == 0)
