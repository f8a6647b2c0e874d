"""RefCOCO, RefCOCO+ and RefCOCOg in the `refer` layout: one sample a sentence, since evaluation is per sentence.

Format: https://github.com/lichengunc/refer. `refs(<split_by>).p` is a Python 2 pickle: it is opened by an unpickler
that builds containers and scalars only. Images are named by `instances.json` (the names in refs carry an extra `_<n>`).
Boxes are COCO's (left, top, width, height), 0-based; polygons give the mask. Images of val and test of one of the three
sets are in train of another: list their ids with the option `exclude` when sets are mixed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._images import EXCLUDE, excluded_ids, expression_of, from_xywh
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill, read_json_file, read_pickle_list
from tpo_core.data.rle import from_coco
from tpo_core.data.sample import Media, Sample, Target
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


def _refs(root: str, source: str, split: str) -> list[Any]:
    refs = read_pickle_list(root, source, NAME)
    splits = sorted({str(ref.get("split")) for ref in refs if isinstance(ref, dict)})
    if refs and split not in splits:
        raise TpoError(f"{NAME}: {source} has no split {split!r}; it has {', '.join(splits)}")
    return refs


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    dataset, name = options["dataset"], f"refs({options['split_by']}).p"
    folder = below(options["labels"], dataset)
    if not exists(join(root, folder, name)) and exists(join(root, below(options["labels"], name))):
        folder = options["labels"]  # the root is the folder of the dataset itself
    source = below(folder, name)
    labels, refs = LabelFile(dataset, split, source, NAME), _refs(root, source, split)
    images, annotations = _instances(root, below(folder, "instances.json"))
    held_out = excluded_ids(root, options["exclude"], NAME)

    def build(ref: dict[str, Any], row: int) -> Iterator[Sample]:
        if ref["split"] != split:
            return
        annotation = annotations[ref["ann_id"]]
        if annotation["image_id"] in held_out:
            return
        image = images[annotation["image_id"]]
        width, height = int(image["width"]), int(image["height"])
        media = Media(fill(options["image"], name=image["file_name"], split=split), "image", width=width, height=height)
        shape = annotation.get("segmentation") if options["masks"] == "yes" else None
        mask = from_coco(shape, height, width) if shape else None
        raw = {"bbox_xywh": annotation["bbox"], "ref_id": ref["ref_id"], "ann_id": ref["ann_id"]}
        for sentence in ref["sentences"]:
            expression = expression_of(sentence["sent"])
            box = from_xywh(annotation["bbox"])
            target = Target("box", label=expression, object_id=str(annotation["id"]), box=box, rle=mask)
            yield labels.grounded("box", expression, str(sentence["sent_id"]), row, media, (target,), raw=raw)

    yield from mapped(refs, source, build)


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
        "exclude": EXCLUDE,
    },
)
