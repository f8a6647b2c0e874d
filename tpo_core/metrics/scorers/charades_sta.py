"""Charades-STA: one moment a sentence, by four codes that read four kinds of files."""

import ast
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.metrics import charades_truth, files, replies, submission
from tpo_core.metrics.charades_truth import Sentence
from tpo_core.metrics.registry import Scorer
from tpo_core.metrics.report import Rejections, Report
from tpo_core.metrics.scorers import qvhighlights

READS = """\
--ground-truth   charades_sta_test.txt (VIDEO START END##SENTENCE; ids are lines from 0), or its JSON lines (qid,
                 relevant_windows), or its COCO form (annotations with id, timestamp); for vtimellm a JSON object
                 VIDEO: {duration, timestamps, sentences}. Ends past the video are kept as they are: the JSON lines
                 of CG-DETR have them clipped, so numbers differ between the forms.
--predictions    cgdetr      JSON lines with qid, pred_relevant_windows [[start_s, end_s, score], ...]
                 timesuite   JSON object ID: {timestamp: [[start_s, end_s]]}, or a list of {id, generated_cap: REPLY}
                 lmms_eval   JSON object "VIDEO.mp4>>>SENTENCE>>>[start, end]": REPLY
                 vtimellm    its log, JSON lines with video_id, answer, info.sentence_id
                 vtimellm also takes one JSON list of [REPLY, [start, end] as fractions] for both.

Numbers in percent: cgdetr as QVHighlights (two decimals), the others R1 at .3, .5, .7 and mIoU, unrounded; timesuite
has no mIoU, vtimellm rounds each IoU to two decimals first. All take IoU over the hull, >= the threshold."""

THRESHOLDS = (0.3, 0.5, 0.7)
Window = tuple[float, float]
_Key = tuple[str, str, Window]


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool) -> Report:
    """Hands over to the code of the implementation."""
    rejections = Rejections()
    if implementation == "cgdetr":
        return _cgdetr(ground_truth, predictions, strict_official, rejections)
    numbers, overlaps, n_truths = {"timesuite": _timesuite, "lmms_eval": _lmms_eval, "vtimellm": _vtimellm}[
        implementation
    ](ground_truth, predictions, strict_official, rejections)
    if not overlaps:
        raise TpoError(f"{predictions}: nothing is left to score against {ground_truth}")
    per_item = {str(key): {"iou": value} for key, value in overlaps.items()}
    return Report(
        "charades_sta",
        implementation,
        strict_official,
        numbers(list(overlaps.values())),
        len(overlaps),
        n_truths,
        rejections.summary(),
        per_item,
    )


Scored = tuple[Callable[[Sequence[float]], dict[str, float]], dict[Any, float], int]


def _cgdetr(truth_path: Path, path: Path, strict: bool, rejections: Rejections) -> Report:
    sentences = charades_truth.sentences(truth_path)
    rows = [{"qid": sentence.id, "relevant_windows": sentence.windows} for sentence in sentences]
    truths = qvhighlights.windows(rows, truth_path, rejections, strict)
    numbers, brief, items, n = qvhighlights.moments(truths, submission.rows(path), "cgdetr", rejections, strict)
    result = {"brief": brief} | dict(sorted(numbers.items()))
    per_item = {str(qid): each for qid, each in items.items()}
    return Report("charades_sta", "cgdetr", strict, result, n, len(rows), rejections.summary(), per_item)


def _recalls(overlaps: Sequence[float]) -> dict[str, float]:
    return {str(t): sum(value >= t for value in overlaps) * 100 / len(overlaps) for t in THRESHOLDS}


def _recalls_and_mean(overlaps: Sequence[float]) -> dict[str, float]:
    return _recalls(overlaps) | {"mIoU": sum(overlaps) * 100 / len(overlaps)}


def _named_recalls(overlaps: Sequence[float]) -> dict[str, float]:
    n = len(overlaps)
    return {"mIoU": sum(overlaps) / n * 100} | {f"R1@{t}": sum(v >= t for v in overlaps) / n * 100 for t in THRESHOLDS}


def _hull(truth: Window, found: Window) -> float:
    """Python's own max and min, in this order, decide what a NaN does. ZeroDivisionError for two equal points."""
    inter = max(min(truth[1], found[1]) - max(truth[0], found[0]), 0)
    return inter / (max(truth[1], found[1]) - min(truth[0], found[0]))


def _overlap(key: Any, truth: Window, found: Window, strict: bool, rejections: Rejections) -> float:
    reason = None if strict else submission.flaw(found)
    if reason is not None:
        rejections.add(reason, key)
        return 0.0
    try:
        return _hull(truth, found)
    except ZeroDivisionError:
        if strict:
            raise TpoError(f"the official code stops at {key}: 0/0, truth and prediction are one point") from None
        rejections.add("zero_length", key)
        return 0.0


def _sound(key: Any, window: Window | None, path: Path, strict: bool, rejections: Rejections) -> Window | None:
    """The window of a truth; None for a degenerate one, unless strict."""
    if window is None:
        raise TpoError(f"{path}: the moment of {key} is not [start, end]")
    if strict or submission.flaw(window) is None:
        return window
    rejections.add("bad_truth", key)
    return None


def _timesuite(truth_path: Path, path: Path, strict: bool, rejections: Rejections) -> Scored:
    truths = {sentence.id: sentence for sentence in charades_truth.sentences(truth_path)}
    given = _timesuite_windows(path, strict, rejections)
    if strict and len(given) != len(truths):
        raise TpoError(f"the official code stops here: {len(given)} predictions for {len(truths)} truths")
    rejections.unknown([key for key in given if key not in truths])
    overlaps: dict[Any, float] = {}
    for key, sentence in truths.items():
        truth = _sound(key, sentence.window, truth_path, strict, rejections)
        if truth is None:
            continue
        if key not in given and strict:
            raise TpoError(f"the official code stops here: there is no prediction for {key}")
        windows = given.get(key)
        found = submission.pair(windows[0]) if isinstance(windows, list) and windows else None
        if found is None:
            rejections.add("missing" if key not in given else "malformed" if windows else "empty", key)
        overlaps[key] = 0.0 if found is None else _overlap(key, truth, found, strict, rejections)
    return _recalls, overlaps, len(truths)


def _timesuite_windows(path: Path, strict: bool, rejections: Rejections) -> dict[Any, Any]:
    """Windows by id. A list holds replies, which that code parses; of an id that comes twice it takes the last."""
    content = files.json_value(path)
    if isinstance(content, dict):
        for key, row in content.items():
            files.require(row, ("timestamp",), f"{path}: {key}")
            if not key.removeprefix("-").isdecimal():
                raise TpoError(f"{path}: id {key!r} is no whole number")
        return {int(key): row["timestamp"] for key, row in content.items()}
    if not isinstance(content, list):
        raise TpoError(f"{path}: neither an object of timestamps by id nor a list of replies")
    found: dict[Any, Any] = {}
    for number, row in enumerate(content):
        files.require(row, ("id", "generated_cap"), f"{path}: row {number}")
        if not str(row["id"]).isdecimal():
            raise TpoError(f"{path}: id {row['id']!r} is no whole number")
        if int(row["id"]) in found and not strict:
            rejections.add("duplicate", row["id"])
            continue
        moment = _parsed(row["id"], str(row["generated_cap"]), replies.timesuite, strict, rejections)
        found[int(row["id"])] = [list(moment)] if moment else []
    return found


def _parsed(
    key: Any, reply: str, parse: Callable[[str], Window | None], strict: bool, rejections: Rejections
) -> Window | None:
    try:
        found = parse(reply)
    except ValueError as error:
        if strict:
            raise TpoError(f"the official code stops at {key}: {error}") from None
        found = None
    if found is None:
        rejections.add("unparsed", key)
    return found


def _lmms_eval(truth_path: Path, path: Path, strict: bool, rejections: Rejections) -> Scored:
    """The truth is in the keys of the predictions. Sentences that are equal in all are one key, so they count once."""
    given = files.json_value(path)
    if not isinstance(given, dict):
        raise TpoError(f"{path}: not a JSON object of replies")
    names: dict[_Key, list[str]] = {}
    for name in given:
        names.setdefault(_key(path, name), []).append(name)
    if truth_path.resolve() == path.resolve():
        truths = list(names)
    else:
        sentences = charades_truth.sentences(truth_path)
        truths = list(dict.fromkeys(_key_of(sentence, truth_path) for sentence in sentences))
    if strict:
        return _lmms_official(truths, names, given, rejections)
    for name in (name for several in names.values() for name in several[1:]):
        rejections.add("duplicate", name)
    known = set(truths)
    rejections.unknown([several[0] for key, several in names.items() if key not in known])
    overlaps: dict[Any, float] = {}
    for key in truths:
        truth = _sound(key, key[2], truth_path, strict, rejections)
        if truth is None:
            continue
        if key not in names:
            rejections.add("missing", key)
            overlaps[key] = 0.0
            continue
        name = names[key][0]
        overlaps[name] = _lmms_overlap(name, truth, str(given[name]), strict, rejections)
    return _recalls_and_mean, overlaps, len(truths)


def _lmms_official(
    truths: list[_Key], names: dict[_Key, list[str]], given: dict[str, Any], rejections: Rejections
) -> Scored:
    """That code scores every reply and nothing else. So N is of the replies and of the truths without one."""
    known = set(truths)
    overlaps: dict[Any, float] = {}
    for key, several in names.items():
        for name in several:
            if key not in known:
                rejections.add("extra", name)
            overlaps[name] = _lmms_overlap(name, key[2], str(given[name]), True, rejections)
    lost = [key for key in truths if key not in names]
    for key in lost:
        rejections.add("missing", key)
    return _recalls_and_mean, overlaps, len(overlaps) + len(lost)


def _lmms_overlap(name: str, truth: Window, reply: str, strict: bool, rejections: Rejections) -> float:
    found = _parsed(name, reply, replies.lmms_eval, strict, rejections)
    beyond = (truth[1] + 10, truth[1] + 20)  # what that code takes for a reply without a moment
    return _overlap(name, truth, found or beyond, strict, rejections)


def _key(path: Path, key: str) -> _Key:
    parts = key.split(">>>")
    try:
        window = submission.pair(ast.literal_eval(parts[2])) if len(parts) == 3 else None
    except (ValueError, SyntaxError):
        window = None
    if window is None:
        raise TpoError(f"{path}: {key!r} is not VIDEO>>>SENTENCE>>>[start, end]")
    return parts[0].removesuffix(".mp4"), parts[1].strip(), window


def _key_of(sentence: Sentence, path: Path) -> _Key:
    if sentence.window is None:
        raise TpoError(f"{path}: the moment of {sentence.id} is not [start, end]")
    return sentence.video.removesuffix(".mp4"), sentence.text.strip(), sentence.window


def _vtimellm(truth_path: Path, path: Path, strict: bool, rejections: Rejections) -> Scored:
    truths, given = _vtimellm_files(truth_path, path, rejections)
    overlaps: dict[Any, float] = {}
    for key in given if strict else truths:
        if key not in truths:
            raise TpoError(f"{path}: {key} is no sentence of {truth_path}")
        truth = _sound(key, truths[key], truth_path, strict, rejections)
        if truth is None:
            continue
        if key not in given:
            rejections.add("missing", key)
        found = replies.vtimellm(given[key]) if key in given else None
        if key in given and found is None:
            rejections.add("unparsed", key)
        overlaps[key] = 0.0 if found is None else round(_overlap(key, truth, found, strict, rejections), 2)
    rejections.unknown([key for key in given if key not in truths])
    return _named_recalls, overlaps, len(truths)


def _vtimellm_files(
    truth_path: Path, path: Path, rejections: Rejections
) -> tuple[dict[str, Window | None], dict[str, str]]:
    """Moments as fractions of the video, and replies, by VIDEO/SENTENCE."""
    if truth_path.resolve() == path.resolve():
        pairs = files.json_value(path)
        if not isinstance(pairs, list) or not all(isinstance(each, list) and len(each) == 2 for each in pairs):
            raise TpoError(f"{path}: not a JSON list of [REPLY, [start, end]]")
        spans: dict[str, Window | None] = {str(n): submission.pair(span) for n, (_, span) in enumerate(pairs)}
        return spans, {str(number): str(reply) for number, (reply, _) in enumerate(pairs)}
    content = files.json_value(truth_path)
    if not isinstance(content, Mapping):
        raise TpoError(f"{truth_path}: not a JSON object VIDEO: {{duration, timestamps, sentences}}")
    truths: dict[str, Window | None] = {}
    for video, row in content.items():
        files.require(row, ("duration", "timestamps"), f"{truth_path}: {video}")
        length_s = row["duration"]
        if not submission.is_number(length_s) or not length_s > 0:
            raise TpoError(f"{truth_path}: {video} has duration {length_s!r}; it must be above 0")
        for number, span in enumerate(files.require_list(row["timestamps"], f"{truth_path}: timestamps of {video}")):
            window = submission.pair(span)
            truths[f"{video}/{number}"] = None if window is None else (window[0] / length_s, window[1] / length_s)
    given: dict[str, str] = {}
    for row in files.json_lines(path, "video_id", "answer"):
        if row.get("task", "grounding") != "grounding":
            continue
        files.require(row.get("info"), ("sentence_id",), f"{path}: the info of {row['video_id']}")
        key = f"{row['video_id']}/{row['info']['sentence_id']}"
        if key in given:
            rejections.add("duplicate", key)
        given.setdefault(key, str(row["answer"]))
    return truths, given


SCORER = Scorer("charades_sta", ("cgdetr", "timesuite", "lmms_eval", "vtimellm"), READS, score)
