"""RefCOCO, RefCOCO+ and RefCOCOg as MDETR distributes them: a COCO file in which every sentence is an image of its own.

Format: https://github.com/ashkamath/mdetr (finetune_<dataset>_<split>.json). An entry of `images` holds the sentence
(`caption`) and, as `original_id`, the COCO id of the picture; it has exactly one entry in `annotations`, whose box is
(left, top, width, height), 0-based. The ids are not the sentence ids of the `refer` layout: native ids begin with
"mdetr-", so that both forms can be read side by side. Images are streamed; of annotations the boxes are held.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._images import EXCLUDE, excluded_ids, expression_of, from_xywh
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, at, mapped
from tpo_core.data.readers.files import below, fill, stream_items
from tpo_core.data.sample import Media, Sample, Target

NAME = "refcoco_mdetr"


def _boxes(root: str, source: str) -> dict[Any, list[Any]]:
    """The native boxes by the id of their image; what has another shape belongs to no image."""
    boxes = defaultdict(list)
    for item in stream_items(root, source, NAME, "annotations"):
        if isinstance(item, dict) and isinstance(item.get("image_id"), (int, str)):
            boxes[item["image_id"]].append(item.get("bbox"))
    return boxes


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    dataset = options["dataset"]
    source = below(options["labels"], fill(options["file"], dataset=dataset, split=split))
    labels, boxes = LabelFile(dataset, split, source, NAME), _boxes(root, source)
    held_out = excluded_ids(root, options["exclude"], NAME)

    def build(row: dict[str, Any], number: int) -> Iterator[Sample | Reject]:
        if row.get("original_id") in held_out:
            return
        found = boxes.get(row["id"], [])
        if not found:
            yield Reject(at(source, number), "no_labels", f"image {row['id']} has no annotation")
            return
        if len(found) > 1:
            raise ValueError(f"image {row['id']} has {len(found)} annotations; a sentence has one")
        expression = expression_of(row["caption"])
        uri = fill(options["image"], name=row["file_name"], split=split)
        media = Media(uri, "image", width=int(row["width"]), height=int(row["height"]))
        target = Target("box", label=expression, box=from_xywh(found[0]))
        raw = {"bbox_xywh": found[0], "original_id": row.get("original_id"), "dataset_name": row.get("dataset_name")}
        yield labels.grounded("box", expression, f"mdetr-{row['id']}", number, media, (target,), raw=raw)

    yield from mapped(stream_items(root, source, NAME, "images"), source, build)


READER = Reader(
    name=NAME,
    summary="RefCOCO, RefCOCO+, RefCOCOg in the form of MDETR: a box of a phrase in an image",
    layout="finetune_<dataset>_{split}.json, images/train2014/COCO_train2014_*.jpg",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "dataset": Option("refcoco", "name of the dataset in the file's name: refcoco, refcoco+, refcocog"),
        "file": Option("finetune_{dataset}_{split}.json", "name of the annotation file"),
        "image": Option("images/train2014/{name}", "path of an image below the root"),
        "exclude": EXCLUDE,
    },
)
