"""Reads the text files of single-object tracking: one box x, y, w, h a line."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import files
from tpo_core.metrics.report import Rejections

_SEPARATOR = re.compile(r"[,\t ]+")


def boxes(path: Path) -> np.ndarray:
    """(T, 4) float64; numbers are separated by commas, tabs or spaces, NaN is a number."""
    rows = []
    for number, line in files.lines(path):
        row = _numbers(line, f"{path}: line {number}")
        if len(row) != 4:
            raise TpoError(f"{path}: line {number} has {len(row)} numbers, not the four of a box x, y, w, h")
        rows.append(row)
    return np.array(rows, np.float64).reshape(-1, 4)


def flags(path: Path, frames: int) -> np.ndarray:
    """(frames,) float64, one number a frame, on one line or on many."""
    row = [value for number, line in files.lines(path) for value in _numbers(line, f"{path}: line {number}")]
    if len(row) != frames:
        raise TpoError(f"{path}: {len(row)} flags for {frames} frames; the files of a sequence must agree")
    return np.array(row, np.float64)


def _numbers(line: str, where: str) -> list[float]:
    try:
        return [float(word) for word in _SEPARATOR.split(line.strip().rstrip(",")) if word]
    except ValueError:
        raise TpoError(f"{where} holds something that is no number") from None


def results(folder: Path, sequences: list[str], locate: Callable[[Path, str], Path]) -> dict[str, Path]:
    """Where each sequence that has a result has it."""
    if not folder.is_dir():
        raise TpoError(f"{folder}: not a folder with the results of one tracker; see --help")
    return {name: locate(folder, name) for name in sequences if locate(folder, name).is_file()}


def screen(
    prediction_T4: np.ndarray, frames: int, asked_T: np.ndarray, name: str, rejections: Rejections
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts or fills a result to the frames of its truth; which of them are rejected, bool (frames,).

    The first frame is given to a tracker, so nothing of it is rejected; nor is anything where no box is asked for
    (`asked_T` false). A rejected box becomes zeros. What is no box on a frame where none is asked for becomes NaN, a
    miss for the codes that score such frames too: zeros would be a hit there, the truth being zeros as well.
    """
    if len(prediction_T4) > frames:
        rejections.add("out_of_range", f"{name}: {len(prediction_T4) - frames} boxes after the last frame; cut")
    fitted = np.full((frames, 4), np.nan)
    fitted[: len(prediction_T4)] = prediction_T4[:frames]
    asked = asked_T.copy()
    asked[:1] = False
    missing = asked & (np.arange(frames) >= len(prediction_T4))
    wild = asked & ~missing & ~np.isfinite(fitted).all(axis=1)
    reversed_ = asked & ~missing & ~wild & (fitted[:, 2:] < 0).any(axis=1)
    flat = asked & ~missing & ~wild & ~reversed_ & (fitted[:, 2:] == 0).any(axis=1)
    for reason, which in (("missing", missing), ("not_finite", wild), ("reversed", reversed_), ("zero_length", flat)):
        for frame in np.flatnonzero(which):
            rejections.add(reason, f"{name} frame {frame}")
    bad = missing | wild | reversed_ | flat
    fitted[~np.isfinite(fitted).all(axis=1)] = np.nan
    return np.where(bad[:, None], 0.0, fitted), bad


def nothing(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """What `screen` gives for a result that is not there at all; the first frame is given all the same."""
    return np.zeros((frames, 4)), np.arange(frames) > 0
