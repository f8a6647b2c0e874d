"""Masks as bits, 64 pixels a word: contours, dilation and counting at some milliseconds a frame.

A plane is uint64 (..., H, words); bit i of word j is column 64 j + i, and the bits beyond the width are 0.
"""

import math

import numpy as np

WORD = 64


def pack(masks: np.ndarray) -> np.ndarray:
    """The plane (..., H, words) of bool masks (..., H, W)."""
    octets = np.packbits(masks, axis=-1, bitorder="little")
    padding = [(0, 0)] * (octets.ndim - 1) + [(0, -octets.shape[-1] % 8)]
    return np.ascontiguousarray(np.pad(octets, padding)).view("<u8")


def unpack(plane: np.ndarray, width: int) -> np.ndarray:
    """The bool masks (..., H, W) of a plane."""
    octets = np.ascontiguousarray(plane).view(np.uint8)
    return np.unpackbits(octets, axis=-1, bitorder="little", count=width).astype(bool)


def count(plane: np.ndarray) -> np.ndarray:
    """How many pixels are set, int64 (...)."""
    return np.bitwise_count(plane).sum(axis=(-2, -1), dtype=np.int64)


def boundary(plane: np.ndarray, width: int) -> np.ndarray:
    """The plane of the pixels that differ from their right, lower or lower right neighbour.

    The last row looks right only, the last column down only, their corner nowhere.
    """
    has_right = pack(np.arange(width) < width - 1)
    right = _left(plane, 1)
    edge = (plane ^ right) & has_right
    edge[..., :-1, :] |= plane[..., :-1, :] ^ plane[..., 1:, :]
    edge[..., :-1, :] |= (plane[..., :-1, :] ^ right[..., 1:, :]) & has_right
    return edge


def dilate(plane: np.ndarray, width: int, radius: float) -> np.ndarray:
    """The plane of every pixel within `radius` (Euclidean) of a set one; nothing beyond the image.

    A disk is a stack of horizontal bars. The bars are widened one column at a time, and each is laid down in the rows
    that have its width.
    """
    height = plane.shape[-2]
    reach = min(math.floor(radius), height - 1)
    rows_of: dict[int, list[int]] = {}
    for dy in range(reach + 1):
        rows_of.setdefault(min(math.isqrt(math.floor(radius**2 - dy**2)), width - 1), []).append(dy)
    wide, bar = np.zeros_like(plane), plane.copy()
    for half in range(max(rows_of) + 1):
        if half:
            bar |= _left(plane, half)
            bar |= _right(plane, half)
        for dy in rows_of.get(half, ()):
            wide[..., dy:, :] |= bar[..., : height - dy, :]
            wide[..., : height - dy, :] |= bar[..., dy:, :]
    return wide & pack(np.ones(width, bool))


def _left(plane: np.ndarray, columns: int) -> np.ndarray:
    """Every pixel moved `columns` to the left; what leaves the image is gone."""
    words, within = divmod(columns, WORD)
    moved = np.zeros_like(plane)
    kept = plane.shape[-1] - words
    if kept > 0:
        moved[..., :kept] = plane[..., words:] >> np.uint64(within)
    if within and kept > 1:
        moved[..., : kept - 1] |= plane[..., words + 1 :] << np.uint64(WORD - within)
    return moved


def _right(plane: np.ndarray, columns: int) -> np.ndarray:
    """Every pixel moved `columns` to the right; bits beyond the width may be set."""
    words, within = divmod(columns, WORD)
    moved = np.zeros_like(plane)
    kept = plane.shape[-1] - words
    if kept > 0:
        moved[..., words:] = plane[..., :kept] << np.uint64(within)
    if within and kept > 1:
        moved[..., words + 1 :] |= plane[..., : kept - 1] >> np.uint64(WORD - within)
    return moved
