"""TrackingNet: one object's box in every frame of a sequence; its first box is given in the question.

Format: https://github.com/SilvioGiancola/TrackingNet-devkit. `<chunk>/anno/<seq>.txt` holds (left, top, width, height)
floats, one frame a line; chunks are TRAIN_0 to TRAIN_11 and TEST, and the split "TRAIN" takes all of TRAIN that there
is. Frames are `<chunk>/frames/<seq>/<n>.jpg`, n from 0 without leading zeros, so they are put in numerical order. A box
without size means absent. TEST holds the first box only: a prompt and no track, flagged "unlabelled". Whether the first
pixel is 0 or 1 is not told: boxes are taken as they are; the other reading is an option (provenance origin 1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tpo_core.data.frames import natural_key
from tpo_core.data.readers._tracks import followed, guarded, names_in, read_boxes
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject
from tpo_core.data.readers.files import below, fill, require
from tpo_core.data.sample import Media, Sample, TrackEntry

NAME = "trackingnet"
ALL_TRAIN = "TRAIN"


def _chunks(root: str, split: str, options: Mapping[str, str]) -> list[str]:
    require(root, options["labels"], NAME)
    there = sorted(
        (name for name in names_in(root, options["labels"]) if re.fullmatch(r"TRAIN_\d+", name)), key=natural_key
    )
    return there if split == ALL_TRAIN and there else [split]


def _samples(
    root: str, labels: LabelFile, chunk: str, sequence: str, options: Mapping[str, str]
) -> Iterator[Sample | Reject]:
    origin = int(options["origin"])
    boxes = read_boxes(root, labels.source, NAME, origin)
    entries = [TrackEntry(frame, box is not None, box=box) for frame, box in enumerate(boxes)]
    path = fill(options["frames"], name=sequence, chunk=chunk)
    names = [f"{k}.jpg" for k in range(len(boxes))]
    if len(boxes) == 1:  # a test sequence: only listing the folder tells how many frames there are
        found = sorted((name for name in names_in(root, path) if name.endswith(".jpg")), key=natural_key)
        names = found or names
    media = Media(path, "frames", n_frames=len(names), frame_names=tuple(names))
    yield followed(labels, sequence, 0, media, entries, withheld=len(boxes) == 1, origin=origin)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    for chunk in _chunks(root, split, options):
        folder = below(options["labels"], chunk, "anno")
        require(root, folder, NAME)
        files = sorted((name for name in names_in(root, folder) if name.endswith(".txt")), key=natural_key)
        for name in files:
            sequence, labels = name.removesuffix(".txt"), LabelFile(NAME, split, below(folder, name), NAME)
            yield from guarded(_samples(root, labels, chunk, sequence, options), labels.source, 0, sequence)


READER = Reader(
    name=NAME,
    summary="TrackingNet: the track of an object whose first box is given",
    layout="TRAIN_{0..11}/anno/<seq>.txt, TRAIN_{0..11}/frames/<seq>/<n>.jpg; the same below TEST",
    default_split=ALL_TRAIN,
    parse=_parse,
    options={
        "labels": LABELS,
        "frames": Option("{chunk}/frames/{name}", "folder of a sequence's frames below the root"),
        "origin": Option("0", "coordinate of the top left pixel in the files", ("0", "1")),
    },
)
