"""`zero2` and `zero3`: DeepSpeed's ZeRO. The only file that imports deepspeed.

Stage 2 cuts gradients and moments into pieces, stage 3 the parameters as well: a module's own are gathered when it
runs, in forward and again in backward, and dropped right after; the small ones stay whole (WHOLE_BELOW), and so do
the modules that the model names (`whole_units`).

DeepSpeed partitions, gathers and reduces. What else its engine does is left alone, because the loop has its own way:
autocast (the engine ends one that it did not begin), accumulation, clipping (it clips at 1.0 unless told otherwise),
schedules and the check for numbers that are not finite. AdamW is torch's, on flat fp32 pieces, so that nothing is
compiled.
"""

import logging
import os
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tpo_core.train.strategies.base import (
    MOMENTS,
    MakeOptimizer,
    Strategy,
    clip_gradients,
    kept_buffers,
    norm_of_pieces,
    send_from_first,
    trained,
    weights_of_replica,
)
from tpo_core.train.strategies.replicated import BUCKET_ELEMENTS

HELD = -1  # stands for a module; DeepSpeed numbers them from 0 on
WHOLE_BELOW = 2**16  # parameters of fewer elements are not worth a gather of their own: stage 3 keeps them whole


class Piece(NamedTuple):
    """Where a rank keeps its part of a parameter.

    flat: what AdamW moves, fp32 (n,). Elements start .. start+length of it are elements first .. first+length of
    the flattened parameter; length may be 0.
    """

    flat: Tensor
    start: int
    first: int
    length: int


class Zero(Strategy):
    """What both stages share. Parameters that train are fp32; frozen ones may have any dtype."""

    stage: int

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> nn.Module:
        """Returns the bare model: DeepSpeed hangs on to its modules by hooks."""
        self.deepspeed = import_deepspeed(self.device)
        self.model = model.to(self.device)
        send_from_first(model)
        self.optimizer = make_optimizer()
        self.engine, *_ = self.deepspeed.initialize(model=model, optimizer=self.optimizer, config=self._config())
        self.zero: Any = self.engine.optimizer
        return model

    def _config(self) -> dict[str, Any]:
        return {
            "train_micro_batch_size_per_gpu": 1,  # of no effect: the loader and the loop see to it
            "gradient_accumulation_steps": 1,
            "gradient_clipping": 0.0,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": {
                "stage": self.stage,
                "overlap_comm": False,
                "reduce_bucket_size": BUCKET_ELEMENTS,
                "allgather_bucket_size": BUCKET_ELEMENTS,
                "stage3_param_persistence_threshold": WHOLE_BELOW,
                # It guesses what comes next by the micro-batch before, and kinds alternate. A parameter on its way
                # cannot be read by a hook of another module, as the task vectors are.
                "stage3_prefetch_bucket_size": 0,
            },
        }

    def backward(self, share: Tensor, *, last: bool) -> None:
        """DeepSpeed averages over the ranks: times their number, that is a sum."""
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(share * self.world, scale_wrt_gas=False)

    def gradient_norm(self) -> float:
        return norm_of_pieces(self._gradients())

    def update(self, norm: float, clip_norm: float) -> None:
        clip_gradients(self._gradients(), norm, clip_norm)
        self.zero.step()
        self.drop_gradients()

    def state(self) -> Iterator[tuple[str, Tensor]]:
        for name, param in trained(self.model):
            piece = self._piece(param)
            moments = self.optimizer.state[piece.flat]
            yield f"param/{name}", self._whole(param, piece, piece.flat)
            for moment in MOMENTS:
                yield f"{moment}/{name}", self._whole(param, piece, moments[moment] if moments else None)
        for name, buffer in kept_buffers(self.model):
            yield f"buffer/{name}", buffer

    @torch.no_grad()
    def set_state(self, read: Callable[[str], Tensor], updates: int) -> None:
        for name, param in trained(self.model):
            piece = self._piece(param)
            put(piece, piece.flat, read(f"param/{name}"))
            if updates:
                moments = self.optimizer.state[piece.flat]
                if not moments:
                    moments |= {each: torch.zeros_like(piece.flat) for each in MOMENTS}
                moments["step"] = torch.tensor(float(updates))
                for each in MOMENTS:
                    put(piece, moments[each], read(f"{each}/{name}"))
        self._spread()
        for name, buffer in kept_buffers(self.model):
            buffer.copy_(read(f"buffer/{name}"))

    def _whole(self, param: nn.Parameter, piece: Piece, flat: Tensor | None) -> Tensor:
        """All of what `flat` holds for a parameter, on every rank; zeros where there is nothing yet."""
        shape = shape_of(param)
        whole = torch.zeros(shape.numel(), device=self.device)
        if flat is not None:
            own = flat.detach().narrow(0, piece.start, piece.length)
            whole.narrow(0, piece.first, piece.length).copy_(own)
            dist.all_reduce(whole)
        return whole.view(shape)

    @abstractmethod
    def _piece(self, param: nn.Parameter) -> Piece:
        """This rank's part of a trained parameter."""

    @abstractmethod
    def _gradients(self) -> list[Tensor]:
        """This rank's pieces of the summed gradients of the step, and padding that is zero."""

    @abstractmethod
    def _spread(self) -> None:
        """Bring what was written to the flat pieces into the parameters of all ranks."""


class Zero2(Zero):
    """Every rank holds all parameters; gradients and moments are in pieces."""

    stage = 2

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> nn.Module:
        super().prepare(model, make_optimizer)
        self._places = {
            param: (group, first)
            for group, (params, firsts) in enumerate(
                zip(self.zero.round_robin_bit16_groups, self.zero.round_robin_bit16_offsets, strict=True)
            )
            for param, first in zip(params, firsts, strict=True)
        }
        return model

    def _piece(self, param: nn.Parameter) -> Piece:
        group, offset = self._places[param]
        size = self.zero.partition_size[group]
        low = min(max(offset, self.rank * size), offset + param.numel())
        high = max(min(offset + param.numel(), (self.rank + 1) * size), low)
        start = low - self.rank * size if high > low else 0
        return Piece(self.zero.single_partition_of_fp32_groups[group], start, low - offset, high - low)

    def _gradients(self) -> list[Tensor]:
        return [grad for grads in self.zero.averaged_gradients.values() for grad in grads]

    def drop_gradients(self) -> None:
        for held in (self.zero.averaged_gradients, self.zero.all_grad_tensors):
            for group in held:
                held[group] = None
        self.zero.zero_grad()

    def _spread(self) -> None:
        self.zero.update_lp_params()

    def weights(self) -> dict[str, Tensor]:
        return weights_of_replica(self)


class Zero3(Zero):
    """Parameters, frozen ones too, gradients and moments are in pieces."""

    stage = 3

    def prepare(self, model: nn.Module, make_optimizer: MakeOptimizer) -> nn.Module:
        super().prepare(model, make_optimizer)
        self.deepspeed.runtime.zero.utils.warned = True  # of outputs that it cannot look into: the heads' are whole
        self._held = [p for unit in model.whole_units() for p in unit.parameters()]  # type: ignore[operator]
        self._hold()
        return model

    def _hold(self) -> None:
        """Gather the whole units until DeepSpeed cuts everything up again, which each update does: it lets go of no
        parameter that a module is said to be busy with. (It lets go of those that it calls persistent as long as the
        order of modules varies, and kinds alternate.)"""
        if self._held:
            self._held[0].all_gather(self._held)
        for param in self._held:
            param.ds_active_sub_modules.add(HELD)

    def update(self, norm: float, clip_norm: float) -> None:
        super().update(norm, clip_norm)
        self._hold()

    def backward(self, share: Tensor, *, last: bool) -> None:
        # The first micro-batch of a step would overwrite gradients instead of adding to them, but only those of the
        # parameters that it reaches: what others got in the step before would stay. The buffer starts at zero instead.
        self.zero.micro_step_id = 1
        super().backward(share, last=last)

    def _piece(self, param: Any) -> Piece:
        group, start, size = self.zero.grad_position[self.zero.get_param_id(param)]
        first = min(self.rank * size, param.ds_numel)
        return Piece(self.zero.fp32_partitioned_groups_flat[group], start, first, min(size, param.ds_numel - first))

    def _gradients(self) -> list[Tensor]:
        return [self.zero.grad_partitions_flat_buffer]

    def drop_gradients(self) -> None:
        self.zero.zero_grad()
        self.zero.grad_partitions_flat_buffer.zero_()

    def _spread(self) -> None:
        self.zero.empty_partition_cache()
        for _, param in trained(self.model):
            flat, start, _, length = self._piece(param)
            part: Any = param
            part.ds_tensor.narrow(0, 0, length).copy_(flat.narrow(0, start, length))  # the same memory but at first
        small = self.zero.persistent_parameters
        if small:
            small[0].all_gather(small)
        self._hold()

    def weights(self) -> dict[str, Tensor]:
        self.zero.empty_partition_cache()
        held = {}
        for name, tensor in self.model.state_dict(keep_vars=True).items():
            with self.deepspeed.zero.GatheredParameters([tensor] if isinstance(tensor, nn.Parameter) else []):
                if self.rank == 0:
                    held[name] = tensor.detach().cpu().clone()
        self._hold()
        return held


def import_deepspeed(device: torch.device) -> Any:
    """The package, told before it is imported where it runs: it chooses a device of its own otherwise."""
    os.environ["LOCAL_RANK"] = str(device.index or 0)
    if device.type == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    # Of collectives that torch has renamed; DeepSpeed calls them in every step.
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.c10d_logger")
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # On a CPU it would compile a shared-memory all-reduce with g++, a minute or two, that training never calls.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def shape_of(param: Any) -> torch.Size:
    """The shape of the whole parameter; that of a partitioned one is (0,)."""
    return param.ds_shape if hasattr(param, "ds_shape") else param.shape


def put(piece: Piece, flat: Tensor, whole: Tensor) -> None:
    """Write a rank's part of a whole tensor into `flat`, a tensor like `piece.flat`."""
    flat.narrow(0, piece.start, piece.length).copy_(whole.reshape(-1).narrow(0, piece.first, piece.length))
