"""What to take from a media file and what comes back: requests, results, and the choice of frames by time."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass

import numpy as np
from PIL import Image

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")


class DecodeError(Exception):
    """No decoder could read a media file; one line. `detail` is that line without the name of the file."""

    def __init__(self, uri: str, detail: str) -> None:
        super().__init__(f"{uri}: {detail}")
        self.detail = detail


@dataclass(frozen=True)
class DecodeRequest:
    """What to read from one media file.

    `n_frames`: the frames shown at the midpoints of that many equal intervals of the media, or of `clip_s`, each at
    most once; `prefer_frames` are taken in place of the midpoint where an interval holds one (annotated frames), and
    `also_frames` are added to the choice; those of either that the media does not have are left out.

    `frame_names`, `fps` and `frame_stride` belong to kind "frames": files in order (None: all of the folder, sorted
    numerically), frames per second of the source (None: the files are one second apart) and how many frames of the
    source lie between two files. `jpeg_quality` None returns raw frames.
    """

    uri: str
    kind: str
    short_side_px: int
    n_frames: int
    prefer_frames: tuple[int, ...] = ()
    also_frames: tuple[int, ...] = ()
    clip_s: tuple[float, float] | None = None
    frame_names: tuple[str, ...] | None = None
    fps: float | None = None
    frame_stride: int | None = None
    jpeg_quality: int | None = None


@dataclass(frozen=True)
class DecodedMedia:
    """Frames of one media file; exactly one of `frames_THWC` (uint8 RGB) and `jpegs` is set, T = len(frame_index).

    `frame_index` (T,) int64 ascending numbers of the frames in the file. `times_s` (T,) float64, from the start of the
    clip where one was asked for. `n_frames`, `duration_s` (of the whole file), `width`, `height` (as displayed,
    rotation applied) describe the original; `fps` is the mean rate, None for an image or where nobody knows it.
    """

    frames_THWC: np.ndarray | None
    jpegs: tuple[bytes, ...] | None
    frame_index: np.ndarray
    times_s: np.ndarray
    n_frames: int
    fps: float | None
    duration_s: float
    width: int
    height: int
    stored_width: int
    stored_height: int
    decoder: str


@dataclass(frozen=True)
class Timeline:
    """When each frame of a video is shown, from its packets, without decoding. `starts_s` (n,) ascending from 0;
    `order` maps a presentation time stamp to a frame number and is empty where the container has none."""

    starts_s: np.ndarray
    duration_s: float
    fps: float
    width: int
    height: int
    rotation: int
    order: dict[int, int]


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """Sort key under which frame 10 follows frame 9, zero-padded or not."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part)


def stored_size(width: int, height: int, short_side_px: int) -> tuple[int, int]:
    """(width, height) with the short side at `short_side_px` and the aspect ratio kept; never larger than given."""
    scale = min(1.0, short_side_px / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def select_frames(starts_s: np.ndarray, duration_s: float, request: DecodeRequest) -> np.ndarray:
    """Frame numbers (T,) int64, ascending, without repeats, that `request` asks of a media with these frame times."""
    total = len(starts_s)
    begin, end = request.clip_s if request.clip_s is not None else (0.0, duration_s)
    end = min(end, duration_s)
    if begin >= end and request.clip_s is not None:
        raise ValueError(f"the clip starts at {begin:g} s but the media ends at {duration_s:g} s")
    edges = np.linspace(begin, end, request.n_frames + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    picks = np.maximum(np.searchsorted(starts_s, middles, side="right") - 1, 0)
    preferred = np.array(sorted({k for k in request.prefer_frames if 0 <= k < total}), np.int64)
    if len(preferred):
        nearest = preferred[np.abs(starts_s[preferred][None] - middles[:, None]).argmin(1)]
        inside = (starts_s[nearest] >= edges[:-1]) & (starts_s[nearest] < edges[1:])
        picks = np.where(inside & ~np.isin(picks, preferred), nearest, picks)
    also = np.array([k for k in request.also_frames if 0 <= k < total], np.int64)
    return np.unique(np.concatenate([picks, also]))


def encode_jpeg(frames_THWC: np.ndarray, quality: int) -> tuple[bytes, ...]:
    """Each uint8 RGB frame as JPEG bytes."""
    encoded = []
    for frame_HWC in frames_THWC:
        buffer = io.BytesIO()
        Image.fromarray(frame_HWC).save(buffer, "JPEG", quality=quality)
        encoded.append(buffer.getvalue())
    return tuple(encoded)
