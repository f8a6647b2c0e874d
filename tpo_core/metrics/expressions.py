"""J and F of the mask of an expression over the frames of a video, by the rule of MeViS.

Every frame counts; the mask of a prediction is whatever is not black in its PNG; an expression is the mean over its
frames, and the result the mean over the expressions.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import files, mask_files
from tpo_core.metrics.report import Rejections, Report


@dataclass(frozen=True)
class Expression:
    """The truth of one: bool masks (H, W) by frame name, None where the size is not known and nothing is there."""

    video: str
    name: str
    frames: list[tuple[str, np.ndarray | None]]

    @property
    def key(self) -> str:
        """As the official code names it."""
        return f"{self.video}_{self.name}"


def videos_of(path: Path) -> dict[str, dict[str, Any]]:
    """The videos of a meta_expressions.json: `frames`, a list of names, and `expressions`, objects by name."""
    meta = files.json_value(path)
    files.require(meta, ("videos",), f"{path}")
    files.require(meta["videos"], (), f"{path}: videos")
    for video, entry in meta["videos"].items():
        files.require(entry, ("frames", "expressions"), f"{path}: {video}")
        if not isinstance(entry["frames"], list) or not isinstance(entry["expressions"], dict):
            raise TpoError(f"{path}: {video} must have a list of frames and an object of expressions")
        if not all(isinstance(frame, str) for frame in entry["frames"]):
            raise TpoError(f"{path}: {video} must name its frames by text, as their files are named without .png")
        for name, expression in entry["expressions"].items():
            files.require(expression, (), f"{path}: {video} {name}")
    return dict(meta["videos"])


def report(
    metric: str,
    implementation: str,
    videos: Collection[str],
    expressions: Iterator[Expression | str],
    predictions: Path,
    strict_official: bool,
    size_frame: str | None = None,
) -> Report:
    """Scores predictions/VIDEO/EXPRESSION/FRAME.png. A text among the expressions is one whose truth is not usable.

    By default a frame that is missing or not as its truth is a miss, J = F = 0. Strictly official the expression is
    left out, as its worker dies there, and so is one without the frame of which that takes the size (`size_frame`); a
    video without a folder is J = F = 0 in both.
    """
    if not predictions.is_dir():
        raise TpoError(f"{predictions}: not a folder with VIDEO/EXPRESSION/FRAME.png; see --help")
    rejections = Rejections()
    items: dict[str, Any] = {}
    total = 0
    for one in expressions:
        total += 1
        if isinstance(one, str):
            rejections.add("bad_truth", one)
            continue
        scores = _scores(one, predictions, strict_official, size_frame, rejections)
        if scores is not None:
            items[one.key] = {"J": scores[0], "F": scores[1]}
    for path in sorted(predictions.iterdir()):
        if path.is_dir() and path.name not in videos:
            rejections.add("unknown", path.name)
    j, f = (float(np.mean([item[m] for item in items.values()])) if items else float("nan") for m in "JF")
    result = {"J": j, "F": f, "J&F": (j + f) / 2}
    return Report(metric, implementation, strict_official, result, len(items), total, rejections.summary(), items)


def _scores(
    one: Expression, predictions: Path, strict_official: bool, size_frame: str | None, rejections: Rejections
) -> tuple[float, float] | None:
    """Mean J and F, None where the official code has none."""
    folder = predictions / one.video / one.name
    if not folder.is_dir():
        rejections.add("missing", one.key)
        return None if strict_official and folder.parent.is_dir() else (0.0, 0.0)
    size = None
    if strict_official and size_frame is not None:
        size = _size(folder / f"{size_frame}.png")
        if size is None:
            rejections.add("missing", f"{one.key} frame {size_frame}, of which the official code takes the size")
            return None
    pairs = []
    for name, truth in one.frames:
        reason, what, found = _read(folder / f"{name}.png", truth, size)
        if found is not None:
            pairs.append(mask_files.pair_scores(found, np.zeros_like(found) if truth is None else truth))
            continue
        rejections.add(reason, f"{one.key} frame {name}{what}")
        if strict_official:
            return None
        pairs.append((0.0, 0.0))
    return float(np.mean([j for j, _ in pairs])), float(np.mean([f for _, f in pairs]))


def _size(path: Path) -> tuple[int, ...] | None:
    try:
        return mask_files.grey(path).shape
    except TpoError:
        return None


def _read(path: Path, truth: np.ndarray | None, size: tuple[int, ...] | None) -> tuple[str, str, np.ndarray | None]:
    """The mask of a prediction, or the reason for which there is none and what is wrong."""
    if not path.is_file():
        return "missing", "", None
    try:
        found = mask_files.grey(path) > 0
    except TpoError as error:
        return "malformed", f": {error}", None
    for wanted in (size, None if truth is None else truth.shape):
        if wanted is not None and found.shape != wanted:
            return "malformed", f": {found.shape} for {wanted}", None
    return "", "", found
