"""Moments, and choices that are grounded in one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from tpo_core.data.predictions import moments
from tpo_core.data.sample import Sample
from tpo_core.evaluation import truth
from tpo_core.evaluation.native.choices import mvbench_option
from tpo_core.evaluation.native.files import Answered, Benchmark, Files, native_id, raw, write_lines, write_value
from tpo_core.metrics.highlights import CLIP_S


def _windows(given: Sequence[Answered], folder: Path) -> Files:
    """A submission to QVHighlights with a line a query, as `moments.write_qvhighlights` has it, but for windows that it
    refuses: these keep their place here, where the metric rejects and counts them. Saliency is in it where the labels
    tell it and the model does; of a request that it missed it is empty, which is a miss of the metric too."""
    rows = []
    for one in given:
        about = raw(one.sample)
        row = {
            "qid": moments.qid_of(one.sample),
            "query": about.get("query", one.sample.targets[0].label),
            "vid": about.get("vid", PurePosixPath(one.sample.media[0].uri).stem),
            "pred_relevant_windows": one.answer.windows,
        }
        clips = one.answer.clips
        if truth.true_saliency(one.sample) is not None and clips is not None:
            row["pred_saliency_scores"] = saliency_of(clips, one.sample.media[0].sample_duration_s()) if clips else []
        rows.append(row)
    return Files(write_lines(folder / "predictions.jsonl", rows))


def _windows_truth(asked: Sequence[Sample], folder: Path) -> Files:
    rows = []
    for sample in asked:
        about, saliency = raw(sample), truth.true_saliency(sample)
        row = {
            "qid": moments.qid_of(sample),
            "query": about.get("query", sample.targets[0].label),
            "duration": sample.media[0].sample_duration_s(),
            "relevant_windows": truth.true_spans(sample).tolist(),
        }
        if saliency is not None:
            row |= {"relevant_clip_ids": saliency.clip_ids, "saliency_scores": saliency.scores}
        rows.append(row)
    return Files(write_lines(folder / "truth.jsonl", rows))


def saliency_of(clips: Sequence[tuple[float, float, float]], duration_s: float | None) -> list[float]:
    """A score for each clip of two seconds, which QVHighlights counts in: the mean over its time of what was said; past
    the last clip (features end with their last whole one) what was said of that.

    clips: (start_s, end_s, saliency), in order, without gaps, from 0 on."""
    starts, ends, scores = np.array(clips, np.float64).T
    count = max(1, int((ends[-1] if duration_s is None else duration_s) / CLIP_S))
    edges_s = np.arange(count + 1)[:, None] * CLIP_S
    shared_s = (np.minimum(edges_s[1:], ends) - np.maximum(edges_s[:-1], starts)).clip(min=0)
    shared_s[shared_s.sum(1) == 0, -1] = 1
    mean: list[float] = (shared_s @ scores / shared_s.sum(1)).tolist()
    return mean


def _next_gqa(given: Sequence[Answered], folder: Path) -> Files:
    """Replies are read as MVBench reads them, since the official code compares numbers of options and reads no text.
    Spans are written as they were said, whatever they are."""
    chosen, spans = {}, {}
    for one in given:
        option = mvbench_option(one.sample, one.answer.text)
        if option is not None:
            chosen[native_id(one.sample)] = {"answer": one.sample.answer_index, "prediction": option}
        if one.ground is not None and one.ground.windows:
            spans[native_id(one.sample)] = one.ground.windows[0][:2]
    qa = write_value(folder / "qa.json", chosen)
    return Files(write_value(folder / "ground.json", spans), {"qa": qa})


def _next_gqa_truth(asked: Sequence[Sample], folder: Path) -> Files:
    videos: dict[str, Any] = {}
    for sample in asked:
        video, _, question = native_id(sample).rpartition("_")
        note = videos.setdefault(video, {"duration": sample.media[0].sample_duration_s(), "location": {}})
        note["location"][question] = [list(target.span_s) for target in sample.targets if target.span_s is not None]
    return Files(write_value(folder / "truth.json", videos))


def _qid(sample: Sample) -> str:
    return str(moments.qid_of(sample))


CHARADES_STA = Benchmark(_windows, _windows_truth, _qid)
QVHIGHLIGHTS = Benchmark(_windows, _windows_truth, _qid)
NEXT_GQA = Benchmark(
    _next_gqa, _next_gqa_truth, native_id, lambda sample, text: mvbench_option(sample, text) is not None
)
