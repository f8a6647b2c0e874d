"""python -m tpo_core.metrics.score charades_sta --ground-truth gt.jsonl --predictions pred.jsonl [--json]

Scores a file of predictions against a file of truths, as one named official implementation does.

charades_sta  implementation cgdetr
    truth         JSONL with qid, relevant_windows [[start, end], ...]; or charades_sta_test.txt (qid = line, from 0)
    predictions   JSONL with qid, pred_relevant_windows [[start, end, score], ...], best first
refcoco_acc   implementation pixels (IoU >= .5 in float64), lmms_eval, shikra, mdetr
    truth         JSONL with id, width, height, gt_xywh, optionally dataset
    predictions   JSONL with id, pred_xyxy in pixels, null where there is none
mask_jf       implementation mevis
    truth         NPZ with NAME_gt and optionally NAME_void, (H, W) or (T, H, W)
    predictions   NPZ with NAME_pred

Every truth counts. One without a prediction, or with an invalid one (NaN, an end before its start), is a miss; how many
there are is printed. Predictions that belong to no truth are counted and left out.
Exit status 0, or 2 with one line for what is wrong with the files.
"""

import argparse
import json
import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import boxes, masks, moments

CGDETR_THRESHOLDS = tuple(round(0.3 + 0.05 * i, 2) for i in range(14))


@dataclass(frozen=True)
class Report:
    """values: unrounded, in [0, 1]. printed: as the official code prints them. per_item: the number behind each truth.

    n_predicted of the n_truths have a prediction, n_invalid of those cannot be scored (misses); n_unknown predictions
    belong to no truth.
    """

    metric: str
    implementation: str
    values: dict[str, float]
    printed: dict[str, str]
    per_item: dict[str, Any]
    n_truths: int
    n_predicted: int
    n_invalid: int
    n_unknown: int


def charades_sta(implementation: str, truth_path: Path, prediction_path: Path) -> Report:
    """CG-DETR: top-1 is the first listed window, IoU over the hull, percent with two decimals."""
    truths = _windows(truth_path)
    predictions = {k: np.array(row, np.float64) for k, row in _column(prediction_path, "qid", "pred_relevant_windows")}
    given = {qid: _first_window(predictions[qid], prediction_path, qid) for qid in truths if qid in predictions}
    invalid = {qid for qid, top in given.items() if len(top) and not (np.isfinite(top).all() and top[1] >= top[0])}
    tops = {
        qid: np.empty((0, 2)) if qid in invalid or qid not in given else given[qid].reshape(-1, 2) for qid in truths
    }
    values: dict[str, float] = {}
    for name in ("full", *moments.RANGES_S):
        kept = {qid: spans if name == "full" else moments.in_range(spans, name) for qid, spans in truths.items()}
        kept = {qid: spans for qid, spans in kept.items() if len(spans)}
        if kept:
            scores = moments.score([tops[qid] for qid in kept], list(kept.values()), CGDETR_THRESHOLDS)
            values |= {f"{name}/{metric}": value for metric, value in scores.items()}
    return Report(
        "charades_sta",
        implementation,
        values,
        {name: f"{100 * value:.2f}" for name, value in values.items()},
        {str(qid): moments.top1_tiou(tops[qid], truths[qid]) for qid in truths},
        len(truths),
        len(given),
        len(invalid),
        len(predictions.keys() - truths.keys()),
    )


def refcoco_acc(implementation: str, truth_path: Path, prediction_path: Path) -> Report:
    """Accuracy at IoU 0.5 a sentence, under one of BOX_RULES."""
    truths = {row["id"]: row for row in _rows(truth_path, ("id", "width", "height", "gt_xywh"))}
    predictions = dict(_column(prediction_path, "id", "pred_xyxy"))
    given = {key: np.array(predictions[key], np.float64) for key in truths if predictions.get(key) is not None}
    for key, box in given.items():
        if box.shape != (4,):
            raise TpoError(f"{prediction_path}: pred_xyxy of id {key} has shape {box.shape}, not four numbers")
    invalid = {key for key, box in given.items() if not (np.isfinite(box).all() and (box[2:] >= box[:2]).all())}
    found = np.array([given[k] if k in given and k not in invalid else np.zeros(4) for k in truths]).reshape(-1, 4)
    true = boxes.xywh_to_xyxy(np.array([row["gt_xywh"] for row in truths.values()], np.float64).reshape(-1, 4))
    sizes = np.array([[row["width"], row["height"]] * 2 for row in truths.values()], np.float64).reshape(-1, 4)
    overlaps, hits = BOX_RULES[implementation](found, true, sizes)
    values = {"acc@0.5": float(np.mean(hits)), "miou": float(np.mean(overlaps))}
    names = np.array([row.get("dataset", "") for row in truths.values()])
    values |= {f"{name}/acc@0.5": float(np.mean(hits[names == name])) for name in sorted(set(names) - {""})}
    return Report(
        "refcoco_acc",
        implementation,
        values,
        {name: f"{100 * value:.2f}" for name, value in values.items()},
        {str(key): float(value) for key, value in zip(truths, overlaps, strict=True)},
        len(truths),
        len(given),
        len(invalid),
        len(predictions.keys() - truths.keys()),
    )


def _pixels(found: np.ndarray, true: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    overlaps = boxes.iou(found, true)
    return overlaps, overlaps >= 0.5


def _normalised(found: np.ndarray, true: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    overlaps = boxes.iou(found / sizes, true / sizes)
    return overlaps, overlaps >= 0.5


def _shikra(found: np.ndarray, true: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normalised in float64, then times 1000 and overlap in float32; strictly above."""
    a, b = ((one / sizes).astype(np.float32) * np.float32(1000) for one in (found, true))
    overlaps = boxes.iou(a, b, np.float32)
    return overlaps, overlaps > 0.5


def _mdetr(found: np.ndarray, true: np.ndarray, sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Generalised IoU, float32."""
    overlaps = boxes.giou(found.astype(np.float32), true.astype(np.float32))
    return overlaps, overlaps >= 0.5


BOX_RULES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "pixels": _pixels,
    "lmms_eval": _normalised,
    "shikra": _shikra,
    "mdetr": _mdetr,
}


def mask_jf(implementation: str, truth_path: Path, prediction_path: Path) -> Report:
    """J and F: every frame counts, mean over the frames of an object, then over objects (the rule of MeViS)."""
    truths, predictions = _arrays(truth_path), _arrays(prediction_path)
    names = sorted(key.removesuffix("_gt") for key in truths if key.endswith("_gt"))
    given = {name for name in names if f"{name}_pred" in predictions}
    per_item: dict[str, Any] = {}
    triples = []
    for name in names:
        true, void = truths[f"{name}_gt"], truths.get(f"{name}_void")
        found = predictions[f"{name}_pred"] if name in given else np.zeros(true.shape, bool)
        for what, other in (("prediction", found), ("void", void)):
            if other is not None and other.shape != true.shape:
                raise TpoError(f"{name}: {what} has shape {other.shape}, the truth {true.shape}; make them equal")
        triples.append((found, true, void))
        per_item[name] = masks.score([found], [true], [void])
    values = masks.score([t[0] for t in triples], [t[1] for t in triples], [t[2] for t in triples])
    known = {f"{name}_pred" for name in names}
    unknown = [key for key in predictions if key.endswith("_pred") and key not in known]
    printed = {name: f"{100 * value:.2f}" for name, value in values.items()}
    return Report("mask_jf", implementation, values, printed, per_item, len(names), len(given), 0, len(unknown))


# metric: its function, its implementations with the default first
METRICS: dict[str, tuple[Callable[[str, Path, Path], Report], tuple[str, ...]]] = {
    "charades_sta": (charades_sta, ("cgdetr",)),
    "refcoco_acc": (refcoco_acc, tuple(BOX_RULES)),
    "mask_jf": (mask_jf, ("mevis",)),
}


def score(metric: str, truth_path: Path, prediction_path: Path, implementation: str | None = None) -> Report:
    """The report of one metric. TpoError for an unknown name and for files that are missing, empty or malformed."""
    if metric not in METRICS:
        raise TpoError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}")
    function, implementations = METRICS[metric]
    chosen = implementation or implementations[0]
    if chosen not in implementations:
        raise TpoError(f"{metric} has no implementation {chosen!r}; known: {', '.join(implementations)}")
    for path in (truth_path, prediction_path):
        if not path.is_file():
            raise TpoError(f"{path}: there is no such file")
    report = function(chosen, truth_path, prediction_path)
    if report.n_truths == 0:
        raise TpoError(f"{truth_path}: holds no truth, so there is nothing to score")
    return report


def _windows(path: Path) -> dict[Any, np.ndarray]:
    """Truth moments (m, 2) by qid, of a JSONL or of the text file that Charades-STA comes as."""
    if path.suffix != ".txt":
        truths = {qid: np.array(spans, np.float64) for qid, spans in _column(path, "qid", "relevant_windows")}
        for qid, spans in truths.items():
            if spans.ndim != 2 or spans.shape[1] != 2 or not len(spans):
                raise TpoError(f"{path}: relevant_windows of qid {qid} must be [[start, end], ...] with at least one")
        return truths
    truths = {}
    for number, line in enumerate(_lines(path)):
        fields = line.partition("##")[0].split()
        try:
            truths[number] = np.array([[float(fields[1]), float(fields[2])]])
        except (IndexError, ValueError):
            raise TpoError(f"{path}: line {number + 1} is not `VIDEO START END##SENTENCE`") from None
    return truths


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise TpoError(f"{path}: not UTF-8 text (byte {error.start}: {error.reason}); convert it") from None


def _first_window(windows: np.ndarray, path: Path, qid: Any) -> np.ndarray:
    """(2,), or (0,) for an empty list."""
    if windows.size == 0:
        return np.empty(0)
    if windows.ndim != 2 or windows.shape[1] < 2:
        raise TpoError(f"{path}: pred_relevant_windows of qid {qid} must be [[start, end, score], ...]")
    return windows[0, :2]


def _rows(path: Path, needed: Sequence[str]) -> list[dict[str, Any]]:
    """The objects of a JSONL that all hold the needed keys, the first of which is unique."""
    rows: list[dict[str, Any]] = []
    seen = set()
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            raise TpoError(f"{path}: line {number} is not JSON") from None
        lacking = [key for key in needed if not isinstance(row, dict) or key not in row]
        if lacking:
            raise TpoError(f"{path}: line {number} has no {lacking[0]!r}")
        if row[needed[0]] in seen:
            raise TpoError(f"{path}: line {number} repeats {needed[0]} {row[needed[0]]!r}; keep one")
        seen.add(row[needed[0]])
        rows.append(row)
    return rows


def _column(path: Path, key: str, value: str) -> list[tuple[Any, Any]]:
    return [(row[key], row[value]) for row in _rows(path, (key, value))]


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, OSError, TypeError, zipfile.BadZipFile):  # TypeError: an NPY file is one array, not a folder
        raise TpoError(f"{path}: not an NPZ file of arrays") from None


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tpo_core.metrics.score",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("metric", help=", ".join(METRICS))
    parser.add_argument("--ground-truth", type=Path, required=True, metavar="PATH", help="file of truths, as above")
    parser.add_argument("--predictions", type=Path, required=True, metavar="PATH", help="file of predictions, as above")
    known = "; ".join(f"{metric}: {', '.join(names)}" for metric, (_, names) in METRICS.items())
    parser.add_argument("--implementation", metavar="NAME", help=f"{known} (default: the first)")
    parser.add_argument("--json", action="store_true", help="everything, per item, as one JSON object")
    args = parser.parse_args(argv)
    try:
        report = score(args.metric, args.ground_truth, args.predictions, args.implementation)
    except TpoError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(asdict(report), indent=1))
        return 0
    print(f"{report.metric} ({report.implementation}), percent")
    for name, text in report.printed.items():
        print(f"  {name:<20}{text:>8}")
    missing = report.n_truths - report.n_predicted
    print(
        f"scored {report.n_truths}/{report.n_truths} truths: {missing} without a prediction and {report.n_invalid} "
        f"with an invalid one count as misses; {report.n_unknown} predictions without a truth left out"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
