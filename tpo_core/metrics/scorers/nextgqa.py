"""NExT-GQA: multiple choice whose answer must be grounded in a moment of the video."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import files, submission
from tpo_core.metrics.registry import Option, Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   gsub_{val,test}.json: VIDEO: {duration, location: {QUESTION: [[start_s, end_s], ...]}}
--predictions    JSON object VIDEO_QUESTION: [start_s, end_s]
--qa             JSON object VIDEO_QUESTION: {answer, prediction}; without it there is no Acc@GQA

Numbers are percent with one decimal: mIoP, mIoU, TIoP@t, TIoU@t (>= t) of the best overlap with the segments of the
truth, taken separately; IoP is over the prediction's length, IoU over the hull; a prediction without length has IoU 0,
and IoP 1 inside a segment. Acc@GQA needs the right answer and IoP >= .5. Strictly official, questions without a
prediction leave the denominator, and without --qa Acc@GQA is 0."""

Span = tuple[float, float]


def score(
    ground_truth: Path,
    predictions: Path,
    implementation: str,
    strict_official: bool,
    qa: Path | None,
    subset: Path | None,
    fractions: bool,
) -> Report:
    """Over the questions of the truth, or strictly official over those with a prediction."""
    truths, given = _truths(ground_truth, fractions), _object(predictions)
    answers = None if qa is None else _object(qa)
    wanted = truths.keys() if subset is None else _keys(subset)
    rejections = Rejections()
    overlaps: dict[str, tuple[float, float]] = {}
    for key, (segments, duration_s) in truths.items():
        if key not in wanted:
            continue
        if not strict_official and (not segments or any(submission.flaw(each) for each in segments)):
            rejections.add("bad_truth", key)
            continue
        if key not in given:
            rejections.add("missing", key)
            if strict_official:
                continue
        found = _span(given.get(key), duration_s, key, key in given, strict_official, rejections)
        overlaps[key] = _best(segments, found)
    rejections.unknown(key for key in given if key not in truths)
    if not overlaps:
        raise TpoError(f"{predictions}: has no question of {ground_truth}, so there is nothing to score")
    n_right = _n_right(overlaps, answers, strict_official, rejections)
    return Report(
        "nextgqa",
        implementation,
        strict_official,
        _numbers(list(overlaps.values()), n_right),
        len(overlaps),
        sum(key in wanted for key in truths),
        rejections.summary(),
        {key: {"best_IoU": one, "best_IoP": other} for key, (one, other) in overlaps.items()},
    )


def overlap(segment: Span, found: Span) -> tuple[float, float]:
    """(IoU, IoP); both are negative for spans apart. Python's own max and min, in this order, decide what NaN does."""
    if found[0] == found[1]:
        return 0, int(segment[0] <= found[0] <= segment[1])
    start, end = min(segment[0], found[0]), max(segment[1], found[1])
    inter = min(segment[1], found[1]) - max(segment[0], found[0])
    return inter / (end - start) if end > start else 0.0, inter / (found[1] - found[0]) if found[1] > found[0] else 0.0


def _best(segments: list[Span], found: Span | None) -> tuple[float, float]:
    """The best IoU and the best IoP, separately, 0 at least."""
    best_iou, best_iop = 0.0, 0.0
    if found is None:
        return best_iou, best_iop
    for segment in segments:
        iou, iop = overlap(segment, found)
        best_iou, best_iop = max(best_iou, iou), max(best_iop, iop)
    return best_iou, best_iop


def _span(
    value: Any, duration_s: float | None, key: str, there: bool, strict: bool, rejections: Rejections
) -> Span | None:
    """The predicted span in seconds, or in fractions of `duration_s` if there is one. None for a rejected one."""
    if strict and isinstance(value, list) and len(value) > 2:
        value = [value[0], value[-1]]  # which is what the official code looks at
    span = submission.pair(value) if isinstance(value, list) and len(value) == 2 else None
    if span is None and strict:
        raise TpoError(f"the official code stops at {key}: {value!r} is not [start, end]")
    reason = submission.flaw(span)
    if not strict and reason is not None:
        if there:
            rejections.add("empty" if value == [] else reason, key)
        return None
    if span is not None and duration_s is not None:
        with np.errstate(all="ignore"):  # of an infinity and a duration of 0
            start_s, end_s = np.round(np.array(span) * duration_s, 1).tolist()
        return start_s, end_s
    return span


def _n_right(
    overlaps: dict[str, tuple[float, float]], answers: dict[str, Any] | None, strict: bool, rejections: Rejections
) -> int | None:
    """Questions with the right answer and IoP >= .5; None where no answers were given, so that nobody takes a 0 for
    measured. Every missing answer is told; the official code looks for those of grounded questions only."""
    grounded = [key for key, (_, iop) in overlaps.items() if iop >= 0.5]
    if strict:
        return sum(_right(answers, key) for key in grounded) if answers else 0
    if answers is None:
        rejections.add("missing", "all answers, so that there is no Acc@GQA: --qa was not given")
        return None
    for key in overlaps:
        if not _is_answer(answers.get(key)):
            rejections.add("missing", f"{key} answer")
    return sum(_is_answer(answers.get(key)) and _right(answers, key) for key in grounded)


def _is_answer(row: Any) -> bool:
    return isinstance(row, dict) and {"answer", "prediction"} <= row.keys()


def _right(answers: dict[str, Any], key: str) -> bool:
    if not _is_answer(answers.get(key)):
        raise TpoError(f"the official code stops here: there is no answer to {key}")
    return answers[key]["answer"] == answers[key]["prediction"]


def _numbers(overlaps: list[tuple[float, float]], n_right: int | None) -> dict[str, float]:
    n = len(overlaps)
    numbers = {} if n_right is None else {"Acc@GQA": n_right * 1.0 / n * 100}
    for name, place in (("IoP", 1), ("IoU", 0)):
        values = [each[place] for each in overlaps]
        numbers[f"m{name}"] = sum(values) / n * 100
        numbers |= {f"T{name}@{t}": sum(value >= t for value in values) * 1.0 / n * 100 for t in (0.3, 0.5)}
    return {name: float(f"{value:.1f}") for name, value in numbers.items()}


def _truths(path: Path, fractions: bool) -> dict[str, tuple[list[Span], float | None]]:
    """Segments of each VIDEO_QUESTION, with the duration if spans are fractions of it."""
    found: dict[str, tuple[list[Span], float | None]] = {}
    for video, note in _object(path).items():
        files.require(note, ("location", "duration") if fractions else ("location",), f"{path}: {video}")
        if fractions and not submission.is_number(note["duration"]):
            raise TpoError(f"{path}: {video} has duration {note['duration']!r}, not seconds")
        if not isinstance(note["location"], dict):
            raise TpoError(f"{path}: location of {video} must be QUESTION: [[start, end], ...]")
        for question, listed in note["location"].items():
            where = f"{path}: location of {video}_{question}"
            pairs = [submission.pair(one) for one in files.require_list(listed, where)]
            if None in pairs:
                raise TpoError(f"{where} must be [[start, end], ...]")
            segments = [one for one in pairs if one is not None]
            found[f"{video}_{question}"] = (segments, note["duration"] if fractions else None)
    return found


def _object(path: Path) -> dict[str, Any]:
    content = files.json_value(path)
    if not isinstance(content, dict):
        raise TpoError(f"{path}: not a JSON object")
    return content


def _keys(path: Path) -> Collection[str]:
    content = files.json_value(path)
    if not isinstance(content, list | dict):
        raise TpoError(f"{path}: not a JSON list of VIDEO_QUESTION")
    return set(content)


SCORER = Scorer(
    "nextgqa",
    ("nextgqa",),
    READS,
    score,
    (
        Option("qa", Path, "file of answers, as above"),
        Option("subset", Path, "JSON list of the VIDEO_QUESTION to score; all by default"),
        Option("fractions", bool, "spans are fractions of the duration, rounded to 0.1 s when multiplied by it"),
    ),
)
