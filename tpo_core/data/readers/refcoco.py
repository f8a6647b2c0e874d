"""RefCOCO, RefCOCO+ and RefCOCOg in the `refer` layout: one sample a sentence.

Format: https://github.com/lichengunc/refer. `refs(<split_by>).p` is a Python 2 pickle: it is opened by an unpickler
that builds containers and scalars only. Images are named by `instances.json` (the names in refs carry an extra `_<n>`).
Boxes are COCO's (left, top, width, height), 0-based; polygons give the mask.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tpo_core.data.readers.base import LABELS, Option, Reader, Reject, at, grounded_turns, raw_json
from tpo_core.data.readers.files import below, fill, read_json_file, read_pickle_list
from tpo_core.data.rle import from_coco
from tpo_core.data.sample import Media, Provenance, Sample, Target
from tpo_core.errors import TpoError
from tpo_core.storage.uri import exists, join

NAME = "refcoco"


def _instances(root: str, path: str) -> tuple[dict[int, Any], dict[int, Any]]:
    """The images and the annotations of a COCO file, by id."""
    content = read_json_file(root, path, NAME)
    try:
        images, annotations = content["images"], content["annotations"]
        return {item["id"]: item for item in images}, {item["id"]: item for item in annotations}
    except (KeyError, TypeError) as error:
        raise TpoError(f"{NAME}: {path} lacks {error}; expected COCO instances with images and annotations") from error


def _target(annotation: dict[str, Any], image: dict[str, Any], with_mask: bool) -> Target:
    left, top, width, height = (float(value) for value in annotation["bbox"])
    shape = annotation.get("segmentation") if with_mask else None
    mask = from_coco(shape, image["height"], image["width"]) if shape else None
    box = (left, top, left + width, top + height)
    return Target("box", object_id=str(annotation["id"]), box=box, rle=mask)


def _samples(
    ref: dict[str, Any], annotation: dict[str, Any], image: dict[str, Any], split: str, options: Mapping[str, str]
) -> list[Sample]:
    """A sample for each sentence of a ref."""
    target = _target(annotation, image, options["masks"] == "yes")
    uri = fill(options["image"], name=image["file_name"], split=split)
    media = Media(uri, "image", width=int(image["width"]), height=int(image["height"]))
    raw = raw_json(bbox_xywh=annotation["bbox"], ref_id=ref["ref_id"], ann_id=ref["ann_id"])
    samples = []
    for sentence in ref["sentences"]:
        expression, native_id = sentence["sent"].strip(), str(sentence["sent_id"])
        sample_id = f"{options['dataset']}/{split}/{native_id}"
        sample = Sample(
            sample_id=sample_id,
            dataset=options["dataset"],
            split=split,
            task="box",
            media=(media,),
            turns=grounded_turns("box", expression, sample_id),
            targets=(replace(target, label=expression),),
            provenance=Provenance(source_file="", row=0, native_id=native_id, reader=NAME, raw=raw),
        )
        samples.append(sample)
    return samples


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    dataset, name = options["dataset"], f"refs({options['split_by']}).p"
    folder = below(options["labels"], dataset)
    if not exists(join(root, folder, name)) and exists(join(root, below(options["labels"], name))):
        folder = options["labels"]  # the root is the folder of the dataset itself
    source = below(folder, name)
    refs = read_pickle_list(root, source, NAME)
    splits = sorted({str(ref.get("split")) for ref in refs if isinstance(ref, dict)})
    if refs and split not in splits:
        raise TpoError(f"{NAME}: {source} has no split {split!r}; it has {', '.join(splits)}")
    images, annotations = _instances(root, below(folder, "instances.json"))
    for row, ref in enumerate(refs):
        try:
            if ref["split"] != split:
                continue
            annotation = annotations[ref["ann_id"]]
            samples = _samples(ref, annotation, images[annotation["image_id"]], split, options)
        except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
            yield Reject(at(source, row), "bad_record", f"{type(error).__name__}: {error}")
            continue
        for sample in samples:
            yield replace(sample, provenance=replace(sample.provenance, source_file=source, row=row))


READER = Reader(
    name=NAME,
    summary="RefCOCO, RefCOCO+, RefCOCOg: a box (and mask) of a phrase in an image",
    layout="<dataset>/refs(<split_by>).p, <dataset>/instances.json, images/train2014/COCO_train2014_*.jpg",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "dataset": Option("refcoco", "folder of the dataset: refcoco, refcoco+, refcocog"),
        "split_by": Option("unc", "author of the split: unc (refcoco, refcoco+), umd or google (refcocog)"),
        "image": Option("images/train2014/{name}", "path of an image below the root"),
        "masks": Option("yes", "whether to fill the polygons (about 1 ms a phrase)", ("yes", "no")),
    },
)
