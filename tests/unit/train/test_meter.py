"""What devices do at best, and the memory that is used."""

import pytest
import torch

from tpo_core.train.meter import known_tflops, memory_bytes, peak_flops

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.5),
        ("NVIDIA H100 PCIe", 756.5),
        ("NVIDIA H200", 989.5),
        ("NVIDIA H200 NVL", 835.5),
        ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA A10", 125.0),
        ("NVIDIA A10G", None),  # another chip than A10
        ("NVIDIA L40S", 362.05),
        ("Quadro of tomorrow", None),
    ],
)
def test_a_device_is_known_by_its_name_or_not_at_all(name, tflops):
    assert known_tflops(name) == tflops


def test_a_cpu_and_full_precision_have_no_known_peak_but_the_user_may_tell_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA H100 80GB HBM3")
    assert peak_flops(torch.device("cuda"), "bf16", None) == 989.5e12
    assert peak_flops(torch.device("cuda"), "fp32", None) is None
    assert peak_flops(CPU, "bf16", None) is None
    assert peak_flops(CPU, "fp32", 2.5) == 2.5e12


def test_memory_on_a_cpu_is_that_of_the_process():
    before = memory_bytes(CPU)
    held = torch.ones(64 * 2**20 // 4)  # more than 32 MiB: malloc takes it from the system and not from what was freed
    assert memory_bytes(CPU) > before + 48 * 2**20
    del held


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_memory_on_a_gpu_is_the_most_that_tensors_took():
    device = torch.device("cuda")
    torch.cuda.reset_peak_memory_stats()
    held = torch.ones(2**26, device=device)
    del held
    assert memory_bytes(device) >= 2**28
