"""A random visual context for head tests."""

from collections.abc import Callable

import pytest
import torch

from tpo_core.heads.base import HeadContext


@pytest.fixture
def random_context() -> Callable[..., HeadContext]:
    return build


def build(batch: int, frames: int, *, grid: int = 4, vision: int = 16, pixels: int = 32) -> HeadContext:
    times = (torch.arange(frames) + 0.5) * (10.0 / frames)
    return HeadContext(
        patches_BTNC=torch.randn(batch, frames, grid * grid, vision),
        grid_hw=(grid, grid),
        pixels_BTCHW=torch.randn(batch, frames, 3, pixels, pixels),
        frame_mask_BT=torch.ones(batch, frames, dtype=torch.bool),
        times_s_BT=times.repeat(batch, 1),
        duration_s_B=torch.full((batch,), 10.0),
        size_wh_B2=torch.tensor([[64.0, 48.0]]).repeat(batch, 1),
    )
