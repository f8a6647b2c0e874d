"""A mean over the targets of all ranks, where only the forward tells which samples are targets.

Else a head returns sums, and the loop divides them by the count of the whole step, which it knows before. Here it
cannot, so that such a term is a mean over the ranks' parts of a micro-batch, and over micro-batches a mean of means.
"""

import torch
import torch.distributed as dist
from torch import Tensor


def mean_over_ranks(total: Tensor, count: Tensor | int, samples: int, *, of_none: float = 0.0) -> Tensor:
    """total / count, both summed over the ranks, once the ranks' results are averaged with weights `samples`.

    total: sum of a term over this rank's `count` targets, scalar. samples: of this rank's micro-batch. of_none: the
    value when no rank has a target. In a single process it is total / count. Every rank must call it.
    """
    counts_2 = torch.tensor([0.0, samples], dtype=torch.float64, device=total.device)
    counts_2[0] = count
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(counts_2)
    mean = total * (counts_2[1] / samples).to(total.dtype) / counts_2[0].clamp(min=1).to(total.dtype)
    return mean + of_none * (counts_2[0] == 0)
