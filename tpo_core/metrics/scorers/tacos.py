"""TACoS: moments of cooking videos."""

from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import files, ranked, submission
from tpo_core.metrics.registry import Option, Scorer
from tpo_core.metrics.report import Rejections, Report
from tpo_core.metrics.scorers.nlq import sound

READS = """\
--ground-truth   the annotations of 2D-TAN, {VIDEO.avi: {timestamps in frames, sentences, fps, num_frames}}; or
                 {data: [{times: [start_s, end_s]}, ...]}; or JSON lines with qid, relevant_windows (one each)
--predictions    a JSON list, or {segments_score_sorted: list}, with for each truth in order
                 [[start_s, end_s, ...], ...], best first; for JSON lines the same with qid, pred_relevant_windows

Numbers are shares: Rank@k,mIoU@t is the share of sentences with IoU over the hull strictly above t among the first k
left by non-maximum suppression (plain IoU above the threshold, in the order given); mIoU is that of the first.
2D-TAN itself scores while it runs and reads no file. Strictly official, truths without a prediction leave the
denominator, and an undefined overlap suppresses."""

THRESHOLDS, RANKS = (0.1, 0.3, 0.5, 0.7), (1, 5)
NMS_OF_TACOS = 0.4  # experiments/tacos of 2D-TAN; its other data sets have .45 and .5


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool, nms: float) -> Report:
    """By id for JSON lines, by place for the others."""
    rejections = Rejections()
    truths = _truths(ground_truth)
    given = _given(predictions, list(truths), strict_official, rejections)
    rejections.unknown([key for key in given if key not in truths])
    found: dict[Any, np.ndarray] = {}
    for key, truth in truths.items():
        if key not in given:
            rejections.add("missing", key)
            if strict_official:
                continue
        if strict_official:
            found[key] = _strict(key, truth, given[key], nms)
        elif (overlaps := _lenient(key, truth, given, nms, rejections)) is not None:
            found[key] = overlaps
    if not found:
        raise TpoError(f"{ground_truth}: holds no truth that can be scored")
    return Report(
        "tacos",
        implementation,
        strict_official,
        ranked.recalls(list(found.values()), THRESHOLDS, RANKS, ","),
        len(found),
        len(truths),
        rejections.summary(),
        {str(key): {"top1_iou": float(each[0]) if len(each) else 0.0} for key, each in found.items()},
    )


def _strict(key: Any, truth: Any, windows: Any, nms: float) -> np.ndarray:
    if submission.pair(truth) is None:
        raise TpoError(f"the official code stops at {key}: its truth must be [start, end], not {truth!r}")
    pairs = [submission.pair(window) for window in windows] if isinstance(windows, list) else []
    sound_pairs = [pair for pair in pairs if pair is not None]
    if not pairs or len(sound_pairs) < len(pairs):
        raise TpoError(f"the official code stops at {key}: its moments must be [[start, end], ...]")
    return ranked.overlaps(ranked.suppress(sound_pairs, nms, max(RANKS), strict=True), truth)


def _lenient(key: Any, truth: Any, given: dict[Any, Any], nms: float, rejections: Rejections) -> np.ndarray | None:
    if submission.flaw(submission.pair(truth)) is not None:
        rejections.add("bad_truth", key)
        return None
    if truth[0] == truth[1]:
        rejections.add("zero_length_truth", key)
    windows = sound(given.get(key, []), str(key), rejections, key in given)
    kept = ranked.suppress(windows, nms, max(RANKS), strict=False)
    return np.nan_to_num(ranked.overlaps(kept, truth), nan=0.0)


def _truths(path: Path) -> dict[Any, Any]:
    """(start_s, end_s) by qid or by place."""
    if path.suffix == ".jsonl":
        rows = files.json_lines(path, "qid", "relevant_windows")
        found: dict[Any, Any] = {}
        for row in rows:
            files.require_id(row["qid"], f"{path}: qid")
            if row["qid"] in found:
                raise TpoError(f"{path}: repeats qid {row['qid']}; keep one")
            if not isinstance(row["relevant_windows"], list) or len(row["relevant_windows"]) != 1:
                raise TpoError(f"{path}: relevant_windows of qid {row['qid']} must be one [start, end]")
            found[row["qid"]] = row["relevant_windows"][0]
        return found
    content = files.json_value(path)
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if isinstance(content, list):
        for place, row in enumerate(content):
            files.require(row, ("times",), f"{path}: row {place}")
        return {place: row["times"] for place, row in enumerate(content)}
    if not isinstance(content, dict):
        raise TpoError(f"{path}: not the annotations of TACoS; see --help")
    return dict(enumerate(span for video, note in content.items() for span in _of_video(path, video, note)))


def _of_video(path: Path, video: str, note: Any) -> list[tuple[float, float]]:
    """Frames over fps, cut to the video; as in 2D-TAN a span that does not start before its end is dropped."""
    files.require(note, ("timestamps", "fps", "num_frames"), f"{path}: {video}")
    fps, n_frames = note["fps"], note["num_frames"]
    if not submission.is_number(fps) or not submission.is_number(n_frames) or not fps > 0:
        raise TpoError(f"{path}: {video} has fps {fps!r} and num_frames {n_frames!r}; they must be above 0")
    pairs = [submission.pair(span) for span in files.require_list(note["timestamps"], f"{path}: timestamps of {video}")]
    if None in pairs:
        raise TpoError(f"{path}: timestamps of {video} must be [[first, last], ...]")
    return [(max(span[0] / fps, 0), min(span[1] / fps, n_frames / fps)) for span in pairs if span and span[0] < span[1]]


def _given(path: Path, keys: list[Any], strict: bool, rejections: Rejections) -> dict[Any, Any]:
    """The moments by qid or by place. Of a repeated qid the first are kept and the others told; strictly the last."""
    if path.suffix == ".jsonl":
        found: dict[Any, Any] = {}
        for row in files.json_lines(path, "qid", "pred_relevant_windows"):
            files.require_id(row["qid"], f"{path}: qid")
            if row["qid"] in found and not strict:
                rejections.add("duplicate", row["qid"])
            else:
                found[row["qid"]] = row["pred_relevant_windows"]
        return found
    content = files.json_value(path)
    if isinstance(content, dict):
        content = content.get("segments_score_sorted")
    if not isinstance(content, list):
        raise TpoError(f"{path}: neither a list of moments for each truth nor an object with segments_score_sorted")
    beyond = [f"row {place}" for place in range(len(keys), len(content))]
    return dict(zip([*keys, *beyond], content, strict=False))


SCORER = Scorer(
    "tacos",
    ("2dtan",),
    READS,
    score,
    (Option("nms", float, f"threshold of non-maximum suppression (default: {NMS_OF_TACOS})", NMS_OF_TACOS),),
)
