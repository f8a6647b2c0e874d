"""The strategy that a recipe names. A file is imported only when its strategy is chosen: DeepSpeed takes seconds."""

import torch

from tpo_core.train.strategies.base import Strategy
from tpo_core.train.strategies.replicated import Replicated


def make_strategy(name: str, device: torch.device | str = "cpu") -> Strategy:
    """The strategy `train.strategy`; a process group must be there when there is more than one process."""
    assert name == "ddp", name
    return Replicated(device)
