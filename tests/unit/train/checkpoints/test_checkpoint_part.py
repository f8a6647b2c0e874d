import hashlib

import pytest
import torch
from safetensors import safe_open

from tpo_core.train.checkpoints.part import DTYPES, owned, write_part


@pytest.mark.parametrize("numel", [0, 1, 2, 7, 64])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_ranks_own_all_numbers_once_and_in_order(numel, world):
    numbers = list(range(numel))
    assert [n for rank in range(world) for n in numbers[owned(numel, rank, world)]] == numbers


def test_the_package_reads_what_is_written(tmp_path):
    generator = torch.Generator().manual_seed(0)
    slices = {str(dtype): (100 * torch.randn(5, generator=generator)).to(dtype) for dtype in sorted(DTYPES, key=str)}
    slices["one"] = torch.ones(1)
    part = write_part(tmp_path / "a.safetensors", slices)
    data = (tmp_path / "a.safetensors").read_bytes()
    assert (part.name, part.size_bytes, part.sha256) == (
        "a.safetensors", len(data), hashlib.sha256(data).hexdigest(),
    )  # fmt: skip
    with safe_open(tmp_path / "a.safetensors", framework="pt") as opened:
        assert set(opened.keys()) == set(slices)
        for name, tensor in slices.items():
            read = opened.get_tensor(name)
            assert read.dtype == tensor.dtype
            assert torch.equal(read, tensor)


def test_a_part_of_nothing_can_be_read(tmp_path):
    write_part(tmp_path / "a.safetensors", {})
    with safe_open(tmp_path / "a.safetensors", framework="pt") as opened:
        assert list(opened.keys()) == []


def test_the_checksum_covers_tensors_larger_than_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr("tpo_core.train.checkpoints.part.BLOCK_BYTES", 16)
    part = write_part(tmp_path / "a.safetensors", {"x": torch.arange(1000)})
    assert part.sha256 == hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    with safe_open(tmp_path / "a.safetensors", framework="pt") as opened:
        assert torch.equal(opened.get_tensor("x"), torch.arange(1000))
