"""How much of its devices a run uses: memory, and arithmetic against what they can do at best (MFU)."""

import re

import psutil
import torch

TERA = 1e12

# Dense bf16 TFLOP/s of tensor cores, without sparsity (the data sheets of Hopper and later print the sparse number,
# twice this). The first entry counts all of whose words are in torch.cuda.get_device_name ("NVIDIA A100-SXM4-80GB").
PEAK_TFLOPS = {
    "B200": 2250.0,  # https://resources.nvidia.com/en-us-blackwell-architecture
    "H200 NVL": 835.5,  # https://www.nvidia.com/en-us/data-center/h200/, 1,671 sparse
    "H200": 989.5,  # as above, SXM, 1,979 sparse
    "H100 PCIe": 756.5,  # https://www.nvidia.com/en-us/data-center/h100/, 1,513 sparse
    "H100 NVL": 835.5,  # as above, 1,671 sparse
    "H100": 989.5,  # as above, SXM, 1,979 sparse
    "A100": 312.0,  # https://www.nvidia.com/en-us/data-center/a100/
    "A40": 149.7,  # https://www.nvidia.com/en-us/data-center/a40/
    "A10": 125.0,  # https://www.nvidia.com/en-us/data-center/products/a10-gpu/
    "L40S": 362.05,  # https://www.nvidia.com/en-us/data-center/l40s/, 733 sparse
    "L4": 121.0,  # https://www.nvidia.com/en-us/data-center/l4/, 242 sparse
}


def peak_flops(device: torch.device, precision: str, tflops: float | None) -> float | None:
    """FLOP/s that one device does at best in `precision`, or None where that is not known.

    tflops: what the user says, which counts whatever the device. By name only bf16 on a CUDA device is known: what
    fp32 does at best depends on whether matrix products may take TF32.
    """
    if tflops is not None:
        return tflops * TERA
    if device.type != "cuda" or precision != "bf16":
        return None
    known = known_tflops(torch.cuda.get_device_name(device))
    return known and known * TERA


def known_tflops(name: str) -> float | None:
    """Of a device by the name that CUDA gives it."""
    words = set(re.split(r"[ -]", name))
    return next((tflops for model, tflops in PEAK_TFLOPS.items() if words.issuperset(model.split())), None)


def memory_bytes(device: torch.device) -> int:
    """On CUDA the most that tensors of this process took on the device so far; else the process's resident memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return psutil.Process().memory_info().rss
