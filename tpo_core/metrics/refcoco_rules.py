"""When the box of a sentence is right, in five codes: their parsers, their overlaps, their averages."""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import boxes
from tpo_core.metrics.refcoco_files import Prediction, Truth
from tpo_core.metrics.report import Rejections

Box = tuple[float, float, float, float]
Items = list[Mapping[str, Any]]
THRESHOLD = 0.5
LMMS_THRESHOLDS = (0.1, 0.3, 0.5, 0.7, 0.9)
RANKS = (1, 5, 10)
SHIKRA_SCALE = 1000
NOTHING = (0.0, 0.0, 0.0, 0.0)
FAR_AWAY = -1.0  # the generalised IoU of nothing
FARTHEST_PX = 1e15  # beyond it the areas of the codes that compute in float32 are infinite

_LMMS_BOX = re.compile(r"\[" + r",".join([r"\s*(-?\d+(?:\.\d+)?)"] * 4) + r"\s*\]")
_DIGITS = r"\d(?:\.\d*)?"
_SHIKRA_FOUR = rf"{_DIGITS}(?:,{_DIGITS}){{3}}"
_SHIKRA_BOXES = re.compile(rf"\[{_SHIKRA_FOUR}(?:;{_SHIKRA_FOUR})*\]")
_ASV2_BOXES = re.compile(r"\[\[.*?\]\]")


@dataclass(frozen=True)
class Pair:
    """A truth and its boxes, best first, in pixels unless `divided` says that they are shares of the image size.

    `boxes` is None where the prediction is rejected or not there; `found` says whether there was a box in it at all.
    """

    key: str
    truth: Truth
    boxes: np.ndarray | None  # (k, 4) float64
    found: bool
    divided: bool


@dataclass(frozen=True)
class Parser:
    """Reads replies as one code does."""

    implementation: str
    square_pad: bool
    box_scale: float

    def boxes(self, text: str, truth: Truth) -> np.ndarray | None:
        """(k, 4), divided but for All-Seeing-V2, whose are pixels in float32; None if there is no box in the text."""
        if self.implementation == "lmms_eval":
            found = _LMMS_BOX.search(text)
            return None if found is None else np.array([[float(number) for number in found.groups()]])
        if self.implementation == "shikra":
            groups = _SHIKRA_BOXES.findall(text)
            if len(groups) != 1 or ";" in groups[0]:
                return None
            return np.array([[float(number) for number in groups[0][1:-1].split(",")]])
        if self.implementation == "all_seeing_v2":
            return self._all_seeing(text, truth)
        raise TpoError(f"{self.implementation} reads no text; give pred_xyxy, or choose an implementation that does")

    def _all_seeing(self, text: str, truth: Truth) -> np.ndarray | None:
        """The first box of the first [[...]]."""
        found = _ASV2_BOXES.search(text)
        try:
            first = _narrow(np.array(json.loads(found[0])[0], np.float64).reshape(-1, 4)) if found else None
        except (ValueError, TypeError, IndexError, KeyError, OverflowError, RecursionError):
            return None
        return None if first is None or not len(first) else self._placed(first, truth)

    def _placed(self, box: np.ndarray, truth: Truth) -> np.ndarray:
        """In pixels of the image that was not padded."""
        width, height = truth.width, truth.height
        sizes = [max(width, height)] * 2 if self.square_pad else [width, height]
        placed = box / np.float32(self.box_scale) * np.array(sizes * 2, np.float32)
        return placed - self._padding(truth)

    def _padding(self, truth: Truth) -> np.ndarray:
        """What the square has more on the left and on top, half of it rounded down."""
        spare = (truth.height - truth.width) // 2, (truth.width - truth.height) // 2
        return np.array([max(side, 0) for side in spare] * 2, np.float32) * np.float32(self.square_pad)

    def unread(self, truth: Truth) -> np.ndarray:
        """The box that the code puts where it found none."""
        zeros = np.zeros((1, 4))
        return zeros - self._padding(truth) if self.implementation == "all_seeing_v2" else zeros


def screened_pairs(
    truths: Mapping[str, Truth], given: Mapping[str, Prediction], parser: Parser, rejections: Rejections
) -> list[Pair]:
    """A pair for every truth that a box can match; what cannot be scored has no boxes, and is told."""
    pairs = []
    for key, truth in truths.items():
        flaw = _wrong(np.array(truth.box))
        if flaw is not None:
            rejections.add("zero_length_truth" if flaw == "zero_length" else "bad_truth", key)
        if flaw not in (None, "zero_length"):
            continue
        one = given.get(key, Prediction())
        found = _boxes(one, truth, parser)
        kept = found
        if found is None:
            if key in given:
                rejections.add("unparsed" if one.text is not None else "malformed" if one.boxes else "empty", key)
        elif one.text is not None and len(found) != 1:
            rejections.add("malformed", key)
            kept = None
        elif parser.implementation == "mdetr":
            kept = _without_wrong(found, key, rejections)
        elif (wrong := _wrong(found[0])) is not None:
            rejections.add(wrong, key)
            kept = None
        pairs.append(Pair(key, truth, kept, found is not None, _divided(one, parser)))
    return pairs


def official_pairs(
    implementation: str, truths: Mapping[str, Truth], given: Sequence[tuple[str, Prediction]], parser: Parser
) -> list[Pair]:
    """The pairs that the code would score: its stand-in where there is no box."""
    walk = list(given) if implementation == "all_seeing_v2" else list(_in_order(truths, dict(given)))
    pairs = []
    for key, one in walk:
        truth = truths[key]
        found = _boxes(one, truth, parser)
        taken = parser.unread(truth) if found is None else found
        if implementation == "all_seeing_v2" and one.text is not None and len(taken) != 1:
            raise TpoError(f"{key}: several boxes in one list, at which All-Seeing-V2 stops")
        pairs.append(Pair(key, truth, taken, found is not None, _divided(one, parser)))
    return pairs


def refuse(implementation: str, truths: Mapping[str, Truth], given: Sequence[tuple[str, Prediction]]) -> None:
    """TpoError for what the code itself stops at."""
    unknown = [key for key, _ in given if key not in truths]
    if implementation == "all_seeing_v2" and unknown:
        raise TpoError(f"{unknown[0]}: an answer to no question, at which All-Seeing-V2 stops")
    if implementation != "mdetr":
        return
    by_key = dict(given)
    for key in truths:
        found = _as_boxes(by_key[key].boxes) if key in by_key else None
        if found is None:
            raise TpoError(f"{key}: no boxes, at which MDETR stops")
        if not (found[:, 2:] >= found[:, :2]).all():
            raise TpoError(f"{key}: a NaN or a reversed box, at which MDETR stops")


def _in_order(truths: Mapping[str, Truth], given: Mapping[str, Prediction]) -> list[tuple[str, Prediction]]:
    return [(key, given.get(key, Prediction())) for key in truths]


def _boxes(one: Prediction, truth: Truth, parser: Parser) -> np.ndarray | None:
    return _as_boxes(one.boxes) if one.text is None else parser.boxes(one.text, truth)


def _divided(one: Prediction, parser: Parser) -> bool:
    return one.text is not None and parser.implementation != "all_seeing_v2"


def _as_boxes(given: list[Any] | None) -> np.ndarray | None:
    try:
        found = np.array(given, np.float64) if given else np.empty(0)
    except (ValueError, TypeError, OverflowError):
        return None
    return found if found.ndim == 2 and found.shape[1] == 4 else None


def _without_wrong(found: np.ndarray, key: str, rejections: Rejections) -> np.ndarray:
    """The boxes; a rejected one becomes NaN and keeps its rank, so that none behind it moves up."""
    reasons = list(map(_wrong, found))
    for reason in filter(None, reasons):
        rejections.add(reason, key)
    return np.where([[reason is not None] for reason in reasons], np.nan, found)


@boxes.QUIETLY
def _narrow(found: np.ndarray) -> np.ndarray:
    """In float32, where what is too large is infinite."""
    return found.astype(np.float32)


def _wrong(box: np.ndarray) -> str | None:
    """The reason for which a box is rejected."""
    if not np.isfinite(box).all():
        return "not_finite"
    if (np.abs(box) > FARTHEST_PX).any():
        return "out_of_range"
    if (box[2:] < box[:2]).any():
        return "reversed"
    return "zero_length" if (box[2:] == box[:2]).any() else None


def _python(pairs: list[Pair], divide: bool) -> tuple[dict[str, Any], Items]:
    """The code of lmms-eval: plain Python floats."""
    items: Items = []
    for pair in pairs:
        if pair.boxes is None:
            items.append({"iou": 0.0, "center_hit": False})
            continue
        found, true = (_shares(box, pair) if divide else box for box in (_tuple(pair.boxes[0]), pair.truth.box))
        if pair.divided:
            found = _tuple(pair.boxes[0])
        items.append({"iou": _python_iou(true, found, pair.key), "center_hit": _center_hit(true, found)})
    overlaps = [item["iou"] for item in items]
    result: dict[str, Any] = {"IoU": sum(overlaps) / len(overlaps)}
    for threshold in LMMS_THRESHOLDS:
        result[f"ACC@{threshold}"] = sum(overlap >= threshold for overlap in overlaps) / len(overlaps)
    result["Center_ACC"] = sum(item["center_hit"] for item in items) / len(items)
    names = sorted({pair.truth.dataset for pair in pairs})
    for name in names if len(names) > 1 else ():
        hits = [o >= THRESHOLD for o, pair in zip(overlaps, pairs, strict=True) if pair.truth.dataset == name]
        result[name] = {"ACC@0.5": sum(hits) / len(hits)}
    return result, items


def _python_iou(true: Box, found: Box, key: str) -> float:
    """A NaN loses to a number in max and min when it comes second, as the prediction does."""
    inter = max(0, min(true[2], found[2]) - max(true[0], found[0]))
    inter *= max(0, min(true[3], found[3]) - max(true[1], found[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (true, found)]
    union = areas[0] + areas[1] - inter
    if union == 0:
        raise TpoError(f"{key}: truth and prediction have no area, at which lmms-eval divides by zero")
    return inter / union


def _center_hit(true: Box, found: Box) -> bool:
    x, y = (found[0] + found[2]) / 2, (found[1] + found[3]) / 2
    return true[0] <= x <= true[2] and true[1] <= y <= true[3]


def _shares(box: Box, pair: Pair) -> Box:
    width, height = pair.truth.width, pair.truth.height
    return (box[0] / width, box[1] / height, box[2] / width, box[3] / height)


def _tuple(box: np.ndarray) -> Box:
    return (float(box[0]), float(box[1]), float(box[2]), float(box[3]))


def _pixels(pairs: list[Pair]) -> tuple[dict[str, Any], Items]:
    return _python(pairs, divide=False)


def _lmms_eval(pairs: list[Pair]) -> tuple[dict[str, Any], Items]:
    return _python(pairs, divide=True)


@boxes.QUIETLY
def _shikra(pairs: list[Pair]) -> tuple[dict[str, Any], Items]:
    """Divided, then times 1000 in float32; strictly above."""
    sizes = np.array([[pair.truth.width, pair.truth.height] * 2 for pair in pairs], np.float64)
    true = np.array([pair.truth.box for pair in pairs]) / sizes
    found = np.array([NOTHING if pair.boxes is None else pair.boxes[0] for pair in pairs], np.float64)
    found = np.where([[pair.divided] for pair in pairs], found, found / sizes)
    scale = np.float32(SHIKRA_SCALE)
    overlaps = boxes.unchecked_iou(_narrow(found) * scale, _narrow(true) * scale)
    overlaps = np.where([pair.boxes is None for pair in pairs], np.float32(0), overlaps)
    result = {
        "accuracy": int((overlaps > THRESHOLD).sum()) / len(pairs),
        "target_failed": 0,
        "failed": sum(not pair.found for pair in pairs),
        "iou": float(np.mean(overlaps)),
    }
    return result, [{"iou": float(overlap)} for overlap in overlaps]


def _all_seeing_v2(pairs: list[Pair]) -> tuple[dict[str, Any], Items]:
    """Strictly above, in float32 pixels; percent of each category."""
    hits: dict[str, list[bool]] = defaultdict(list)
    items: Items = []
    for pair in pairs:
        found = np.zeros((1, 4)) if pair.boxes is None else pair.boxes
        true = np.array([pair.truth.box], np.float32)
        overlap = float(boxes.unchecked_iou(_narrow(found), true)[0])
        hits[pair.truth.dataset].append(overlap > THRESHOLD)
        items.append({"iou": overlap, "box": found[0].tolist()})
    result = {
        name: {"# samples": len(each), "Acc@0.5": round(sum(each) / len(each) * 100, 2)} for name, each in hits.items()
    }
    return result, items


def _mdetr(pairs: list[Pair]) -> tuple[dict[str, Any], Items]:
    """Generalised IoU of the best of the first k boxes, in float32."""
    hits: dict[str, list[list[bool]]] = defaultdict(list)
    items: Items = []
    for pair in pairs:
        found = np.empty((0, 4)) if pair.boxes is None else pair.boxes
        true = np.tile(np.array(pair.truth.box, np.float32), (len(found), 1))
        overlaps = np.where(np.isnan(found).any(axis=1), FAR_AWAY, boxes.giou(_narrow(found), true)).tolist()
        best = [max(overlaps[:k], default=FAR_AWAY) for k in RANKS]
        hits[pair.truth.dataset].append([value >= THRESHOLD for value in best])
        items.append({"giou": best[0], "giou@10": best[-1]})
    result = {
        name: {f"P@{k}": sum(row[i] for row in rows) / len(rows) for i, k in enumerate(RANKS)}
        for name, rows in hits.items()
    }
    return result, items


RULES: dict[str, Callable[[list[Pair]], tuple[dict[str, Any], Items]]] = {
    "iou": _pixels,
    "lmms_eval": _lmms_eval,
    "shikra": _shikra,
    "all_seeing_v2": _all_seeing_v2,
    "mdetr": _mdetr,
}
