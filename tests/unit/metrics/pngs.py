"""Small masks as PNGs, for the scorers that read folders of them."""

import numpy as np
from PIL import Image

H, W = 24, 32


def image(*squares, size=(H, W)):
    """Squares of 8 x 8 by (number, top, left)."""
    drawn = np.zeros(size, np.uint8)
    for number, top, left in squares:
        drawn[top : top + 8, left : left + 8] = number
    return drawn


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def save_all(folder, frames, step=1):
    for number, pixels in enumerate(frames):
        save(folder / f"{number * step:05}.png", pixels)


def counts(report):
    return {reason: entry["count"] for reason, entry in report.rejected.items()}


ONE = image((1, 2, 2))
NONE = image()
