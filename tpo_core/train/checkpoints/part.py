"""One rank's part of a checkpoint: a safetensors file with its flat slice of every tensor.

Written here and not by the safetensors package, because that copies every tensor once more and holds the interpreter
for the whole write, which stops the training that goes on beside it; and the checksum comes from the same pass. The
format is that of https://github.com/huggingface/safetensors#format, so that the package reads it.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
BLOCK_BYTES = 8 << 20  # hashed and written at a time; both let other threads run meanwhile


@dataclass(frozen=True)
class File:
    """A file of a checkpoint, as it was written."""

    name: str
    size_bytes: int
    sha256: str


def owned(numel: int, rank: int, world: int) -> slice:
    """The numbers of a flat tensor that a rank keeps; together the ranks keep all of them, in order."""
    return slice(rank * numel // world, (rank + 1) * numel // world)


def write_part(path: Path, slices: Mapping[str, Tensor]) -> File:
    """Write flat CPU tensors by name, synced to disk. OSError when the disk is full."""
    # Wide numbers first: each tensor is then aligned to its own width, which readers that map the file want.
    names = sorted(slices, key=lambda name: -slices[name].itemsize)
    digest, offset, header = hashlib.sha256(), 0, {}
    for name in names:
        tensor = slices[name]
        end = offset + tensor.nbytes
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        head = memoryview(len(text).to_bytes(8, "little") + text)
        for view in (head, *(_bytes(slices[name]) for name in names)):
            for start in range(0, len(view), BLOCK_BYTES):
                block = view[start : start + BLOCK_BYTES]
                file.write(block)
                digest.update(block)
        file.flush()
        os.fsync(file.fileno())
    return File(path.name, path.stat().st_size, digest.hexdigest())


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.view(torch.uint8).numpy().data
