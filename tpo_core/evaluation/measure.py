"""Asks a model the requests of one part and scores the answers: one flat dict of metrics and a row for each answer.

Names are "<part>/<task>/<metric>", all in [0, 1]. A request that the model answers without the right head (missed
activation) counts as a wrong answer of the task, never as a smaller denominator; of a model that has no such head the
text is read for coordinates (`spoken`). Choices are put and read as VideoChat2 does it on MVBench. What the labels say
nothing about is not asked: samples that are not `truth.scorable`, and of masks the stored frames without a label.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tpo_core.config.schema import EvaluationConfig
from tpo_core.data import rle
from tpo_core.data.example import Example, load_example
from tpo_core.data.sample import Sample
from tpo_core.data.shards import ShardSet
from tpo_core.evaluation import truth
from tpo_core.evaluation.asking import choice_of
from tpo_core.evaluation.native.choices import mvbench_option
from tpo_core.evaluation.spoken import with_spoken
from tpo_core.heads.base import BoxPrediction, MaskPrediction, SpanPrediction
from tpo_core.metrics import activation, answers, boxes, masks, moments, tracks
from tpo_core.models.tpo import Answer, TpoModel

TELL_EVERY_S = 10.0
CHOICE_PROMPT = "best_option"


@dataclass
class Scored:
    """One answered request. `scores` holds the task's own numbers; `truth` and `prediction` are plain JSON values
    (predicted masks are run lengths, true ones are left to the sample); `example` and `found` stay for the gallery."""

    task: str
    example: Example
    answer: Answer
    found: Any
    scores: dict[str, float]
    truth: Any
    prediction: Any

    def row(self) -> dict[str, Any]:
        """The record in predictions.jsonl."""
        sample = self.example.sample
        return {
            "sample_id": sample.sample_id,
            "task": self.task,
            "request": truth.request_text(sample),
            "answer": self.answer.text,
            "activated": self.answer.activated,
            "truth": self.truth,
            "prediction": self.prediction,
            "scores": self.scores,
        }


@dataclass
class Measured:
    """Metrics of one part, and what they were computed from."""

    metrics: dict[str, float]
    counts: dict[str, int]
    scored: list[Scored] = field(default_factory=list)


def measure(
    model: TpoModel, shards: ShardSet, part: str, config: EvaluationConfig, echo: Callable[[str], None]
) -> Measured:
    """Scores the model on the chosen samples of a part, the same for every model.

    `echo` takes what was left out for want of a label, then a line of progress with the time left, at most one in
    `TELL_EVERY_S` seconds and one at the end.
    """
    chosen = choose(labelled(shards, part, echo), config.limit_per_task, config.limit_by_task)
    asked = [(task, sample) for task, samples in chosen.items() for sample in samples]
    by_media = sorted(range(len(asked)), key=lambda number: [media.uri for media in asked[number][1].media])
    scored: dict[int, Scored] = {}
    began = told = time.monotonic()
    for group in chunks(by_media, config.batch_size):  # requests about one media share its pass through the tower
        examples = [example_of(shards, *asked[number]) for number in group]
        answers_given = model.chat(examples, config.max_new_tokens)
        for number, example, answer in zip(group, examples, answers_given, strict=True):
            task = asked[number][0]
            scored[number] = score(task, example, with_spoken(task, example, answer, list(model.heads)))
        if (now := time.monotonic()) - told >= TELL_EVERY_S and len(scored) < len(asked):
            told, left_s = now, (now - began) / len(scored) * (len(asked) - len(scored))
            echo(f"evaluate  {part}  {len(scored)}/{len(asked)}  {left_s:.0f} s left")
    echo(f"evaluate  {part}  {len(scored)}/{len(asked)}  in {time.monotonic() - began:.0f} s")
    in_order = [scored[number] for number in range(len(asked))]
    return Measured(summarize(part, in_order), {task: len(samples) for task, samples in chosen.items()}, in_order)


def labelled(shards: ShardSet, part: str, echo: Callable[[str], None]) -> Iterator[Sample]:
    """The samples of a part that can be scored; tells how many cannot, by task."""
    left_out: Counter[str] = Counter()
    for sample in shards.samples(part):
        if truth.scorable(sample, shards):
            yield sample
        else:
            left_out[truth.MEASURED[sample.task]] += 1
    if left_out:
        told = ", ".join(f"{count} {task}" for task, count in sorted(left_out.items()))
        echo(f"evaluate  {part}  left out: {told} without a label to compare with")


def choose(
    samples: Iterable[Sample], limit: int | None, limit_by_task: Mapping[str, int] | None = None
) -> dict[str, list[Sample]]:
    """Samples by measured task; with a limit, that many at equal distances, so that every dataset of a task is met."""
    by_task: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        task = truth.measured_task(sample)
        if task is not None:
            by_task[task].append(sample)
    chosen = {}
    for task in sorted(by_task):
        found = by_task[task]
        most = (limit_by_task or {}).get(task, limit)
        count = len(found) if most is None else min(most, len(found))
        chosen[task] = [found[i * len(found) // count] for i in range(count)]
    return chosen


def chunks(items: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """Consecutive runs of at most `size` items."""
    return (items[start : start + size] for start in range(0, len(items), size))


def example_of(shards: ShardSet, task: str, sample: Sample) -> Example:
    """A request with its frames; of a choice with the options in the question."""
    if task != "choice":
        return load_example(shards, sample)
    question = choice_of(CHOICE_PROMPT, sample)
    return replace(load_example(shards, question.sample), answer_prefix=question.prefix)


def score(task: str, example: Example, answer: Answer) -> Scored:
    """Compares one answer with the truth of its sample; of several calls of a head the first one counts."""
    head = truth.HEAD_OF.get(task)
    found = answer.first(head) if head else None
    scores, true, predicted = SCORERS[task](example, answer, found)
    return Scored(task, example, answer, found, scores, true, predicted)


def _region(example: Example, answer: Answer, found: BoxPrediction | None) -> tuple[dict[str, float], Any, Any]:
    true = truth.true_box(example.sample)
    predicted = None if found is None else found.box_xyxy.numpy().astype(np.float64)
    iou = 0.0 if predicted is None else float(boxes.iou(predicted[None], true[None])[0])
    return {"iou": iou}, true.tolist(), None if predicted is None else predicted.tolist()


def _moment(example: Example, answer: Answer, found: SpanPrediction | None) -> tuple[dict[str, float], Any, Any]:
    true = truth.true_spans(example.sample)
    predicted = np.zeros((0, 2)) if found is None else found.spans_s.numpy().astype(np.float64)
    return {"iou": moments.top1_tiou(predicted, true)}, true.tolist(), predicted[0].tolist() if len(predicted) else None


def _mask(example: Example, answer: Answer, found: MaskPrediction | None) -> tuple[dict[str, float], Any, Any]:
    known = truth.masked_frames(example.sample, example.frame_index)
    true = truth.true_masks(example)[known]
    predicted = np.zeros_like(true) if found is None else found.masks_THW.numpy()[known]
    j, f = masks.jaccard(predicted, true), masks.boundary_f(predicted, true)
    runs = None if found is None else [rle.to_coco(rle.encode(mask_HW)) for mask_HW in found.masks_THW.numpy()]
    return {"j": float(np.mean(j)), "f": float(np.mean(f))}, None, runs


def _track(example: Example, answer: Answer, found: MaskPrediction | None) -> tuple[dict[str, float], Any, Any]:
    true = truth.true_track(example)
    predicted = np.full_like(true, np.nan) if found is None else found.boxes_T4.numpy().astype(np.float64)
    return {"iou": float(tracks.mean_iou(predicted, true))}, _plain(true), _plain(predicted)


def _qa(example: Example, answer: Answer, found: None) -> tuple[dict[str, float], Any, Any]:
    true = truth.answer_text(example.sample)
    return {"right": float(answers.matches(answer.text, true))}, true, answer.text


def _choice(example: Example, answer: Answer, found: None) -> tuple[dict[str, float], Any, Any]:
    sample = example.sample
    right = mvbench_option(sample, answer.text) == sample.answer_index
    return {"right": float(right)}, sample.answer_text, answer.text


def _caption(example: Example, answer: Answer, found: None) -> tuple[dict[str, float], Any, Any]:
    return {}, truth.answer_text(example.sample), answer.text


SCORERS: dict[str, Callable[..., tuple[dict[str, float], Any, Any]]] = {
    "region": _region,
    "moment": _moment,
    "mask": _mask,
    "track": _track,
    "qa": _qa,
    "choice": _choice,
    "caption": _caption,
}


def _plain(boxes_T4: np.ndarray) -> list[list[float] | None]:
    return [None if np.isnan(box).any() else box.tolist() for box in boxes_T4]


def summarize(part: str, scored: Sequence[Scored]) -> dict[str, float]:
    """The metrics of the answered requests of a part; a task without requests has none."""
    by_task: dict[str, list[Scored]] = defaultdict(list)
    for one in scored:
        by_task[one.task].append(one)
    metrics: dict[str, float] = {}
    for task, group in by_task.items():
        values = {name: np.array([one.scores[name] for one in group]) for name in group[0].scores}
        metrics |= {f"{part}/{task}/{name}": value for name, value in TASK_METRICS[task](values).items()}
    asked = [(one.answer.activated, truth.HEAD_OF.get(one.task)) for one in scored]
    metrics |= {f"{part}/activation/{name}": value for name, value in activation.rates(asked).items()}
    return metrics


def _region_metrics(values: dict[str, np.ndarray]) -> dict[str, float]:
    return {"acc@0.5": boxes.acc_at(values["iou"]), "miou": boxes.miou(values["iou"])}


def _moment_metrics(values: dict[str, np.ndarray]) -> dict[str, float]:
    recalls = {f"r1@{t:g}": moments.recall_at(values["iou"], t) for t in moments.THRESHOLDS}
    return recalls | {"miou": float(np.mean(values["iou"]))}


def _mask_metrics(values: dict[str, np.ndarray]) -> dict[str, float]:
    j, f = float(np.mean(values["j"])), float(np.mean(values["f"]))
    return {"j": j, "f": f, "j&f": (j + f) / 2}


TASK_METRICS: dict[str, Callable[[dict[str, np.ndarray]], dict[str, float]]] = {
    "region": _region_metrics,
    "moment": _moment_metrics,
    "mask": _mask_metrics,
    "track": lambda values: {"miou": float(np.mean(values["iou"]))},
    "qa": lambda values: {"accuracy": float(np.mean(values["right"]))},
    "choice": lambda values: {"accuracy": float(np.mean(values["right"]))},
    "caption": lambda values: {},
}
