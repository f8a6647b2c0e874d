"""Reads masks: PNG files, and the run lengths of COCO."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from pycocotools import mask as coco_mask

from tpo_core.errors import TpoError
from tpo_core.metrics import masks

VOID = 255


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
    """The bool mask (H, W) of {"size": [H, W], "counts": compressed text}."""
    try:
        return np.asarray(coco_mask.decode(run_lengths)).astype(bool)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise TpoError(f"{where}: not the run lengths of COCO ({error})") from None


def pair_scores(prediction_HW: np.ndarray, truth_HW: np.ndarray) -> tuple[float, float]:
    """J and F of one frame."""
    found, true = masks.shape_of(prediction_HW), masks.shape_of(truth_HW)
    return masks.region_j(found, true), masks.contour_f(found, true)
