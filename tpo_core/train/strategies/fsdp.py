"""`fsdp2`: parameters, gradients and moments in pieces on the ranks, by torch's `fully_shard`.

The modules that the model names (`sharding_units`: the layers of its language model and of its vision tower) are
gathered when they run, in forward and again in backward, and dropped right after. All else is one unit, whole from the
start of a forward to the end of its backward. Each parameter is cut along its first dimension; the last ranks may get
less of it, or nothing.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from tpo_core.train.strategies.base import (
    MOMENTS,
    MakeOptimizer,
    Strategy,
    clip_gradients,
    kept_buffers,
    norm_of_pieces,
    owned,
    send_from_first,
    trained,
)
from tpo_core.train.strategies.replicated import fill_gradients


class FullySharded(Strategy):
    """FSDP2 over all ranks. Parameters keep their dtypes: those that train must share one, frozen ones may differ."""

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> nn.Module:
        self.model = model.to(self.device)
        send_from_first(model)
        self.mesh = init_device_mesh(self.device.type, (self.world,))
        units = [*model.sharding_units(), model]  # type: ignore[operator]  # base.Sharded
        for unit in units:
            shard = fully_shard(unit, mesh=self.mesh)
            shard.set_gradient_divide_factor(1.0)  # shares add up to the loss
            shard.set_force_sum_reduction_for_comms(True)
        assert isinstance(model, FSDPModule)
        # A parameter that only some ranks reached would give reductions of unequal size.
        model.set_reduce_scatter_unused_params(True)
        self.optimizer = make_optimizer()
        return model

    def backward(self, share: Tensor, *, last: bool) -> None:
        """Gradients are reduced after every micro-batch, so that only pieces of them wait for the next."""
        share.backward()

    def gradient_norm(self) -> float:
        return norm_of_pieces(self._gradients())

    def update(self, norm: float, clip_norm: float) -> None:
        clip_gradients(self._gradients(), norm, clip_norm)
        self.optimizer.step()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def state(self) -> Iterator[tuple[str, Tensor]]:
        for name, param in trained(self.model):
            yield f"param/{name}", whole(param.detach())
            moments = self.optimizer.state[param]
            for moment in MOMENTS:
                yield f"{moment}/{name}", whole(moments[moment] if moments else torch.zeros_like(param).detach())
        for name, buffer in kept_buffers(self.model):
            yield f"buffer/{name}", buffer

    @torch.no_grad()
    def set_state(self, read: Callable[[str], Tensor], updates: int) -> None:
        for name, param in trained(self.model):
            param.copy_(self._piece(read(f"param/{name}"), param))
            if updates:
                moments = {each: self._piece(read(f"{each}/{name}"), param).clone() for each in MOMENTS}
                self.optimizer.state[param] = {"step": torch.tensor(float(updates)), **moments}
        for name, buffer in kept_buffers(self.model):
            buffer.copy_(read(f"buffer/{name}"))

    def weights(self) -> dict[str, Tensor]:
        held = {}
        for name, tensor in self.model.state_dict().items():
            value = whole(tensor.detach())
            if self.rank == 0:
                held[name] = owned(value.cpu())
        return held

    def _gradients(self) -> list[Tensor]:
        """This rank's pieces of the gradients."""
        return [local(grad) for grad in fill_gradients([param for _, param in trained(self.model)])]

    def _piece(self, value: Tensor, like: nn.Parameter) -> Tensor:
        """A whole tensor cut as `like` is; nothing is sent, because every rank has all of it."""
        assert isinstance(like, DTensor)
        value = value.to(device=like.device, dtype=like.dtype)
        return distribute_tensor(value, self.mesh, like.placements, src_data_rank=None)


def whole(tensor: Tensor) -> Tensor:
    """All of a tensor, on every rank."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def local(tensor: Tensor) -> Tensor:
    """This rank's piece; writing to it writes to the tensor."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
