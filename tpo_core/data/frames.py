"""What to take from a media file and what comes back: requests, results, and the choice of frames by time."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tpo_core.data import frame_choice

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")


class DecodeError(Exception):
    """No decoder could read a media file; one line. `detail` is that line without the name of the file;
    `passing`: a decoder ran out of time or died, which another try may not."""

    def __init__(self, uri: str, detail: str, *, passing: bool = False) -> None:
        super().__init__(f"{uri}: {detail}")
        self.detail, self.passing = detail, passing


class NotTheMediaError(Exception):
    """Something failed that says nothing about the media, so that it must not be rejected: the job ends instead."""


class FetchError(NotTheMediaError):
    """The storage did not give a file that it has."""


class EncoderError(NotTheMediaError):
    """The encoder of clip features failed."""


@dataclass(frozen=True)
class FeatureRequest:
    """One vector for each `clip_len_s` seconds, of `frames_per_clip` frames at the midpoints of equal intervals of it.

    `encoder` is "module:factory"; the factory, called with `options`, gives a function from frames_THWC (uint8 RGB, of
    stored size) to a vector (D,).
    """

    encoder: str
    options: tuple[tuple[str, str], ...]
    clip_len_s: float
    frames_per_clip: int


@dataclass(frozen=True)
class DecodeRequest:
    """What to read from one media file.

    `n_frames`: the frames shown at the midpoints of that many equal intervals of the media, or of `clip_s`, each at
    most once; with `sample_fps` as many intervals as that rate asks for, and at most `n_frames`. `prefer_frames` are
    taken in place of the midpoint where an interval holds one (annotated frames, as `ranges`: a track that is labelled
    on 500 frames would take 18 KB as numbers, in a request for each of 30,000 videos), and `also_frames` are added to
    the choice; those of either that the media does not have are left out.

    `choice` in place of the midpoints in time: "mvbench" takes frames by their number as the notebook of MVBench does,
    see `frame_choice`, and those that it takes twice once; "all" takes every frame (of the clip).

    `features` asks for the vectors of a clip encoder beside the frames. `frame_names`, `fps` and `frame_stride` belong
    to kind "frames": files in order (None: all of the folder, sorted numerically), frames per second of the source
    (None: the files are one second apart) and how many frames of the source lie between two files. `jpeg_quality` None
    returns raw frames.
    """

    uri: str
    kind: str
    short_side_px: int
    n_frames: int
    prefer_frames: tuple[range, ...] = ()
    also_frames: tuple[int, ...] = ()
    clip_s: tuple[float, float] | None = None
    frame_names: tuple[str, ...] | None = None
    fps: float | None = None
    frame_stride: int | None = None
    jpeg_quality: int | None = None
    sample_fps: float | None = None
    features: FeatureRequest | None = None
    choice: str = "midpoints"


@dataclass(frozen=True)
class DecodedMedia:
    """Frames of one media file; exactly one of `frames_THWC` (uint8 RGB) and `jpegs` is set, T = len(frame_index).

    `frame_index` (T,) int64 ascending numbers of the frames in the file. `times_s` (T,) float64, from the start of the
    clip where one was asked for. `n_frames`, `duration_s` (of the whole file), `width`, `height` (as displayed,
    rotation applied) describe the original; `fps` is the mean rate, None for an image or where nobody knows it.
    `features_SD` float16, one row a clip, where features were asked for.
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
    features_SD: np.ndarray | None = None


@dataclass(frozen=True)
class Timeline:
    """When each frame of a video is shown, from its packets, without decoding. `starts_s` (n,) ascending from 0;
    `stamps` (n,) int64 are their presentation time stamps, ascending, empty where the container has none; `keyframes`
    the numbers of the frames at which decoding can begin; `clean_cuts`: nothing that is shown after one needs anything
    before it (H.264 with IDR keyframes, in MP4 or Matroska)."""

    starts_s: np.ndarray
    duration_s: float
    fps: float
    width: int
    height: int
    rotation: int
    stamps: np.ndarray
    keyframes: np.ndarray
    clean_cuts: bool


def ranges(frames: Iterable[int]) -> tuple[range, ...]:
    """The same numbers, ascending and each once, as ranges of equal steps: a label on every fourth frame is one."""
    found: list[range] = []
    for number in sorted(set(frames)):
        last = found[-1] if found else None
        if last is not None and len(last) == 1:
            found[-1] = range(last.start, number + 1, number - last.start)
        elif last is not None and number == last.stop - 1 + last.step:
            found[-1] = range(last.start, number + 1, last.step)
        else:
            found.append(range(number, number + 1))
    return tuple(found)


def natural_key(name: str) -> tuple[tuple[int, str], ...]:
    """Sort key under which frame 10 follows frame 9, zero-padded or not."""
    return tuple((int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name) if part)


def stored_size(width: int, height: int, short_side_px: int) -> tuple[int, int]:
    """(width, height) with the short side at `short_side_px` and the aspect ratio kept; never larger than given."""
    scale = min(1.0, short_side_px / min(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))


def select_frames(starts_s: np.ndarray, duration_s: float, request: DecodeRequest) -> np.ndarray:
    """Frame numbers (T,) int64, ascending, without repeats, that `request` asks of a media with these frame times."""
    total = len(starts_s)
    if request.choice == "mvbench" and request.kind != "image":
        return _mvbench(total, duration_s, request)
    begin, end = request.clip_s if request.clip_s is not None else (0.0, duration_s)
    end = min(end, duration_s)
    if begin >= end and request.clip_s is not None:
        raise ValueError(f"the clip starts at {begin:g} s but the media ends at {duration_s:g} s")
    if request.choice == "all":
        first = shown_at(starts_s, np.array([begin]))[0]
        return np.arange(first, max(first + 1, np.searchsorted(starts_s, end, side="left")))
    count = request.n_frames
    if request.sample_fps is not None:
        count = min(count, max(1, round((end - begin) * request.sample_fps)))
    edges = np.linspace(begin, end, count + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    picks = shown_at(starts_s, middles)
    preferred = np.array([k for frames in request.prefer_frames for k in frames if 0 <= k < total], np.int64)
    if len(preferred):
        nearest = preferred[np.abs(starts_s[preferred][None] - middles[:, None]).argmin(1)]
        inside = (starts_s[nearest] >= edges[:-1]) & (starts_s[nearest] < edges[1:])
        picks = np.where(inside & ~np.isin(picks, preferred), nearest, picks)
    also = np.array([k for k in request.also_frames if 0 <= k < total], np.int64)
    return np.unique(np.concatenate([picks, also]))


def _mvbench(total: int, duration_s: float, request: DecodeRequest) -> np.ndarray:
    """Files of a folder have numbers from 1, frames of a video from 0."""
    first = 1 if request.kind == "frames" else 0
    last = total - 1 + first
    chosen = frame_choice.mvbench(request.n_frames, total / duration_s, last, request.clip_s, first)
    return np.unique(np.clip(np.array(chosen, np.int64) - first, 0, total - 1))


def shown_at(starts_s: np.ndarray, times_s: np.ndarray) -> np.ndarray:
    """Numbers (int64) of the frames shown at these times; a frame is shown from its start until the next one's."""
    return np.maximum(np.searchsorted(starts_s, times_s, side="right") - 1, 0)


def feature_frames(starts_s: np.ndarray, duration_s: float, request: DecodeRequest) -> np.ndarray:
    """Frame numbers (S, frames_per_clip) int64 that each clip of `request.features` is made of; the last clip may be
    shorter than the others."""
    assert request.features is not None
    wanted = request.features
    begin, end = request.clip_s if request.clip_s is not None else (0.0, duration_s)
    end = min(end, duration_s)
    clips = max(1, math.ceil((end - begin) / wanted.clip_len_s - 1e-6))
    first = begin + np.arange(clips)[:, None] * wanted.clip_len_s
    length = np.minimum(first + wanted.clip_len_s, end) - first
    return shown_at(starts_s, first + length * (np.arange(wanted.frames_per_clip) + 0.5)[None] / wanted.frames_per_clip)


def encode_jpeg(frame_HWC: np.ndarray, quality: int) -> bytes:
    """One uint8 RGB frame as JPEG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(frame_HWC).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
