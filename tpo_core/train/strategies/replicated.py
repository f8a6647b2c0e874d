"""`ddp`: a full copy of the model in every process, gradients summed once a step, after the last micro-batch.

Written out instead of wrapping the model in torch's DistributedDataParallel, because a micro-batch of one task kind
leaves the heads of the other kinds without a gradient: the wrapper then needs find_unused_parameters, which hides real
bugs in the flow of gradients, and it reduces on every micro-batch unless told otherwise.
"""

from collections.abc import Callable, Iterator

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tpo_core.train.strategies.base import (
    MOMENTS,
    MakeOptimizer,
    Strategy,
    clip_gradients,
    kept_buffers,
    send_from_first,
    trained,
    weights_of_replica,
)

BUCKET_ELEMENTS = 2**26  # gradients are reduced in flat buckets of at most this many numbers, 256 MiB in fp32


class Replicated(Strategy):
    """Full replicas. With one process nothing is communicated."""

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> nn.Module:
        self.model = model.to(self.device)
        send_from_first(model)
        self.optimizer = make_optimizer()
        return model

    def backward(self, share: Tensor, *, last: bool) -> None:
        share.backward()

    def gradient_norm(self) -> float:
        params = [param for _, param in trained(self.model)]
        grads = fill_gradients(params)
        if self.world > 1:
            sum_gradients(params)
        norms = torch._foreach_norm(grads, dtype=torch.float32)
        return float(torch.stack(list(norms)).norm())

    def update(self, norm: float, clip_norm: float) -> None:
        clip_gradients(fill_gradients([param for _, param in trained(self.model)]), norm, clip_norm)
        self.optimizer.step()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        for name, param in trained(self.model):
            yield f"param/{name}", param.detach()
            moments = self.optimizer.state[param]
            for moment in MOMENTS:
                yield f"{moment}/{name}", moments[moment] if moments else torch.zeros_like(param)
        for name, buffer in kept_buffers(self.model):
            yield f"buffer/{name}", buffer

    @torch.no_grad()
    def set_state(self, read: Callable[[str], Tensor], updates: int) -> None:
        for name, param in trained(self.model):
            param.copy_(read(f"param/{name}"))
            if updates:
                moments = {each: read(f"{each}/{name}").to(param, copy=True) for each in MOMENTS}
                self.optimizer.state[param] = {"step": torch.tensor(float(updates)), **moments}
        for name, buffer in kept_buffers(self.model):
            buffer.copy_(read(f"buffer/{name}"))

    def weights(self) -> dict[str, Tensor]:
        return weights_of_replica(self)


def fill_gradients(params: list[nn.Parameter]) -> list[Tensor]:
    """The gradient of each parameter, made zero where there was none."""
    for param in params:
        if param.grad is None:
            param.grad = torch.zeros_like(param)
    return [param.grad for param in params if param.grad is not None]


def sum_gradients(params: list[nn.Parameter]) -> None:
    """Replace every gradient by its sum over the ranks; all ranks hold the same parameters in the same order."""
    for bucket in buckets(params):
        grads = fill_gradients(bucket)
        flat = torch.cat([grad.reshape(-1) for grad in grads])
        dist.all_reduce(flat)
        for grad, summed in zip(grads, flat.split([grad.numel() for grad in grads]), strict=True):
            grad.copy_(summed.view_as(grad))


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
