"""Reads masks: PNG files, and the run lengths of COCO."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco_mask

from tpo_core.errors import TpoError
from tpo_core.metrics import masks

VOID = 255
MOST_PIXELS = 1 << 28  # of one mask; PIL refuses pictures of more than 179 million


def indices(path: Path) -> np.ndarray:
    """The palette indices, or the grey values, of a PNG, (H, W) uint8. TpoError for anything else."""
    found = np.asarray(_opened(path))
    if found.ndim != 2:
        raise TpoError(f"{path}: has colours; a mask is a PNG with a palette or grey values")
    return found


def grey(path: Path) -> np.ndarray:
    """The brightness of a PNG of any kind, (H, W) uint8, a palette being looked up. TpoError if it is no image.

    Of 16 bits the upper eight count, as in OpenCV's reading of a grey image.
    """
    image = _opened(path)
    if image.mode.startswith("I"):
        return (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
    return np.asarray(image.convert("L"))


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    except FileNotFoundError:
        raise TpoError(f"{path}: there is no such file") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise TpoError(f"{path}: not a PNG that can be read ({error})") from None


def decoded(run_lengths: dict[str, Any], where: str) -> np.ndarray:
    """The bool mask (H, W) of {"size": [H, W], "counts": compressed text}. TpoError for anything else: pycocotools
    takes the size on trust, and writes beyond a mask that the runs do not fit into."""
    try:
        height, width = run_lengths["size"]
        pixels = sum(_runs(run_lengths["counts"]))
        whole = all(isinstance(side, int) and side > 0 for side in (height, width))
        if not (whole and height * width == pixels <= MOST_PIXELS):
            raise ValueError(f"runs of {pixels} pixels for size {height} x {width}")
        return np.asarray(coco_mask.decode(run_lengths)).astype(bool)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise TpoError(f"{where}: not the run lengths of COCO ({error})") from None


def _runs(counts: str | bytes) -> list[int]:
    """Run lengths out of COCO's text: five bits a character, a sixth says that more follow; from the third run on, what
    is told is the difference to the run before the last."""
    runs: list[int] = []
    value = shift = 0
    for code in counts.encode() if isinstance(counts, str) else counts:
        bits = code - ord("0")
        value |= (bits & 0x1F) << shift
        shift += 5
        if not bits & 0x20:
            value -= (1 << shift) if bits & 0x10 else 0
            runs.append(value + runs[-2] if len(runs) > 2 else value)
            value = shift = 0
    if shift or any(run < 0 for run in runs):
        raise ValueError("the text of the runs is damaged")
    return runs


def pair_scores(prediction_HW: np.ndarray, truth_HW: np.ndarray) -> tuple[float, float]:
    """J and F of one frame."""
    found, true = masks.shape_of(prediction_HW), masks.shape_of(truth_HW)
    return masks.region_j(found, true), masks.contour_f(found, true)
