"""Reads the truths and predictions of referring expressions in the forms in which they are published.

Ids are compared as text, since the keys of a JSON object are text whatever they were.
"""

import io
import math
import pickle
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tpo_core.errors import TpoError
from tpo_core.metrics import files
from tpo_core.metrics.report import Rejections
from tpo_core.metrics.submission import is_number

ID_KEYS = ("id", "question_id", "image_id", "sent_id")


@dataclass(frozen=True)
class Truth:
    """The box of one sentence; xyxy in pixels, in an image of this size."""

    box: tuple[float, float, float, float]
    width: float
    height: float
    dataset: str


@dataclass(frozen=True)
class Prediction:
    """Boxes, xyxy in pixels and best first, or the text that a model gave; neither if it gave nothing."""

    boxes: list[Any] | None = None
    text: str | None = None


def truths(path: Path, split: str, split_by: str | None) -> dict[str, Truth]:
    """The truths by id, of a `refer` folder, a COCO JSON in the form of MDETR, or JSON lines; one at least."""
    if path.is_dir():
        found = _refer(path, split, split_by)
    elif path.suffix == ".json":
        found = _coco(files.json_value(path), path)
    else:
        found = _lines(path)
    if not found:
        raise TpoError(f"{path}: holds no truth, so there is nothing to score")
    return found


def _lines(path: Path) -> dict[str, Truth]:
    found = {}
    for number, row in enumerate(files.json_lines(path, "width", "height"), start=1):
        where = f"{path}: row {number}"
        key = _key(row, where)
        if key in found:
            raise TpoError(f"{where} repeats {key}; a sentence has one truth")
        if "gt_xywh" in row:
            box = _corners(row["gt_xywh"], where)
        else:
            files.require(row, ("bbox",), where)
            box = _four(row["bbox"], where)
        found[key] = Truth(box, *_size(row, where), str(row.get("dataset", row.get("category", "refcoco"))))
    return found


def predictions(path: Path, rejections: Rejections, keep_duplicates: bool) -> list[tuple[str, Prediction]]:
    """Pairs of id and prediction, in the order of the file; of an id that comes twice the first, if not both."""
    if path.suffix == ".json":
        rows = _mdetr_rows(files.json_value(path), path)
    else:
        rows = [(_key(row, f"{path}: row {n}"), row) for n, row in enumerate(files.json_lines(path), start=1)]
    found: list[tuple[str, Prediction]] = []
    seen = set()
    for key, row in rows:
        if key in seen and not keep_duplicates:
            rejections.add("duplicate", key)
            continue
        seen.add(key)
        found.append((key, _prediction(row, f"{path}: {key}")))
    return found


def _prediction(row: dict[str, Any], where: str) -> Prediction:
    if "text" in row:
        return Prediction(text=str(row["text"]))
    files.require(row, ("pred_xyxy",), where)
    given = row["pred_xyxy"]
    if given is None or given == []:
        return Prediction()
    boxes = given if isinstance(given, list) and isinstance(given[0], list) else [given]
    if "scores" in row:
        boxes = _by_score(row["scores"], boxes, where)
    return Prediction(boxes=boxes)


def _by_score(scores: Any, boxes: list[Any], where: str) -> list[Any]:
    """Best first; of equal scores the larger box, as Python compares lists."""
    try:
        return [box for _, box in sorted(zip(scores, boxes, strict=True), reverse=True)]
    except (TypeError, ValueError):
        raise TpoError(f"{where}: scores and boxes must be one number and four numbers each") from None


def _mdetr_rows(value: Any, path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Of {"IMAGE_ID": {"scores": [...], "boxes": [[x1, y1, x2, y2], ...]}}."""
    if not isinstance(value, dict):
        raise TpoError(f"{path}: not an object of predictions by id; see --help")
    rows = []
    for key, row in value.items():
        files.require(row, ("scores", "boxes"), f"{path}: {key}")
        rows.append((str(key), {"scores": row["scores"], "pred_xyxy": row["boxes"]}))
    return rows


def _key(row: dict[str, Any], where: str) -> str:
    for name in ID_KEYS:
        if name in row:
            return str(row[name])
    raise TpoError(f"{where} has no id (one of {', '.join(ID_KEYS)})")


def _four(values: Any, where: str) -> tuple[float, float, float, float]:
    box = [_float(value) for value in values] if isinstance(values, list) else []
    if len(box) != 4 or not np.isfinite(box).all():
        raise TpoError(f"{where}: the box of a truth is four finite numbers, not {reprlib.repr(values)}")
    return (box[0], box[1], box[2], box[3])


def _float(value: Any) -> float:
    """NaN for what is no number, infinity for a whole one that is too large for a float."""
    try:
        return float(value) if is_number(value) else math.nan
    except OverflowError:
        return math.inf


def _size(row: dict[str, Any], where: str) -> tuple[float, float]:
    """Width and height of an image."""
    width, height = _float(row["width"]), _float(row["height"])
    if not (0 < width < math.inf and 0 < height < math.inf):
        told = " and ".join(reprlib.repr(row[name]) for name in ("width", "height"))
        raise TpoError(f"{where}: width and height must be numbers of pixels above 0, not {told}")
    return width, height


def _corners(values: Any, where: str) -> tuple[float, float, float, float]:
    left, top, width, height = _four(values, where)
    return (left, top, left + width, top + height)


def _coco(value: Any, path: Path) -> dict[str, Truth]:
    """MDETR: each sentence is an image with exactly one annotation."""
    files.require(value, ("images", "annotations"), f"{path}")
    boxes: dict[Any, Any] = {}
    for row in value["annotations"]:
        files.require(row, ("image_id", "bbox"), f"{path}: an annotation")
        if row["image_id"] in boxes:
            raise TpoError(f"{path}: image {row['image_id']} has two annotations; a sentence has one box")
        boxes[row["image_id"]] = row["bbox"]
    found = {}
    for row in value["images"]:
        files.require(row, ("id", "width", "height"), f"{path}: an image")
        if row["id"] not in boxes:
            raise TpoError(f"{path}: image {row['id']} has no annotation; a sentence has one box")
        where = f"{path}: image {row['id']}"
        box = _corners(boxes[row["id"]], where)
        found[str(row["id"])] = Truth(box, *_size(row, where), row.get("dataset_name", "refcoco"))
    return found


def _refer(folder: Path, split: str, split_by: str | None) -> dict[str, Truth]:
    """The layout of the `refer` interface; the id is that of the sentence."""
    found = sorted(folder.glob("refs(*).p")) if split_by is None else [folder / f"refs({split_by}).p"]
    if len(found) != 1 or not found[0].is_file():
        there = ", ".join(path.name for path in sorted(folder.glob("refs(*).p"))) or "none"
        raise TpoError(f"{folder}: say with --split-by which refs(SPLIT_BY).p is meant; there: {there}")
    refs = _unpickled(found[0])
    instances = files.json_value(folder / "instances.json")
    files.require(instances, ("images", "annotations"), f"{folder}/instances.json")
    images = {row["id"]: row for row in instances["images"]}
    boxes = {row["id"]: row["bbox"] for row in instances["annotations"]}
    truths_: dict[str, Truth] = {}
    for ref in refs:
        if ref["split"] != split:
            continue
        where = f"{found[0]}: ref {ref['ref_id']}"
        if ref["image_id"] not in images or ref["ann_id"] not in boxes:
            raise TpoError(f"{where}: its image or annotation is not in instances.json")
        image = images[ref["image_id"]]
        truth = Truth(_corners(boxes[ref["ann_id"]], where), *_size(image, where), folder.name)
        truths_ |= {str(sentence["sent_id"]): truth for sentence in ref["sentences"]}
    if not truths_:
        there = ", ".join(sorted({ref["split"] for ref in refs}))
        raise TpoError(f"{found[0]}: no sentence of split {split}; there: {there}")
    return truths_


class _PlainData(pickle.Unpickler):
    """Lists, dictionaries, numbers and text; nothing that runs code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it wants {module}.{name}, but refs are plain data")


def _unpickled(path: Path) -> list[dict[str, Any]]:
    try:
        refs = _PlainData(io.BytesIO(path.read_bytes()), encoding="latin1").load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise TpoError(f"{path}: not a pickle of refs ({error})") from None
    for ref in refs:
        files.require(ref, ("ref_id", "ann_id", "image_id", "split", "sentences"), f"{path}: a ref")
    return list(refs)
