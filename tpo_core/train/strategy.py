"""How one optimizer step is spread over processes, behind one small interface.

`DataParallel` ("ddp") keeps a full copy of the model in every process and averages the gradients once per optimizer
step, after the last micro-batch. It is written out instead of wrapping the model in torch's
DistributedDataParallel because a micro-batch of one task kind leaves the heads of the other kinds without a gradient:
the wrapper then needs find_unused_parameters, which hides real bugs in the flow of gradients, and it reduces on every
micro-batch unless told otherwise. A parameter that got a gradient on no rank keeps `grad is None`, so that AdamW
neither decays it nor touches its moments.
"""

import math
from collections.abc import Iterable
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tpo_core.errors import TpoError

BUCKET_ELEMENTS = 2**26  # gradients are reduced in flat buckets of at most this many numbers, 256 MiB in fp32


class Strategy(Protocol):
    """What the loop needs to know about parallelism."""

    rank: int
    world: int

    def prepare(self, model: nn.Module) -> nn.Module:
        """The module to call in the loop; afterwards all ranks hold the same parameters."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`, a scalar, to those of the step."""

    def reduce_gradients(self, params: Iterable[nn.Parameter]) -> float:
        """Average the gradients of the step over the ranks and return their global L2 norm before clipping."""

    def mean(self, values: list[Tensor]) -> list[float]:
        """Mean over the ranks of scalars; one wait for the device however many there are."""

    def agree(self, value: Any) -> Any:
        """Rank 0's `value` on every rank (any picklable object)."""

    def barrier(self) -> None:
        """Return when every rank is here."""


class DataParallel:
    """Full replicas, gradients averaged once a step. With world 1 nothing is communicated.

    Needs an initialised torch.distributed process group when there is more than one process.
    """

    def __init__(self) -> None:
        on = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if on else 0
        self.world = dist.get_world_size() if on else 1

    def prepare(self, model: nn.Module) -> nn.Module:
        if self.world > 1:
            with torch.no_grad():
                for tensor in [p for p in model.parameters() if p.requires_grad] + list(model.buffers()):
                    dist.broadcast(tensor, src=0)
        return model

    def backward(self, loss: Tensor) -> None:
        loss.backward()

    def reduce_gradients(self, params: Iterable[nn.Parameter]) -> float:
        params = list(params)
        if self.world > 1:
            average_gradients(params, self.world)
        norms = [p.grad.norm(dtype=torch.float32) for p in params if p.grad is not None]
        return float(torch.stack(norms).norm()) if norms else 0.0

    def mean(self, values: list[Tensor]) -> list[float]:
        stacked = torch.stack([value.detach().float() for value in values])
        if self.world > 1:
            dist.all_reduce(stacked)
        return [value / self.world for value in stacked.tolist()]

    def agree(self, value: Any) -> Any:
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def barrier(self) -> None:
        if self.world > 1:
            dist.barrier()


def average_gradients(params: list[nn.Parameter], world: int) -> None:
    """Replace every gradient by its mean over the ranks.

    Ranks first agree on which parameters got a gradient anywhere: a loss that happens to be constant on one rank
    (no valid box, say) would otherwise make the ranks reduce buffers of different lengths, which hangs or corrupts.
    """
    present = torch.tensor([p.grad is not None for p in params], dtype=torch.int32, device=params[0].device)
    dist.all_reduce(present, op=dist.ReduceOp.MAX)
    used = [p for p, there in zip(params, present.tolist(), strict=True) if there]
    for param in used:
        if param.grad is None:
            param.grad = torch.zeros_like(param)
    for bucket in buckets(used):
        grads = [p.grad for p in bucket if p.grad is not None]
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        dist.all_reduce(flat)
        flat /= world
        for grad, mean in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(mean.view_as(grad))


def buckets(params: list[nn.Parameter]) -> list[list[nn.Parameter]]:
    """`params` in order, cut into runs of one dtype and at most BUCKET_ELEMENTS numbers (a larger one stands alone)."""
    result: list[list[nn.Parameter]] = []
    room = 0
    for param in params:
        if not result or param.numel() > room or result[-1][-1].dtype != param.dtype:
            result.append([])
            room = BUCKET_ELEMENTS
        result[-1].append(param)
        room -= param.numel()
    return result


def clip_gradients(params: Iterable[nn.Parameter], norm: float, limit: float) -> None:
    """Scale the gradients so that their global norm, now `norm` (finite), is at most `limit` (> 0)."""
    assert math.isfinite(norm), f"gradient norm {norm}"
    if norm > limit:
        grads = [p.grad for p in params if p.grad is not None]
        torch._foreach_mul_(grads, limit / (norm + 1e-6))


def make_strategy(name: str) -> DataParallel:
    """The strategy a recipe names; TpoError when it is not one of those built so far."""
    if name != "ddp":
        raise TpoError(f"train.strategy={name} is not available in this version: use train.strategy=ddp")
    return DataParallel()
