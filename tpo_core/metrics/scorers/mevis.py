"""MeViS: J and F of the masks of expressions."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import expressions, files, mask_files
from tpo_core.metrics.expressions import Expression
from tpo_core.metrics.registry import Scorer
from tpo_core.metrics.report import Report

READS = """\
--ground-truth   folder of a split with meta_expressions.json and mask_dict.json (valid_u has both)
--predictions    folder with VIDEO/EXPRESSION/FRAME.png; what is not black is the mask

The truth of an expression is the union of its anno_id, null being nothing. A frame without a readable PNG of the right
size is J = F = 0, and so is a video without a folder. Strictly official, an expression with such a frame, or without a
folder in a video that has one, is left out of the mean.
"""


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool) -> Report:
    """Mean over the frames of an expression, then over the expressions."""
    videos = expressions.videos_of(ground_truth / "meta_expressions.json")
    run_lengths = files.json_value(ground_truth / "mask_dict.json")
    if not isinstance(run_lengths, dict):
        raise TpoError(f"{ground_truth}/mask_dict.json: not an object of masks by anno_id")
    truths = _truths(videos, run_lengths, f"{ground_truth}/meta_expressions.json")
    return expressions.report("mevis", implementation, videos, truths, predictions, strict_official, size_frame="00000")


def _truths(videos: dict[str, Any], run_lengths: dict[str, Any], where: str) -> Iterator[Expression | str]:
    for video, entry in videos.items():
        for name, expression in entry["expressions"].items():
            key = f"{video}_{name}"
            if "anno_id" not in expression:
                yield f"{key} has no anno_id (a split without truth)"
                continue
            if not isinstance(expression["anno_id"], list):
                raise TpoError(f"{where}: {key} must have a list of anno_id")
            if not entry["frames"]:
                yield f"{key} has no frame"
                continue
            lists = [run_lengths.get(str(anno), []) for anno in expression["anno_id"]]
            if not all(isinstance(each, list) for each in lists):
                raise TpoError(f"{where}: the masks of {key} must be lists with an entry a frame (mask_dict.json)")
            if any(len(each) < len(entry["frames"]) for each in lists):
                yield f"{key} has masks for fewer frames than its video"
                continue
            yield Expression(
                video,
                name,
                [
                    (frame, _union([each[at] for each in lists], f"{key} {frame}"))
                    for at, frame in enumerate(entry["frames"])
                ],
            )


def _union(parts: list[Any], where: str) -> np.ndarray | None:
    """The union of the parts that are there; None if there are none."""
    there = [mask_files.decoded(part, where) for part in parts if part]
    if len({mask.shape for mask in there}) > 1:
        raise TpoError(f"{where}: masks of different sizes")
    return np.logical_or.reduce(there) if there else None


SCORER = Scorer("mevis", ("mevis",), READS, score)
