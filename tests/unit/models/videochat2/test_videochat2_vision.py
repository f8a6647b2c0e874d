import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import VideoMAEConfig
from transformers.initialization import no_init_weights

from tpo_core.models.videochat2.vision import VisionTower, position_table

PATCHES = 4


@pytest.fixture(params=["sdpa", "eager"])
def tower(request: pytest.FixtureRequest) -> VisionTower:
    torch.manual_seed(0)
    config = VideoMAEConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, num_frames=4, tubelet_size=1,
        image_size=32, patch_size=16, attn_implementation=request.param,
    )  # fmt: skip
    tower = VisionTower(config).eval()
    with torch.no_grad():
        for parameter in tower.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return tower


def clips(batch: int, frames: int, seed: int = 0) -> Tensor:
    return torch.randn(batch, frames, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def angle(place: int, column: int, width: int) -> float:
    return place / 10000 ** (2 * (column // 2) / width)


def test_an_image_and_a_clip_of_the_trained_length_have_the_plain_table():
    for frames in (1, 4):
        table = position_table(frames, 4, PATCHES, 8).numpy()
        for place in (0, 1, frames * PATCHES - 1):
            expected = [(np.cos if j % 2 else np.sin)(angle(place, j, 8)) for j in range(8)]
            np.testing.assert_allclose(table[place], expected, atol=1e-6)


@pytest.mark.parametrize("frames", [2, 3, 8, 16, 33])
def test_other_lengths_are_linear_between_the_trained_frames(frames):
    table = position_table(frames, 4, PATCHES, 8).view(frames, PATCHES, 8)
    trained = position_table(4, 4, PATCHES, 8).view(4, PATCHES, 8)
    for frame in range(frames):
        at = min(max((frame + 0.5) * 4 / frames - 0.5, 0), 3)
        low = int(at)
        high = min(low + 1, 3)
        expected = trained[low] * (1 - (at - low)) + trained[high] * (at - low)
        torch.testing.assert_close(table[frame], expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_the_place_of_a_frame_matters(tower):
    pixels = clips(1, 3)
    forward, backward = tower(pixels).last_hidden_state, tower(pixels.flip(1)).last_hidden_state
    assert forward.shape == (1, 3 * PATCHES, 16)
    assert (forward.view(3, PATCHES, 16) - backward.view(3, PATCHES, 16).flip(0)).abs().max() > 1e-3


@torch.no_grad()
def test_padding_frames_are_as_good_as_none(tower):
    pixels = torch.cat([clips(1, 5, 1), clips(1, 5, 2), clips(1, 5, 3)])
    mask = torch.arange(5) < torch.tensor([[5], [2], [1]])
    together = tower(pixels, mask).last_hidden_state
    for row, frames in enumerate((5, 2, 1)):
        alone = tower(pixels[row : row + 1, :frames]).last_hidden_state[0]
        torch.testing.assert_close(together[row, : frames * PATCHES], alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_a_full_mask_and_no_mask_are_the_same(tower):
    pixels = clips(2, 3)
    assert torch.equal(tower(pixels, torch.ones(2, 3, dtype=torch.bool)).last_hidden_state, tower(pixels)[0])


def test_a_row_without_frames_stays_finite_and_lets_gradients_through(tower):
    pixels, mask = torch.zeros(2, 2, 3, 32, 32), torch.tensor([[False, False], [True, True]])
    tower(pixels, mask).last_hidden_state.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tower.parameters())


@torch.no_grad()
def test_the_table_follows_length_and_dtype_and_never_stays_behind(tower):
    first = tower(clips(1, 3)).last_hidden_state
    tower(clips(1, 7))
    assert torch.equal(tower(clips(1, 3)).last_hidden_state, first)
    half = copy.deepcopy(tower).to(torch.bfloat16)
    states = half(clips(1, 3).bfloat16()).last_hidden_state
    assert states.dtype == torch.bfloat16
    torch.testing.assert_close(states.float(), first, atol=0.2, rtol=0.1)


def test_a_table_first_made_under_inference_mode_serves_training(tower):
    with torch.inference_mode():
        tower(clips(1, 6))
    tower(clips(1, 6)).last_hidden_state.sum().backward()
    assert tower.embeddings.patch_embeddings.projection.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_saving_keeps_no_table_and_loading_needs_none(tower, tmp_path):
    tower.save_pretrained(tmp_path)
    assert not any("position" in name for name in load_file(tmp_path / "model.safetensors"))
    implementation = tower.config._attn_implementation
    loaded = VisionTower.from_pretrained(tmp_path, attn_implementation=implementation).eval()
    with no_init_weights():
        bare = VisionTower(tower.config).eval()
    bare.load_state_dict(tower.state_dict())
    for other in (loaded, bare):
        assert torch.equal(other(clips(1, 5)).last_hidden_state, tower(clips(1, 5)).last_hidden_state)


def test_the_tower_can_be_built_without_memory():
    with torch.device("meta"):
        tower = VisionTower(VideoMAEConfig(hidden_size=16, num_attention_heads=2, num_frames=4, tubelet_size=1))
    states = tower(torch.empty(1, 2, 3, 224, 224, device="meta")).last_hidden_state
    assert (states.device.type, states.shape) == ("meta", (1, 2 * 196, 16))
