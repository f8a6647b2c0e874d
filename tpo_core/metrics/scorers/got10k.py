"""GOT-10k: average overlap and success rate of box tracks, as the toolkit measures them on the validation set."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import box_files, boxes, files
from tpo_core.metrics.registry import Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   GOT-10k, or its val folder: list.txt, SEQUENCE/{groundtruth.txt,cover.label,meta_info.ini}
--predictions    folder of one tracker: SEQUENCE/SEQUENCE_001.txt (_002, ... for more runs), x,y,w,h a line, 1-based as
                 the truth is; SEQUENCE_time.txt if there is to be a speed

ao is the mean IoU and sr the share of IoU > .5 over the visible frames of all sequences and runs, without the first of
each. Boxes are clipped to the image. A sequence that is never visible is left out. speed_fps is -1 without time files;
strictly official, a sequence without one has the speed of the one before it.
"""

THRESHOLDS = np.linspace(0, 1, 101)


@dataclass(frozen=True)
class _Sequence:
    boxes: np.ndarray  # (T, 4)
    cover: np.ndarray  # (T,), 0 is out of sight
    wh: tuple[float, float]


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool) -> Report:
    """IoU of all frames of all runs, pooled."""
    root, names = _names(ground_truth)
    if not predictions.is_dir():
        raise TpoError(f"{predictions}: not a folder with the results of one tracker; see --help")
    rejections = Rejections()
    overlaps: dict[str, np.ndarray] = {}
    lengths = {}
    for name in names:
        truth, runs = _sequence(root / name), _runs(predictions, name)
        lengths[name] = len(truth.boxes) - 1
        if strict_official:
            overlaps[name] = _official(runs, truth, f"{predictions}: {name}")
        elif (truth.cover[1:] > 0).any():
            overlaps[name] = _screened(runs, truth, name, rejections)
        else:
            rejections.add("bad_truth", f"{name}: never visible after its first frame")
    for path in sorted(predictions.iterdir()):
        if path.is_dir() and path.name not in names:
            rejections.add("unknown", path.name)
    times, speeds = _all_times(predictions, list(overlaps), strict_official)
    items = {
        name: {"ao": _mean(each), "sr": _mean(each > 0.5), "speed_fps": speeds[name], "length": lengths[name]}
        for name, each in overlaps.items()
    }
    pooled = np.concatenate([np.empty(0), *overlaps.values()])
    curve = [_mean(pooled > threshold) for threshold in THRESHOLDS]
    result: dict[str, Any] = {"ao": _mean(pooled), "sr": _mean(pooled > 0.5), "sr_0.5": curve[50], "sr_0.75": curve[75]}
    result |= {"speed_fps": _speed(times), "succ_curve": curve}
    return Report(
        "got10k", implementation, strict_official, result, len(items), len(names), rejections.summary(), items
    )


def _official(runs: list[Path], truth: _Sequence, where: str) -> np.ndarray:
    """The overlaps of all runs on visible frames, as the toolkit takes the files."""
    if not runs:
        raise TpoError(f"{where}: no result, without which the toolkit does not go on")
    found = [box_files.boxes(run) for run in runs]
    for one in found:
        if len(one) != len(truth.boxes):
            raise TpoError(f"{where}: {len(one)} boxes for {len(truth.boxes)} frames; the toolkit refuses that")
    visible = truth.cover[1:] > 0
    return np.concatenate([boxes.toolkit_iou(one[1:], truth.boxes[1:], truth.wh)[visible] for one in found])


def _screened(runs: list[Path], truth: _Sequence, name: str, rejections: Rejections) -> np.ndarray:
    """The same, where a rejected box, and all of a result that is not there, has overlap 0."""
    visible = truth.cover > 0
    if not runs:
        rejections.add("missing", name)
        return np.zeros(int(visible[1:].sum()))
    overlaps = []
    for run in runs:
        found, rejected = box_files.screen(box_files.boxes(run), len(truth.boxes), visible, run.stem, rejections)
        overlap = np.where(rejected, 0.0, boxes.toolkit_iou(found, truth.boxes, truth.wh))
        overlaps.append(overlap[1:][visible[1:]])
    return np.concatenate(overlaps)


def _all_times(predictions: Path, names: list[str], strict_official: bool) -> tuple[np.ndarray, dict[str, float]]:
    """Seconds of all frames, and the speed of each sequence."""
    times, speeds, before = [np.empty(0)], {}, None
    for name in names:
        seconds = _times(predictions / name / f"{name}_time.txt")
        if seconds is not None:
            times.append(seconds)
            before = seconds
        elif not strict_official:
            before = np.empty(0)
        if before is None:
            raise TpoError(f"{predictions}: no time file of {name}, without which the toolkit does not go on")
        speeds[name] = _speed(before)
    return np.concatenate(times), speeds


def _mean(values: np.ndarray) -> float:
    return float(np.mean(values)) if len(values) else float("nan")


def _speed(seconds: np.ndarray) -> float:
    """Mean frames a second, -1 of none."""
    return float(np.mean(1.0 / seconds)) if len(seconds) else -1.0


def _times(path: Path) -> np.ndarray | None:
    """Seconds a frame of all runs that are above 0; None without a file."""
    if not path.is_file():
        return None
    rows = [line.replace(",", " ").split() for _, line in files.lines(path)]
    try:
        seconds = np.array([float(word) for row in rows for word in row])
    except ValueError:
        raise TpoError(f"{path}: holds something that is no number of seconds") from None
    return seconds[seconds > 0]


def _runs(predictions: Path, name: str) -> list[Path]:
    form = re.compile(re.escape(name) + r"_[0-9].*\.txt")
    folder = predictions / name
    return sorted(path for path in folder.glob("*.txt") if form.fullmatch(path.name)) if folder.is_dir() else []


def _names(ground_truth: Path) -> tuple[Path, list[str]]:
    for root in (ground_truth, ground_truth / "val"):
        if (root / "list.txt").is_file():
            return root, [line.strip() for _, line in files.lines(root / "list.txt")]
    raise TpoError(f"{ground_truth}: no list.txt here or under val; give the folder of GOT-10k or its val folder")


def _sequence(folder: Path) -> _Sequence:
    truth = box_files.boxes(folder / "groundtruth.txt")
    if not len(truth):
        raise TpoError(f"{folder}/groundtruth.txt: holds no box")
    cover = box_files.flags(folder / "cover.label", len(truth))
    found = re.search(r"^resolution: *\((\d+), *(\d+)\)", files.text(folder / "meta_info.ini"), re.MULTILINE)
    if found is None:
        raise TpoError(f"{folder}/meta_info.ini: no line `resolution: (WIDTH, HEIGHT)`")
    return _Sequence(truth, cover, (float(found[1]), float(found[2])))


SCORER = Scorer("got10k", ("got10k",), READS, score)
