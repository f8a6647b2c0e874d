"""Small index PNGs for the tests of readers of masks."""

import numpy as np
from PIL import Image

PALETTE = [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0] + [250, 250, 250] * 252


def squares(*placed, size=(12, 20)):
    """(12, 20) indices with a 3 x 3 square for each (index, x), its top at row 2."""
    index_HW = np.zeros(size, np.uint8)
    for index, x in placed:
        index_HW[2:5, x : x + 3] = index
    return index_HW


def save(path, index_HW, mode="P"):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(index_HW)
    if mode == "P":
        image.putpalette(PALETTE)  # of colours whose grey values are no indices
    elif mode == "RGB":
        image = image.convert("RGB")
    image.save(path)


def left_edges(track):
    """Of each entry: the frame and the left edge of its box, None where it is absent."""
    return [(entry.frame, entry.box[0] if entry.visible else None) for entry in track]
