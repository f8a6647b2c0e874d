"""A row for each asked sample of a benchmark: what was asked, answered and true, for people and for the report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tpo_core.data.sample import Box, Rle, Sample
from tpo_core.data.shards import ShardSet
from tpo_core.evaluation import truth
from tpo_core.evaluation.asking import choice_text
from tpo_core.evaluation.native import Answered, Benchmark
from tpo_core.evaluation.record import Record, everywhere
from tpo_core.evaluation.suite import Entry
from tpo_core.metrics import boxes, moments, tracks

OFFICIAL = {"J": "j", "F": "f", "best_IoU": "iou", "ao": "iou"}  # items of official metrics by the names of all rows
CHOICES = ("choice", "grounded_choice")


def row_of(
    entry: Entry, benchmark: Benchmark, one: Answered, item: Mapping[str, Any] | None, shards: ShardSet
) -> dict[str, Any]:
    """The row of a sample. item: the official numbers behind it, None where the metric left it out."""
    sample, answer = one.sample, one.answer
    true, found = _TRUTHS[entry.task](one, shards)
    scores = {OFFICIAL.get(name, name): float(value) for name, value in (item or {}).items() if _number(value)}
    if entry.task in _OVERLAPS:
        scores = {"iou": _OVERLAPS[entry.task](true, found), **scores}
    options = sample.options if entry.task in CHOICES else None
    request = choice_text(entry.prompt, sample.turns[0].text, options) if options else truth.request_text(sample)
    return {
        "sample_id": sample.sample_id,
        "task": entry.task,
        "request": request,
        "answer": answer.text,
        "activated": list(dict.fromkeys([*answer.activated, *(one.ground.activated if one.ground else ())])),
        "truth": true,
        "prediction": found,
        "scores": {name: value if math.isfinite(value) else None for name, value in scores.items()},
        "failure": failure_of(entry, benchmark, one),
    }


def failure_of(entry: Entry, benchmark: Benchmark, one: Answered) -> str | None:
    """A code for why a sample has no answer that counts, or heads were called for one that does as they should not be;
    None for one that is right or wrong like any other."""
    for record in (one.answer, one.ground):
        if record is not None and record.failure is not None:
            return record.failure.partition(":")[0]
    text = one.answer.text
    if entry.task not in truth.HEAD_OF and not text.strip():
        return "empty_reply"
    if benchmark.reply is not None and not benchmark.reply(one.sample, text):
        return "unparsed_reply"
    requests = [(entry.task, one.answer), *([] if one.ground is None else [("moment", one.ground)])]
    reasons = (_no_right_call(task, record) for task, record in requests)
    return next((reason for reason in reasons if reason is not None), None)


def _no_right_call(task: str, record: Record) -> str | None:
    """What is wrong with the calls of heads in an answer that was given, or with what they gave."""
    given: dict[str, Any] = {
        "region": record.box,
        "moment": record.windows,
        "mask": record.masks,
        "track": record.boxes,
    }
    if task in given and truth.HEAD_OF[task] in record.activated and not given[task]:
        return "no_prediction"
    return truth.wrong_activation(task, record.activated)


def _number(value: Any) -> bool:
    return isinstance(value, bool | int | float)


def _region(one: Answered, shards: ShardSet) -> tuple[Any, Any]:
    return truth.true_box(one.sample).tolist(), one.answer.box and _strict(one.answer.box)


def _moment(one: Answered, shards: ShardSet) -> tuple[Any, Any]:
    windows = one.answer.windows
    return truth.true_spans(one.sample).tolist(), _strict(windows[0][:2]) if windows else None


def _mask(one: Answered, shards: ShardSet) -> tuple[Any, Any]:
    found = everywhere(one.answer.masks or {}, _stored(one.sample, shards).tolist())
    return None, [_plain_mask(mask) for mask in found.values()] or None


def _track(one: Answered, shards: ShardSet) -> tuple[Any, Any]:
    stored = _stored(one.sample, shards)
    found: dict[int, Box | None] = everywhere(one.answer.boxes or {}, stored.tolist())
    true = [None if np.isnan(box).any() else box.tolist() for box in truth.boxes_on(one.sample, stored)]
    return true, [box and list(box) for box in found.values()] or None


def _qa(one: Answered, shards: ShardSet) -> tuple[Any, Any]:
    return truth.answer_text(one.sample), one.answer.text


def _choice(one: Answered, shards: ShardSet) -> tuple[Any, Any]:
    return one.sample.answer_text, one.answer.text


def _grounded(one: Answered, shards: ShardSet) -> tuple[Any, Any]:
    windows = one.ground.windows if one.ground else ()
    spans = truth.true_spans(one.sample).tolist()
    return {"answer": one.sample.answer_text, "spans_s": spans}, {
        "answer": one.answer.text,
        "span_s": _strict(windows[0][:2]) if windows else None,
    }


def _strict(values: Sequence[float]) -> list[float | None]:
    """JSON has no NaN; with a null in it what was said is neither drawn nor a hit."""
    return [value if math.isfinite(value) else None for value in values]


def _stored(sample: Sample, shards: ShardSet) -> np.ndarray:
    return shards.media(sample.media[0].uri).frame_index


def _plain_mask(mask: Rle | None) -> dict[str, Any] | None:
    return None if mask is None else {"size": [mask.h, mask.w], "counts": mask.counts.decode()}


def _box_overlap(true: Any, found: Any) -> float:
    return 0.0 if found is None else float(boxes.iou(np.array([found], np.float64), np.array([true]))[0])


def _moment_overlap(true: Any, found: Any) -> float:
    return moments.top1_tiou(np.array([found] if found else [], np.float64).reshape(-1, 2), np.array(true))


def _track_overlap(true: Any, found: Any) -> float:
    nothing = [math.nan] * 4
    true_T4 = np.array([box or nothing for box in true])
    found_T4 = np.array([box or nothing for box in found]) if found else np.full_like(true_T4, math.nan)
    return float(tracks.mean_iou(found_T4, true_T4))


_TRUTHS = {
    "region": _region,
    "moment": _moment,
    "mask": _mask,
    "track": _track,
    "qa": _qa,
    "choice": _choice,
    "grounded_choice": _grounded,
}
_OVERLAPS = {"region": _box_overlap, "moment": _moment_overlap, "track": _track_overlap}
