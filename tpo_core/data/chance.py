"""Random numbers that are pure functions of names: the same on any rank, thread, machine and version of numpy."""

import hashlib

import numpy as np


def entropy(*parts: object) -> int:
    """A 128-bit number that depends on every part and on nothing else (no hash seed, no platform)."""
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:16], "big")


def raw_numbers(count: int, *parts: object) -> np.ndarray:
    """(count,) uint64: raw PCG64 output, since numpy keeps that stream fixed over versions, which it does not promise
    of what `Generator` makes of it."""
    return np.random.PCG64(entropy(*parts)).random_raw(count)


def fractions(count: int, *parts: object) -> list[float]:
    """`count` numbers, even over [0, 1), of 53 bits."""
    return [int(raw) * 2.0**-53 for raw in raw_numbers(count, *parts) >> np.uint64(11)]
