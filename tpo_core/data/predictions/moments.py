"""Predicted moments as the files that official scorers read, and back.

Predictions are by sample id, best first, in seconds of the sample (a clip starts at 0). Reading a file gives what was
written. A moment that is not finite or ends before it starts, and a query without any, are TpoErrors: official scorers
raise on them or count them as right. So is a file that names what none of the samples is.

2D-TAN reads no file (its code scores while it runs); TACoS goes through the JSON lines of CG-DETR.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar

from tpo_core.data.readers.didemo import CHUNK_S, N_CHUNKS, span_of
from tpo_core.data.sample import Sample, Span
from tpo_core.errors import TpoError
from tpo_core.storage.uri import read_bytes, read_json, write_bytes, write_json

T = TypeVar("T")
SEGMENTS = tuple((first, last) for first in range(N_CHUNKS) for last in range(first, N_CHUNKS))


@dataclass(frozen=True)
class Moments:
    """Windows (start_s, end_s, score), best first; `saliency` is a score a clip of two seconds, or empty."""

    windows: tuple[tuple[float, float, float], ...]
    saliency: tuple[float, ...] = ()


def write_qvhighlights(
    samples: Iterable[Sample], predictions: Mapping[str, Moments], uri: str, *, unanswered: bool = False
) -> None:
    """QVHighlights submission (standalone_eval/eval.py of moment_detr, CG-DETR and TPO): JSON lines.

    unanswered: the samples without a prediction are in it too, with an empty list, of which `tpo_core.metrics` makes a
    miss; the official code stops at them.

    The same lines serve Charades-STA and TACoS, which CG-DETR scores with this code. The qid is that of the labels; for
    the text lines of Charades-STA, which have none, it is the number of the line, from 0.
    """
    samples = list(samples)
    pairs = _predicted(samples, predictions, lambda moments: moments.windows)
    if unanswered:
        pairs = [(sample, predictions.get(sample.sample_id, Moments(()))) for sample in samples]
    if len({bool(moments.saliency) for _, moments in pairs}) > 1:
        raise TpoError("some predictions have saliency scores and others none; the scorer looks at the first line only")
    rows = []
    for sample, moments in pairs:
        raw = json.loads(sample.provenance.raw)
        row = {
            "qid": qid_of(sample),
            "query": raw["query"] if "query" in raw else sample.targets[0].label,
            "vid": raw["vid"] if "vid" in raw else PurePosixPath(sample.media[0].uri).stem,
            "pred_relevant_windows": moments.windows,
        }
        rows.append(row | ({"pred_saliency_scores": moments.saliency} if moments.saliency else {}))
    write_bytes(uri, "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows).encode())


def read_qvhighlights(samples: Iterable[Sample], uri: str) -> dict[str, Moments]:
    """Moments by sample id."""

    def content() -> Iterable[tuple[int, Moments]]:
        for line in read_bytes(uri).decode().splitlines():
            row = json.loads(line)
            windows = tuple((float(a), float(b), float(score)) for a, b, score in row["pred_relevant_windows"])
            yield row["qid"], Moments(windows, tuple(map(float, row.get("pred_saliency_scores", ()))))

    return _read(uri, {qid_of(sample): sample.sample_id for sample in samples}, content)


write_charades_sta = write_tacos = write_qvhighlights
read_charades_sta = read_tacos = read_qvhighlights


def write_nlq(samples: Iterable[Sample], predictions: Mapping[str, Sequence[Span]], uri: str) -> None:
    """Ego4D NLQ submission (evaluate_ego4d_nlq.py, the challenge server). It takes no scores: the order is the rank."""
    results = [
        dict(zip(_NLQ_KEY, _nlq_key(sample), strict=True)) | {"predicted_times": [list(span) for span in spans]}
        for sample, spans in _predicted(samples, predictions, lambda spans: spans)
    ]
    write_json(uri, {"version": "1.0", "challenge": "ego4d_nlq_challenge", "results": results})


def read_nlq(samples: Iterable[Sample], uri: str) -> dict[str, tuple[Span, ...]]:
    """Moments by sample id."""

    def content() -> Iterable[tuple[tuple[Any, ...], tuple[Span, ...]]]:
        for row in read_json(uri)["results"]:
            yield tuple(row[name] for name in _NLQ_KEY), tuple((float(a), float(b)) for a, b in row["predicted_times"])

    return _read(uri, {_nlq_key(sample): sample.sample_id for sample in samples}, content)


def write_didemo(samples: Iterable[Sample], predictions: Mapping[str, Sequence[Span]], uri: str) -> None:
    """DiDeMo (`eval_predictions` of LocalizingMoments): for each description, all 21 runs of chunks, best first.

    Its scorer looks every annotation up in the list, and goes by position: every row of the labels needs a prediction.
    A moment becomes the run that it overlaps most. Runs that no moment names follow, those that overlap the best moment
    most before the others. TpoError when a row is missing.
    """
    samples = list(samples)
    rows = {sample.provenance.row: _ranked(spans) for sample, spans in _predicted(samples, predictions, lambda s: s)}
    missing = next((row for row in range(max(rows, default=-1) + 1) if row not in rows), None)
    unasked = {sample.sample_id for sample in samples} - set(predictions)
    if missing is not None or unasked:
        which = min(unasked) if unasked else f"row {missing} of the labels"
        raise TpoError(f"DiDeMo is scored by position, but {which} has no prediction")
    write_json(uri, [rows[row] for row in sorted(rows)])


def read_didemo(samples: Iterable[Sample], uri: str) -> dict[str, tuple[Span, ...]]:
    """All 21 runs by sample id, in seconds."""

    def content() -> Iterable[tuple[int, tuple[Span, ...]]]:
        for row, segments in enumerate(read_json(uri)):
            yield row, tuple(span_of(*segment) for segment in segments)

    return _read(uri, {sample.provenance.row: sample.sample_id for sample in samples}, content)


def _ranked(spans: Sequence[Span]) -> list[tuple[int, int]]:
    named = [max(SEGMENTS, key=lambda segment: _iou(span_of(*segment), span)) for span in spans]
    others = sorted(SEGMENTS, key=lambda segment: -_iou(span_of(*segment), spans[0]))
    return list(dict.fromkeys([*named, *others]))


def _iou(one: Span, other: Span) -> float:
    """Overlap over the hull; of two that do not meet, minus the gap between them in chunks."""
    overlap = min(one[1], other[1]) - max(one[0], other[0])
    return overlap / (max(one[1], other[1]) - min(one[0], other[0])) if overlap > 0 else overlap / CHUNK_S


_NLQ_KEY = ("clip_uid", "annotation_uid", "query_idx")


def _nlq_key(sample: Sample) -> tuple[Any, ...]:
    raw = json.loads(sample.provenance.raw)
    return tuple(raw[name] for name in _NLQ_KEY)


def qid_of(sample: Sample) -> int:
    native_id = sample.provenance.native_id
    return int(native_id) if native_id.isdecimal() else sample.provenance.row


def _predicted(
    samples: Iterable[Sample], predictions: Mapping[str, T], windows: Callable[[T], Iterable[Sequence[float]]]
) -> list[tuple[Sample, T]]:
    """The samples with a prediction, in order. TpoError for a prediction that cannot be scored."""
    pairs = [(sample, predictions[sample.sample_id]) for sample in samples if sample.sample_id in predictions]
    unknown = set(predictions) - {sample.sample_id for sample, _ in pairs}
    if unknown:
        raise TpoError(f"{len(unknown)} predictions belong to no sample, the first is {min(unknown)!r}")
    for sample, prediction in pairs:
        given = list(windows(prediction))
        if not given:
            raise TpoError(f"{sample.sample_id}: no moment is predicted; the official scorer needs one a query")
        bad = next((w for w in given if not all(map(math.isfinite, w)) or w[1] < w[0]), None)
        if bad is not None:
            raise TpoError(f"{sample.sample_id}: {list(bad)} is no moment; ends must not be before starts")
    return pairs


def _read(uri: str, ids: Mapping[Any, str], content: Callable[[], Iterable[tuple[Any, T]]]) -> dict[str, T]:
    """By sample id what `content` gives by native key."""
    try:
        return {ids[key]: value for key, value in content()}
    except FileNotFoundError as error:
        raise TpoError(f"there is no file of predictions {uri}") from error
    except KeyError as error:
        raise TpoError(f"{uri}: {error} is no query of the samples, and no field of a record") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise TpoError(f"{uri} holds no predictions in the expected form: {error}") from error
