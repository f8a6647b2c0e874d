"""What readers of video masks share: index PNGs, the tracks in a folder of them, and lists of expressions.

A mask PNG holds one object index a pixel (0: background). It is opened in its own mode: converting a palette image to
grey or RGB would give colours instead of indices.
"""

from __future__ import annotations

import io
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from tpo_core.data import rle
from tpo_core.data.frames import natural_key
from tpo_core.data.readers._tracks import names_in
from tpo_core.data.sample import Media, Rle, Target, TrackEntry
from tpo_core.storage.uri import join, read_bytes

VOID = 255  # index of pixels that are not judged


@dataclass(frozen=True)
class Expression:
    """One expression of a meta_expressions.json; `name` is "<video>-<number>", `row` counts expressions from 0.

    A video or an expression of another shape has `content` that is not a dict, so that reading it fails by name.
    """

    video: str
    name: str
    row: int
    frames: list[str]
    content: Any


def expressions_of(videos: Iterable[tuple[str, Any]]) -> Iterator[Expression]:
    """The expressions of each (video, {"frames", "expressions"}); one with content None for a video without them."""
    row = 0
    for video, entry in videos:
        frames, inner = (entry.get("frames"), entry.get("expressions")) if isinstance(entry, dict) else (None, None)
        if not isinstance(frames, list) or not isinstance(inner, dict):
            frames, inner = [], {"": None}
        for number, content in inner.items():
            yield Expression(video, f"{video}-{number}" if number else video, row, frames, content)
            row += 1


@dataclass
class Masks:
    """The masks of a folder of PNGs: object index -> position of the frame -> mask. `size` is (width, height)."""

    size: tuple[int, int] | None = None
    of: dict[int, dict[int, Rle]] = field(default_factory=dict)
    positions: list[int] = field(default_factory=list)

    def track(self, index: int) -> tuple[TrackEntry, ...]:
        """The object at every annotated frame; absent where no pixel has its index."""
        return track_of(self.positions, self.of.get(index, {}))

    def void(self) -> tuple[Target, ...]:
        """The target of the pixels that are not judged, if there are any; no turn refers to it."""
        track = self.track(VOID)
        shown = any(entry.visible for entry in track)
        return (Target("track", label="void", object_id=str(VOID), track=track),) if shown else ()

    def missing(self, frames: Sequence[str]) -> list[str]:
        """Those of the frames, by name, that have no PNG."""
        there = set(self.positions)
        return [frame for position, frame in enumerate(frames) if position not in there]

    def objects(self) -> list[int]:
        return sorted(index for index in self.of if index != VOID)


def stills(
    folder: str,
    frames: Sequence[str],
    size: tuple[int, int] | None,
    fps: float | None = 30.0,
    stride: int | None = 5,
) -> Media:
    """The media of a folder of JPEG files; by default every fifth one of 30 frames a second, as YouTube-VOS has."""
    width, height = size or (None, None)
    names = tuple(f"{frame}.jpg" for frame in frames)
    return Media(
        folder, "frames", width=width, height=height, fps=fps, n_frames=len(names), frame_stride=stride,
        frame_names=names,
    )  # fmt: skip


def png_stems(root: str, folder: str) -> list[str]:
    """The names of the PNGs in a folder without suffix, in numerical order."""
    names = (name for name in names_in(root, folder) if name.endswith(".png"))
    return sorted((name.removesuffix(".png") for name in names), key=natural_key)


def track_of(positions: Iterable[int], masks: Mapping[int, Rle]) -> tuple[TrackEntry, ...]:
    """A track with an entry at each position; absent where there is no mask or one without pixels."""
    entries = []
    for position in positions:
        mask = masks.get(position)
        box = None if mask is None else rle.bbox(mask)
        entries.append(TrackEntry(position, box is not None, box=box, rle=None if box is None else mask))
    return tuple(entries)


def read_index_png(root: str, path: str) -> np.ndarray:
    """The indices (H, W) of a palette, grey or two-valued PNG, as stored. ValueError for another mode or a damage."""
    try:
        content = read_bytes(join(root, path))  # not below: a storage that fails has no damaged mask
    except FileNotFoundError as error:
        raise ValueError(f"the mask {path} is not there") from error
    try:
        with Image.open(io.BytesIO(content)) as image:
            mode, index_HW = image.mode, np.asarray(image)
    except (OSError, SyntaxError) as error:  # what PIL raises on a damaged file
        raise ValueError(f"the mask {path} cannot be read ({error})") from error
    if mode not in ("P", "L", "1"):
        raise ValueError(f"the mask {path} holds colours (mode {mode}), not indices")
    return index_HW


def read_masks(root: str, folder: str, frames: Sequence[str], *, binary: bool = False) -> Masks:
    """The masks of the frames (names without suffix, in order) that have a PNG in `folder`; one is read at a time.

    `binary`: every pixel that is not 0 belongs to object 1, whatever its value. ValueError where the sizes differ.
    """
    masks, there = Masks(), set(names_in(root, folder))
    for position, frame in enumerate(frames):
        name = f"{frame}.png"
        if name not in there:
            continue
        index_HW = read_index_png(root, posixpath.join(folder, name))
        size = (index_HW.shape[1], index_HW.shape[0])
        if masks.size not in (None, size):
            raise ValueError(f"the mask {folder}/{name} is {size}, the ones before it {masks.size} pixels")
        masks.size = size
        masks.positions.append(position)
        found = [1] if binary else np.unique(index_HW).tolist()
        for index in found:
            if index:
                mask = rle.encode(index_HW != 0 if binary else index_HW == index)
                masks.of.setdefault(int(index), {})[position] = mask
    return masks
