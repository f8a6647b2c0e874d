"""The strategy that a recipe names. A file is imported only when its strategy is chosen: DeepSpeed takes seconds."""

import torch
import torch.distributed as dist

from tpo_core.train.strategies.base import Strategy
from tpo_core.train.strategies.replicated import Replicated


def make_strategy(name: str, device: torch.device | str = "cpu") -> Strategy:
    """The strategy `train.strategy`; a process group must be there when there is more than one process.

    A single process has nothing to cut up: it is `ddp` whatever was asked for, and its states fit all the others.
    """
    if name == "ddp" or not dist.is_initialized() or dist.get_world_size() == 1:
        return Replicated(device)
    if name == "fsdp2":
        from tpo_core.train.strategies.fsdp import FullySharded

        return FullySharded(device)
    from tpo_core.train.strategies.zero import Zero2, Zero3

    return {"zero2": Zero2, "zero3": Zero3}[name](device)
