"""The constant baselines of one part: what answers that never look would score on the same requests as the model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tpo_core.data.sample import Sample
from tpo_core.data.shards import ShardSet
from tpo_core.evaluation import baselines, truth
from tpo_core.evaluation.measure import Scored, choose

TRAIN_SAMPLES = 1000  # of each task: enough for a mean, a median and the most frequent answer

Train = dict[str, list[Sample]]  # samples of part `train` by measured task


def constant_baselines(shards: ShardSet, part: str, scored: Sequence[Scored]) -> dict[str, float]:
    """Metrics under the model's own names ("<part>/region/acc@0.5", ...), constants taken from part `train`.

    The better of two per metric, for moments: the whole clip, and the median moment of train; for masks: the box of
    train, and no mask at all. Of choices it is a guess. Empty when the set has no part `train`.
    """
    if "train" not in shards.parts:
        return {}
    train = choose((sample for sample in shards.samples("train") if truth.scorable(sample, shards)), TRAIN_SAMPLES)
    found: dict[str, float] = {}
    for task, one in (("region", _region), ("moment", _moment), ("mask", _mask), ("track", _track), ("qa", _qa)):
        asked = [item for item in scored if item.task == task]
        if asked and train.get(task):
            found |= one(train, asked, shards)
    if choices := [item.example.sample.options or () for item in scored if item.task == "choice"]:
        found["choice/accuracy"] = float(np.mean([1 / len(options) for options in choices]))
    return {f"{part}/{name}": value for name, value in found.items()}


def size_wh(sample: Sample) -> tuple[int, int]:
    """Width and height of the original, which preprocessing filled in."""
    media = sample.media[0]
    assert media.width, f"{sample.sample_id} was not preprocessed"
    assert media.height, f"{sample.sample_id} was not preprocessed"
    return media.width, media.height


def _region(train: Train, asked: list[Scored], shards: ShardSet) -> dict[str, float]:
    return baselines.constant_box(
        np.array([truth.true_box(sample) for sample in train["region"]]),
        np.array([size_wh(sample) for sample in train["region"]]),
        np.array([item.truth for item in asked]),
        np.array([(item.example.width, item.example.height) for item in asked]),
    )


def _moment(train: Train, asked: list[Scored], shards: ShardSet) -> dict[str, float]:
    durations = [item.example.duration_s for item in asked]
    spans = [np.array(item.truth) for item in asked]
    whole = baselines.whole_clip(spans, durations)
    typical = baselines.constant_moment(
        [truth.true_spans(sample) for sample in train["moment"]],
        [shards.media(sample.media[0].uri).duration_s for sample in train["moment"]],
        spans,
        durations,
    )
    return {name: max(whole[name], typical[name]) for name in whole}


def _boxes_of(train: Train) -> tuple[np.ndarray, np.ndarray]:
    """Boxes and sizes that stand for any object of train: of region samples, and the first box of tracks."""
    boxes, sizes = [], []
    for task in ("region", "track"):
        for sample in train.get(task, []):
            box = next((t.box for t in sample.targets if t.box is not None), None)
            if box is not None:
                boxes.append(box)
                sizes.append(size_wh(sample))
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(sizes, np.float64).reshape(-1, 2)


def _mask(train: Train, asked: list[Scored], shards: ShardSet) -> dict[str, float]:
    boxes, sizes = _boxes_of(train)
    if not len(boxes):
        return {}
    examples = [item.example for item in asked]
    known = [truth.masked_frames(example.sample, example.frame_index) for example in examples]
    masks = [truth.true_masks(example)[frames] for example, frames in zip(examples, known, strict=True)]
    filled, empty = baselines.constant_mask(boxes, sizes, masks), baselines.no_mask(masks)
    return {name: max(filled[name], empty[name]) for name in filled}


def _track(train: Train, asked: list[Scored], shards: ShardSet) -> dict[str, float]:
    boxes, sizes = _boxes_of(train)
    tracks = [truth.true_track(item.example) for item in asked]
    held = np.array([(item.example.width, item.example.height) for item in asked])
    return baselines.constant_track(boxes, sizes, tracks, held) if len(boxes) else {}


def _qa(train: Train, asked: list[Scored], shards: ShardSet) -> dict[str, float]:
    return baselines.majority_answer(
        [question_type(sample) for sample in train["qa"]],
        [truth.answer_text(sample) for sample in train["qa"]],
        [question_type(item.example.sample) for item in asked],
        [str(item.truth) for item in asked],
    )


def question_type(sample: Sample) -> str:
    """The first two words of the question: `what colour`, `how many`."""
    return " ".join(truth.request_text(sample).lower().split()[:2])
