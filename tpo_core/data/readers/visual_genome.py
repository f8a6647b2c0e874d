"""Visual Genome: region descriptions, one sample a region.

Format: https://homes.cs.washington.edu/~ranjay/visualgenome/api.html. `region_descriptions.json` (some 700 MB,
streamed) lists the regions of each image as whole numbers x, y, width, height; `image_data.json` has the sizes, and in
its `url` the folder (VG_100K or VG_100K_2). A row of the provenance counts regions.

- Some boxes leave the image: they are clipped to it (flag "box_clipped"), the region is kept in raw. One that lies
  wholly outside is a reject.
- Whether coordinates start at 0 or 1 is not documented: option `origin`.
- About half of the images are COCO's: those of RefCOCO val and test are kept out with `exclude`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tpo_core.data.readers._images import EXCLUDE, excluded_ids, expression_of, from_xywh, only_split
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill, stream_items
from tpo_core.data.sample import Box, Media, Sample, Target

NAME = "visual_genome"


def _images(root: str, source: str, options: Mapping[str, str]) -> dict[Any, tuple[Media, int | None]]:
    """The media and the COCO id of each image, by its id. An entry of another shape is left out: its regions are
    rejected, since they name an image that is not there."""
    images = {}
    for row in stream_items(root, source, NAME):
        try:
            folder, name = row["url"].rsplit("/", 2)[1:]
            uri = fill(options["image"], folder=folder, name=name)
            media = Media(uri, "image", width=int(row["width"]), height=int(row["height"]))
            images[row["image_id"]] = (media, row.get("coco_id"))
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
    return images


def _regions(images: Iterable[Any]) -> Iterator[Any]:
    """The regions of all images; an image without a list of them comes itself, to be rejected."""
    for image in images:
        regions = image.get("regions") if isinstance(image, dict) else None
        yield from regions if isinstance(regions, list) else [image]


def _clipped(box: Box, width: int, height: int) -> Box:
    """The part of the box in the image; the box itself when there is none, which `validate` then names."""
    left, top, right, bottom = max(box[0], 0.0), max(box[1], 0.0), min(box[2], width), min(box[3], height)
    return (left, top, right, bottom) if left < right and top < bottom else box


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    only_split(NAME, split, "train")
    source, origin = below(options["labels"], "region_descriptions.json"), int(options["origin"])
    regions = _regions(stream_items(root, source, NAME))
    images = _images(root, below(options["labels"], "image_data.json"), options)
    held_out = excluded_ids(root, options["exclude"], NAME)
    labels = LabelFile(NAME, split, source, NAME)

    def build(row: dict[str, Any], number: int) -> Iterator[Sample]:
        media, coco_id = images[row["image_id"]]
        if coco_id in held_out:
            return
        expression = expression_of(row["phrase"])
        native = [row[key] for key in ("x", "y", "width", "height")]
        full = from_xywh((native[0] - origin, native[1] - origin, *native[2:]))
        box = _clipped(full, media.width or 0, media.height or 0)
        target, flags = Target("box", label=expression, box=box), ("box_clipped",) if box != full else ()
        raw = {"region_xywh": native, "image_id": row["image_id"], "coco_id": coco_id}
        native_id = str(row["region_id"])
        yield labels.grounded(
            "box", expression, native_id, number, media, (target,), raw=raw, flags=flags, origin=origin
        )

    yield from mapped(regions, source, build)


READER = Reader(
    name=NAME,
    summary="Visual Genome: the box of a region description in an image",
    layout="region_descriptions.json, image_data.json, VG_100K/<id>.jpg, VG_100K_2/<id>.jpg",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "image": Option("{folder}/{name}", "path of an image below the root; {folder} is VG_100K or VG_100K_2"),
        "origin": Option("0", "coordinate of the first pixel in the annotations", ("0", "1")),
        "exclude": EXCLUDE,
    },
)
