"""TrackingNet: success, precision and normalised precision of box tracks, as its development kit measures them."""

from pathlib import Path

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import box_files
from tpo_core.metrics.boxes import QUIETLY
from tpo_core.metrics.registry import Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   folder with SEQUENCE.txt, x,y,w,h a line (the anno folder of a split, or the folder that holds it)
--predictions    folder of one tracker with SEQUENCE.txt

Percent. Numbers are rounded to whole pixels first, and the first frame is the truth's. success is the area under the
share of IoU >= t for 21 t in 0..1, precision the same of centre errors up to 50 px, norm_precision of errors in sizes
of the truth up to 0.5. coverage is the share of frames whose x + y + w + h is above 0.
"""

STEPS = np.linspace(0, 1, 21)


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool) -> Report:
    """Curves a sequence, their mean, then the area."""
    root = ground_truth / "anno" if (ground_truth / "anno").is_dir() else ground_truth
    truths = {path.stem: box_files.boxes(path) for path in sorted(root.glob("*.txt"))} if root.is_dir() else {}
    for name, boxes in truths.items():
        if not len(boxes):
            raise TpoError(f"{root}/{name}.txt: holds no box")
    located = box_files.results(predictions, list(truths), _official_path if strict_official else _path)
    rejections = Rejections()
    curves, covered = {}, []
    for name, truth in truths.items():
        rejected = np.zeros(len(truth), bool)
        if name not in located:
            rejections.add("missing", name)
            found, missed = box_files.nothing(len(truth))
            rejected = rejected if strict_official else missed
        elif strict_official:
            found = _fitted(box_files.boxes(located[name]), len(truth))
        else:
            asked = np.all(truth[:, 2:] > 0, axis=1)
            found, rejected = box_files.screen(box_files.boxes(located[name]), len(truth), asked, name, rejections)
        curves[name], there = _curves(found, truth, rejected)
        covered.append(there)
    for path in sorted(predictions.glob("*.txt")):
        if path.stem not in truths:
            rejections.add("unknown", path.stem)
    if not truths:
        raise TpoError(f"{ground_truth}: no SEQUENCE.txt here or under anno")
    items = {name: _areas(curve) for name, curve in curves.items()}
    result = {"coverage": 100 * float(np.mean(np.concatenate(covered)))}
    result |= _areas(np.mean(list(curves.values()), axis=0))
    return Report(
        "trackingnet", implementation, strict_official, result, len(truths), len(truths), rejections.summary(), items
    )


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.txt"


def _official_path(folder: Path, name: str) -> Path:
    """The one file whose path holds the name of the truth; of several the development kit takes none."""
    found = [path for path in folder.rglob("*.txt") if f"{name}.txt" in path.relative_to(folder).as_posix()]
    return found[0] if len(found) == 1 else folder / "none or several"


def _fitted(prediction: np.ndarray, frames: int) -> np.ndarray:
    """As the table of the development kit does: too long is cut, too short is filled with NaN."""
    fitted = np.full((frames, 4), np.nan)
    fitted[: len(prediction)] = prediction[:frames]
    return fitted


@QUIETLY
def _curves(prediction: np.ndarray, truth: np.ndarray, rejected_T: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Shares of frames (3, 21) for success, precision and normalised precision; which frames are covered."""
    true, found = np.round(truth), np.round(prediction)
    found[0] = true[0]
    # A maximum skips a NaN there, so that a box with one coordinate missing still overlaps.
    low = np.fmax(true[:, :2], found[:, :2])
    high = np.fmin(true[:, :2] + true[:, 2:] - 1.0, found[:, :2] + found[:, 2:] - 1.0)
    inter = np.prod(np.maximum(high - low + 1, 0), axis=1)
    overlap = inter / (np.prod(true[:, 2:], axis=1) + np.prod(found[:, 2:], axis=1) - inter)
    apart = (true[:, :2] + (true[:, 2:] + 1.0) / 2) - (found[:, :2] + (found[:, 2:] + 1.0) / 2)
    error = np.sqrt(apart[:, 0] ** 2 + apart[:, 1] ** 2)
    sizes = true[:, 2:]
    squares = apart / sizes * apart / sizes
    normalized = np.sqrt(squares[:, 0] + squares[:, 1])
    overlap[rejected_T], error[rejected_T], normalized[rejected_T] = -1.0, np.inf, np.inf
    curves = [
        np.mean(overlap[:, None] >= STEPS, axis=0),
        np.mean(error[:, None] <= np.linspace(0, 50, len(STEPS)), axis=0),
        np.mean(normalized[:, None] <= np.linspace(0, 0.5, len(STEPS)), axis=0),
    ]
    return np.stack(curves), found.sum(axis=1) > 0


def _areas(curves: np.ndarray) -> dict[str, float]:
    names = ("success", "precision", "norm_precision")
    return {name: 100 * float(np.trapezoid(curve, STEPS)) for name, curve in zip(names, curves, strict=True)}


SCORER = Scorer("trackingnet", ("trackingnet",), READS, score)
