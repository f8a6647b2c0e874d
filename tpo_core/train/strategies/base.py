"""How one optimizer step is spread over processes, behind one small interface.

The loop computes, on every rank, that rank's share of the loss: shares add up to the loss of the global batch. So a
strategy *sums* gradients over the ranks. A parameter that got a gradient nowhere in a step counts as one with gradient
zero, under every strategy: DeepSpeed and FSDP keep gradients in flat partitions, where "none" cannot be told from zero,
and the same recipe must give the same weights under all of them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn

MOMENTS = ("exp_avg", "exp_avg_sq")

MakeOptimizer = Callable[[], torch.optim.AdamW]


class Sharded(Protocol):
    """What a model tells a strategy that cuts it into pieces."""

    def sharding_units(self) -> list[nn.Module]:
        """Modules, inner before outer, whose parameters are gathered together when they run; the rest is one unit."""

    def whole_units(self) -> list[nn.Module]:
        """Modules that each rank keeps whole: small ones whose parameters are used by more than their own forward, or
        that a rank may leave out."""


class Strategy(ABC):
    """One rank's view of a step. Needs an initialised process group when there is more than one process.

    rank, world: of the training group. model: the bare model, whose parameter names are those of every checkpoint.
    optimizer: an AdamW, or what stands for it; its `param_groups` carry "lr", "peak_lr" and "group" (optim.py).
    """

    model: nn.Module
    optimizer: Any

    def __init__(self, device: torch.device | str = "cpu") -> None:
        on = dist.is_available() and dist.is_initialized()
        self.rank = dist.get_rank() if on else 0
        self.world = dist.get_world_size() if on else 1
        self.device = torch.device(device)

    @abstractmethod
    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> nn.Module:
        """The module to call in the loop, on the device; afterwards all ranks hold the same parameters.

        `requires_grad` says what trains. `make_optimizer` is called when the parameters are those to be optimized.
        """

    @abstractmethod
    def backward(self, share: Tensor, *, last: bool) -> None:
        """Add the gradients of this rank's share of the loss, a scalar, to those of the step.

        last: whether this micro-batch closes the step.
        """

    @abstractmethod
    def gradient_norm(self) -> float:
        """Sum the gradients of the step over the ranks; their global L2 norm before clipping, maybe not finite."""

    @abstractmethod
    def update(self, norm: float, clip_norm: float) -> None:
        """Scale the gradients, whose norm is `norm` (finite), down to `clip_norm`, and move the parameters."""

    @abstractmethod
    def drop_gradients(self) -> None:
        """Forget the gradients of the step: neither parameters nor moments change."""

    @abstractmethod
    def state(self) -> Iterator[tuple[str, Tensor]]:
        """What training changes, whole, one tensor after another: `param/NAME`, `exp_avg/NAME`, `exp_avg_sq/NAME` of
        each trained parameter and `buffer/NAME`. Called on all ranks, which get the same; a tensor may be of the model
        itself, so what is kept of it must be copied. Names, order and shapes are the same under every strategy."""

    @abstractmethod
    def set_state(self, read: Callable[[str], Tensor], updates: int) -> None:
        """Put whole tensors, by the names that `state` gives, into model and optimizer. updates: of the optimizer."""

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """The state dict of the whole model on the CPU, frozen parameters included; called on all ranks, and empty on
        all but rank 0."""

    def total(self, values: list[Tensor | float]) -> list[float]:
        """Sum over the ranks of each of some numbers; one wait for the device however many there are."""
        stacked = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=self.device).detach() for v in values])
        if self.world > 1:
            dist.all_reduce(stacked)
        return stacked.tolist()

    def agree(self, value: Any) -> Any:
        """Rank 0's `value` on every rank (any picklable object)."""
        box = [value]
        if self.world > 1:
            dist.broadcast_object_list(box, src=0)
        return box[0]

    def everyone(self, value: Any) -> list[Any]:
        """Every rank's `value` on every rank, in the order of ranks (any picklable objects)."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Return when every rank is here."""
        if self.world > 1:
            dist.barrier()


@torch.no_grad()
def send_from_first(model: nn.Module) -> None:
    """Give all ranks rank 0's trained parameters and buffers; frozen parameters were read from the same files."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        for tensor in [param for _, param in trained(model)] + list(model.buffers()):
            dist.broadcast(tensor, src=0)


def trained(model: nn.Module) -> list[tuple[str, nn.Parameter]]:
    """The parameters that train, by name, in the order of the model."""
    return [(name, param) for name, param in model.named_parameters() if param.requires_grad]


def kept_buffers(model: nn.Module) -> list[tuple[str, Tensor]]:
    """The buffers that a state dict holds."""
    held = model.state_dict(keep_vars=True).keys()
    return [(name, buffer) for name, buffer in model.named_buffers() if name in held]


def norm_of_pieces(gradients: list[Tensor]) -> float:
    """The global L2 norm of gradients of which every rank holds a piece."""
    norms = torch._foreach_norm(gradients, dtype=torch.float32)
    square = torch.stack(list(norms)).square().sum()
    dist.all_reduce(square)
    return float(square.sqrt())


def clip_gradients(gradients: list[Tensor], norm: float, limit: float) -> None:
    """Scale gradients, or the pieces of them that a rank holds, so that their global norm, now `norm`, is at most
    `limit` (> 0)."""
    if norm > limit:
        torch._foreach_mul_(gradients, limit / (norm + 1e-6))


def weights_of_replica(strategy: Strategy) -> dict[str, Tensor]:
    """Strategy.weights where rank 0 holds the whole model."""
    if strategy.rank:
        return {}
    return {name: owned(tensor.detach().cpu()) for name, tensor in strategy.model.state_dict().items()}


def owned(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where it is a part of a larger one, such as the flat buffers of ZeRO-2 and what FSDP2
    gathers: a file of such parts is refused, because it might hold all of the larger one."""
    return tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
