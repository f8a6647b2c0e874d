"""LaSOT: success, precision and normalised precision of box tracks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import box_files, files, lasot_rules
from tpo_core.metrics.lasot_rules import Curves
from tpo_core.metrics.registry import Option, Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   LaSOT itself: a folder with CLASS/SEQUENCE/{groundtruth,full_occlusion,out_of_view}.txt at any depth;
                 or the annos folder of its toolkit, with SEQUENCE.txt and absent/SEQUENCE.txt
--predictions    folder of one tracker with SEQUENCE.txt, x,y,w,h a line, 1-based as the truth is

pytracking       AUC, OP50, OP75, Precision (20 px), NormPrecision (at 0.2), percent
lasot_matlab     the toolkit of LaSOT: the same on 0..1; sequences whose curve is all zero leave the mean
got10k_toolkit   scores absent frames too; normalised precision is the mean of the curve; not comparable with the others

A box that is NaN or has no extent where the target is visible is a miss. Strictly official, pytracking and the toolkit
of LaSOT take the box of the frame before.
"""


@dataclass(frozen=True)
class _Truth:
    boxes: np.ndarray  # (T, 4)
    visible: np.ndarray  # (T,) bool


def score(
    ground_truth: Path,
    predictions: Path,
    implementation: str,
    strict_official: bool,
    sequences: str | None,
    exclude_invalid_frames: bool,
) -> Report:
    """Curves a sequence, then their mean over the sequences."""
    if exclude_invalid_frames and implementation != "pytracking":
        raise TpoError("--exclude-invalid-frames is a switch of pytracking; leave it out or choose that")
    truths = _truths(ground_truth, sequences)
    located = box_files.results(predictions, list(truths), lambda folder, name: folder / f"{name}.txt")
    rejections = Rejections()
    curves = {}
    for name, truth in truths.items():
        if exclude_invalid_frames and not _asked(implementation, truth).any():
            if strict_official:
                raise TpoError(f"{name}: no valid frame, at which pytracking stops")
            rejections.add("bad_truth", f"{name}: no valid frame")
            continue
        if strict_official:
            if name not in located:
                raise TpoError(f"{predictions}: no {name}.txt, without which {implementation} does not go on")
            found, rejected = box_files.boxes(located[name]), np.zeros(len(truth.boxes), bool)
            truth, found = _as_official(implementation, name, truth, found)
        elif name in located:
            found = box_files.boxes(located[name])
            asked = _asked(implementation, truth)
            found, rejected = box_files.screen(found, len(truth.boxes), asked, name, rejections)
        else:
            rejections.add("missing", name)
            found, rejected = box_files.nothing(len(truth.boxes))
        curves[name] = _measure(implementation, found, truth, rejected, exclude_invalid_frames)
    for path in sorted(predictions.glob("*.txt")):
        if path.stem not in truths:
            rejections.add("unknown", path.stem)
    if not curves:
        raise TpoError(f"{ground_truth}: no sequence has a valid frame")
    result, n = SUMMARIES[implementation](list(curves.values()))
    return Report(
        "lasot",
        implementation,
        strict_official,
        result,
        n,
        len(truths),
        rejections.summary(),
        {name: _item(implementation, one) for name, one in curves.items()},
    )


def _asked(implementation: str, truth: _Truth) -> np.ndarray:
    """The frames (T,) on which a box is asked for."""
    if implementation == "got10k_toolkit":
        return np.all(truth.boxes[:, 2:] > 0, axis=1)
    return np.all(truth.boxes > 0, axis=1) & truth.visible


def _as_official(implementation: str, name: str, truth: _Truth, found: np.ndarray) -> tuple[_Truth, np.ndarray]:
    """Truth and result at the length at which the official code compares them, and filled as it fills them."""
    if implementation == "pytracking":
        return truth, lasot_rules.fill_pytracking(found, truth.boxes, name)
    if implementation == "lasot_matlab":
        return truth, lasot_rules.fill_matlab(found, truth.boxes, name)
    both = min(len(found), len(truth.boxes))
    if both == 0:
        raise TpoError(f"{name}: an empty result, on which {implementation} does not go on")
    return _Truth(truth.boxes[:both], truth.visible[:both]), found[:both]


def _measure(
    implementation: str, found: np.ndarray, truth: _Truth, rejected: np.ndarray, exclude_invalid_frames: bool
) -> Curves:
    rejected = rejected[: len(truth.boxes)]
    if implementation == "pytracking":
        return lasot_rules.pytracking(found, truth.boxes, truth.visible, rejected, exclude_invalid_frames)
    if implementation == "lasot_matlab":
        return lasot_rules.matlab(found, truth.boxes, truth.visible, rejected)
    return lasot_rules.toolkit(found, truth.boxes, rejected)


def _pytracking(curves: list[Curves]) -> tuple[dict[str, Any], int]:
    success, precision, norm = (np.float32(100) * each.mean(axis=0) for each in _stacked(curves))
    result = {
        "AUC": float(np.mean(success)),
        "OP50": float(success[10]),
        "OP75": float(success[15]),
        "Precision": float(precision[20]),
        "NormPrecision": float(norm[20]),
    }
    return result | _listed(success=success, precision=precision, norm_precision=norm), len(curves)


def _matlab(curves: list[Curves]) -> tuple[dict[str, Any], int]:
    """Each kind of curve leaves out the sequences where it is all zero; n counts those with some success."""
    kept = [each[each.sum(axis=1) > np.finfo(float).eps] for each in _stacked(curves)]
    success, precision, norm = (np.mean(each, axis=0) if len(each) else np.full(each.shape[1], np.nan) for each in kept)
    result = {
        "success_auc": float(np.mean(success)),
        "success_rate_at_0_5": float(success[10]),
        "precision_20px": float(precision[20]),
        "norm_precision_0_2": float(norm[20]),
        "norm_precision_auc": float(np.mean(norm)),
    }
    return result | _listed(success=success, precision=precision, norm_precision=norm), len(kept[0])


def _toolkit(curves: list[Curves]) -> tuple[dict[str, Any], int]:
    success, precision, norm = (np.mean(each, axis=0) for each in _stacked(curves))
    result = {
        "success_score": float(np.mean(success)),
        "precision_score": float(precision[20]),
        "normalized_precision_score": float(np.mean(norm)),
        "success_rate": float(success[10]),
    }
    return result | _listed(success=success, precision=precision, normalized_precision=norm), len(curves)


SUMMARIES = {"pytracking": _pytracking, "lasot_matlab": _matlab, "got10k_toolkit": _toolkit}


def _stacked(curves: list[Curves]) -> list[np.ndarray]:
    return [np.stack([getattr(one, kind) for one in curves]) for kind in ("success", "precision", "norm_precision")]


def _listed(**curves: np.ndarray) -> dict[str, list[float]]:
    return {f"{name}_curve": curve.tolist() for name, curve in curves.items()}


def _item(implementation: str, one: Curves) -> dict[str, Any]:
    if implementation == "got10k_toolkit":
        return _toolkit([one])[0]
    return {
        "success_auc": float(np.mean(one.success)),
        "precision_20px": float(one.precision[20]),
        "norm_precision_0_2": float(one.norm_precision[20]),
        "norm_precision_auc": float(np.mean(one.norm_precision)),
        "avg_overlap": one.overlap,
    } | _listed(success=one.success, precision=one.precision, norm_precision=one.norm_precision)


def _truths(root: Path, sequences: str | None) -> dict[str, _Truth]:
    """The truth of each sequence, by name, in the order of the list or of the alphabet."""
    if not root.is_dir():
        raise TpoError(f"{root}: not the folder of LaSOT; see --help")
    toolkit = (root / "absent").is_dir()
    found = sorted(root.glob("*.txt")) if toolkit else sorted(root.rglob("groundtruth.txt"))
    paths = {path.stem if toolkit else path.parent.name: path for path in found}
    if not paths:
        raise TpoError(f"{root}: no groundtruth.txt below; give the folder of LaSOT")
    if sequences is not None:
        names = [line.strip() for _, line in files.lines(Path(sequences))]
        lacking = [name for name in names if name not in paths]
        if lacking:
            raise TpoError(f"{root}: no truth of {lacking[0]}, which {sequences} lists")
        paths = {name: paths[name] for name in names}
    return {name: _truth(path, toolkit) for name, path in paths.items()}


def _truth(path: Path, toolkit: bool) -> _Truth:
    boxes = box_files.boxes(path)
    if not len(boxes):
        raise TpoError(f"{path}: holds no box")
    if not np.isfinite(boxes).all():
        raise TpoError(f"{path}: holds a box that is not finite; LaSOT has none")
    if toolkit:
        hidden = [path.parent / "absent" / path.name]
    else:
        hidden = [path.parent / "full_occlusion.txt", path.parent / "out_of_view.txt"]
    absent = np.any([box_files.flags(flag, len(boxes)) != 0 for flag in hidden], axis=0)
    return _Truth(boxes, ~absent)


SCORER = Scorer(
    "lasot",
    ("pytracking", "lasot_matlab", "got10k_toolkit"),
    READS,
    score,
    (
        Option("sequences", str, "file with the names of the sequences to score (default: all that are there)"),
        Option("exclude_invalid_frames", bool, "pytracking: leave absent frames out of the denominator", False),
    ),
)
