"""Folders of mask PNGs, as the official scorers of video masks read them.

A prediction is one mask a frame of its sample, or None where nothing is predicted. Files are named after the frames of
the sample (`Media.frame_names`), else by their number in five digits. An empty mask and None are the same in a PNG.
- MeViS, Ref-YouTube-VOS: `<video>/<expression>/<frame>.png`, grey, 255 is the object.
- DAVIS, Ref-DAVIS17, YouTube-VOS: `<sequence>/<frame>.png`, palette, the INDEX is the object.
- SA-V: `<video>/<object>/<frame>.png`, grey, one object a file.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np
from PIL import Image

from tpo_core.data import rle
from tpo_core.data.sample import Rle, Sample
from tpo_core.errors import TpoError
from tpo_core.storage.uri import join, read_bytes, write_bytes

Masks = Mapping[int, Rle | None]  # frame of the sample -> its mask


def _palette() -> list[int]:
    """The colours that DAVIS and PASCAL VOC paint indices with: the bits of an index, spread over red, green, blue."""
    colours = []
    for index in range(256):
        for channel in range(3):
            colours.append(sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)))
    return colours


PALETTE = _palette()


def _name(sample: Sample, frame: int) -> str:
    names = sample.media[0].frame_names
    return f"{PurePosixPath(names[frame]).stem if names else f'{frame:05d}'}.png"


def _size(sample: Sample) -> tuple[int, int]:
    """(height, width)."""
    media = sample.media[0]
    if media.height is None or media.width is None:
        raise TpoError(f"{sample.sample_id}: masks need the size of the media")
    return media.height, media.width


def _save(uri: str, index_HW: np.ndarray, palette: bool = False) -> None:
    image = Image.fromarray(index_HW)
    if palette:
        image.putpalette(PALETTE)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    write_bytes(uri, buffer.getvalue())


def _load(uri: str) -> np.ndarray:
    with Image.open(io.BytesIO(read_bytes(uri))) as image:
        return np.asarray(image)


def _pixels(sample: Sample, mask: Rle | None) -> np.ndarray:
    """The mask as bool (H, W). TpoError where it has not the size of the media."""
    h, w = _size(sample)
    if mask is None:
        return np.zeros((h, w), bool)
    if (mask.h, mask.w) != (h, w):
        raise TpoError(f"{sample.sample_id}: a mask of {mask.h} x {mask.w} for frames of {h} x {w}")
    return rle.decode(mask)


def _mask(pixels_HW: np.ndarray) -> Rle | None:
    return rle.encode(pixels_HW) if pixels_HW.any() else None


def _write(folder: str, sample: Sample, masks: Masks) -> None:
    for frame, mask in masks.items():
        _save(join(folder, _name(sample, frame)), _pixels(sample, mask).astype(np.uint8) * 255)


def _read(folder: str, sample: Sample, frames: Iterable[int]) -> dict[int, Rle | None]:
    return {frame: _mask(_load(join(folder, _name(sample, frame))) != 0) for frame in frames}


def _split_id(folder: str, sample: Sample) -> str:
    """The folder of "<video>-<expression or object>"."""
    video, _, part = sample.provenance.native_id.rpartition("-")
    return join(folder, video, part)


def write_expression(folder: str, sample: Sample, masks: Masks) -> None:
    """Writes the masks of an expression of MeViS or Ref-YouTube-VOS. TpoError: a mask of another size."""
    _write(_split_id(folder, sample), sample, masks)


def read_expression(folder: str, sample: Sample, frames: Iterable[int]) -> dict[int, Rle | None]:
    """The masks of an expression on these frames. FileNotFoundError where a frame has none; so do all below."""
    return _read(_split_id(folder, sample), sample, frames)


def write_sa_v(folder: str, sample: Sample, masks: Masks) -> None:
    """Writes the masks of one object of SA-V."""
    _write(_split_id(folder, sample), sample, masks)


def read_sa_v(folder: str, sample: Sample, frames: Iterable[int]) -> dict[int, Rle | None]:
    """The masks of one object of SA-V on these frames."""
    return _read(_split_id(folder, sample), sample, frames)


def _object(sample: Sample) -> int:
    index = int(next(target.object_id for target in sample.targets if target.object_id is not None))
    if not 0 < index < 255:
        raise TpoError(f"{sample.sample_id}: {index} is no index of an object in a palette PNG")
    return index


def write_palette(folder: str, tracks: Sequence[tuple[Sample, Masks]]) -> None:
    """Writes the masks of all objects of one sequence or video, which share a file a frame.

    One file holds one object a pixel: where masks overlap, the pixel is that of the object that comes first in
    `tracks`. For Ref-DAVIS17 give the expressions of one run, and a folder for each run.
    """
    write_indices(join(folder, _sequence(tracks[0][0])), tracks)


def write_indices(folder: str, tracks: Sequence[tuple[Sample, Masks]]) -> None:
    """The same into the folder of the sequence itself, whatever that is called."""
    frames = sorted({frame for _, masks in tracks for frame in masks})
    for frame in frames:
        index_HW = np.zeros(_size(tracks[0][0]), np.uint8)
        for sample, masks in reversed(tracks):
            index_HW[_pixels(sample, masks.get(frame))] = _object(sample)
        _save(join(folder, _name(tracks[0][0], frame)), index_HW, palette=True)


def read_palette(folder: str, sample: Sample, frames: Iterable[int]) -> dict[int, Rle | None]:
    """The masks of one object on these frames."""
    place = join(folder, _sequence(sample))
    return {frame: _mask(_load(join(place, _name(sample, frame))) == _object(sample)) for frame in frames}


def _sequence(sample: Sample) -> str:
    """The folder of frames is named after the sequence."""
    return PurePosixPath(sample.media[0].uri).name
