"""COCO run-length masks in numpy: column-major runs, background first, in the compressed text form of the COCO API.

The text form packs each run in 6-bit characters (5 bits of value, 1 continuation bit, offset 48, last character
sign-extended); from the fourth run on the difference to the run two back is stored. Polygons are filled by the COCO
rule (edges walked at 5x resolution, crossings kept at pixel centres), so areas equal those of the official tools.
Format: https://cocodataset.org/#format-data
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tpo_core.data.record import Box, Rle

_POLYGON_SCALE = 5
_FARTHEST_PX = 1e6  # of a polygon's corner: edges are walked point by point, and one to infinity has no end


def encode(mask_HW: np.ndarray) -> Rle:
    """Run lengths of a binary mask (H, W); every non-zero value is foreground."""
    h, w = mask_HW.shape
    flat = np.asarray(mask_HW, dtype=bool).ravel(order="F")
    changes = np.flatnonzero(np.diff(flat, prepend=False)) if flat.size else np.zeros(0, np.int64)
    return from_runs(h, w, np.diff(np.concatenate([[0], changes, [flat.size]])))


def decode(rle: Rle) -> np.ndarray:
    """The mask, bool (H, W). Raises ValueError when the runs do not fill the mask."""
    lengths = runs(rle)
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape((rle.w, rle.h)).T


def runs(rle: Rle) -> np.ndarray:
    """Run lengths int64, alternating background and foreground, starting with background (0 when there is none)."""
    codes = np.frombuffer(rle.counts, dtype=np.uint8).astype(np.int64) - 48
    if codes.size and (codes.min() < 0 or codes.max() > 63 or codes[-1] & 0x20):
        raise ValueError("mask counts are not compressed COCO run lengths")
    ends = np.flatnonzero((codes & 0x20) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1]) if ends.size else np.zeros(0, np.int64)
    widths = ends - starts + 1
    if widths.size and widths.max() > 12:
        raise ValueError("mask counts hold a run beyond 64 bits")
    digit = np.arange(codes.size) - np.repeat(starts, widths)
    values = np.add.reduceat((codes & 0x1F) << (5 * digit), starts) if starts.size else np.zeros(0, np.int64)
    values -= np.where(codes[ends] & 0x10, np.int64(1) << (5 * widths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    if values.sum() != rle.h * rle.w or (values.size and values.min() < 0):
        raise ValueError(f"mask runs cover {values.sum()} pixels, the mask has {rle.h} x {rle.w}")
    return values


def from_runs(h: int, w: int, lengths: Sequence[int] | np.ndarray) -> Rle:
    """Compresses run lengths (the uncompressed `counts` list of COCO). Raises ValueError when they do not fit."""
    values = np.asarray(lengths, dtype=np.int64)
    if values.sum() != h * w or (values.size and values.min() < 0):
        raise ValueError(f"mask runs cover {values.sum()} pixels, the mask has {h} x {w}")
    deltas = values.copy()
    deltas[3:] -= values[1:-2]
    text = bytearray()
    for delta in deltas.tolist():
        while True:
            digit = delta & 0x1F
            delta >>= 5
            last = delta == (-1 if digit & 0x10 else 0)
            text.append((digit if last else digit | 0x20) + 48)
            if last:
                break
    return Rle(h, w, bytes(text))


def bbox(rle: Rle) -> Box | None:
    """The tight box (x1, y1, x2, y2), half-open, in pixels; None for an empty mask (COCO says 0, 0, 0, 0)."""
    lengths = runs(rle)
    edges = np.concatenate([[0], np.cumsum(lengths)])
    first, last = edges[1:-1:2], edges[2::2] - 1
    first, last = first[lengths[1::2] > 0], last[lengths[1::2] > 0]
    if not first.size:
        return None
    x1, x2 = first // rle.h, last // rle.h
    if (x1 != x2).any():
        y1, y2 = 0, rle.h - 1
    else:
        y1, y2 = (first % rle.h).min(), (last % rle.h).max()
    return (float(x1.min()), float(y1), float(x2.max() + 1), float(y2 + 1))


def union(rles: Iterable[Rle]) -> Rle:
    """The union of one or more masks of one size."""
    masks = [decode(rle) for rle in rles]
    return encode(np.logical_or.reduce(masks))


def from_polygons(polygons: Iterable[Sequence[float]], h: int, w: int) -> Rle:
    """The union of filled polygons [x0, y0, x1, y1, ...] (pixels, 0-based) as COCO rasterises them.

    Raises:
        ValueError: a polygon without corners, half a corner, or a corner that cannot be.
    """
    mask_HW = np.zeros((h, w), dtype=bool)
    for polygon in polygons:
        mask_HW |= _fill(polygon, h, w)
    return encode(mask_HW)


def from_coco(segmentation: Any, h: int, w: int) -> Rle:
    """Any `segmentation` of a COCO file: polygons, a list of runs, or compressed counts (str or bytes)."""
    if isinstance(segmentation, list):
        return from_polygons(segmentation, h, w)
    height, width = map(int, segmentation["size"])
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return from_runs(height, width, counts)
    if not isinstance(counts, (str, bytes)):
        raise ValueError(f"the counts of a mask are {type(counts).__name__}")
    return Rle(height, width, counts.encode("ascii") if isinstance(counts, str) else counts)


def to_coco(rle: Rle) -> dict[str, Any]:
    """The `segmentation` of a COCO file with compressed counts, which JSON can hold. Inverse of `from_coco`."""
    return {"size": [rle.h, rle.w], "counts": rle.counts.decode("ascii")}


def _fill(polygon: Sequence[float], h: int, w: int) -> np.ndarray:
    given_N2 = np.asarray(polygon, dtype=np.float64).reshape(-1, 2)
    if not (np.abs(given_N2) < _FARTHEST_PX).all():  # NaN too
        raise ValueError("a polygon has a corner that is not finite or far outside any image")
    corners_N2 = (given_N2 * _POLYGON_SCALE + 0.5).astype(np.int64)
    edges = zip(corners_N2, np.roll(corners_N2, -1, axis=0), strict=True)
    u, v = np.concatenate([_walk(start, end) for start, end in edges], axis=1)
    step = np.flatnonzero(u[1:] != u[:-1])
    x = (np.where(u[step + 1] < u[step], u[step + 1], u[step + 1] - 1) + 0.5) / _POLYGON_SCALE - 0.5
    y = (np.minimum(v[step + 1], v[step]) + 0.5) / _POLYGON_SCALE - 0.5
    centre = (np.floor(x) == x) & (x >= 0) & (x <= w - 1)
    column = x[centre].astype(np.int64)
    row = np.ceil(np.clip(y[centre], 0, h)).astype(np.int64)
    toggles = np.bincount(column * h + row, minlength=h * w + 1)[: h * w]
    return (np.cumsum(toggles) % 2 == 1).reshape((w, h)).T


def _walk(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Integer points (2, n) of an edge, stepping by 1 along its longer axis; interpolated from its lower end."""
    along = 0 if abs(end[0] - start[0]) >= abs(end[1] - start[1]) else 1
    backwards = start[along] > end[along]
    low, high = (end, start) if backwards else (start, end)
    length = int(high[along] - low[along])
    t = np.arange(length + 1)
    slope = (high[1 - along] - low[1 - along]) / length if length else 0.0
    points = np.empty((2, length + 1), dtype=np.int64)
    points[along] = low[along] + t
    points[1 - along] = (low[1 - along] + slope * t + 0.5).astype(np.int64)
    return points[:, ::-1] if backwards else points
