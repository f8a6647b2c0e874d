"""DAVIS 2017: the masks of an object on every frame of a sequence; its first box is given in the question.

Format: https://davischallenge.org/davis2017/code.html. `ImageSets/2017/<split>.txt` lists the sequences; palette PNGs
hold the INDEX of the object. There are two sets of masks, by option: those of the semi-supervised task, and those of
the unsupervised one, which have more objects and mark what is not judged with 255: a target "void" that no turn refers
to. All frames are kept; which ones are scored is a rule of the metric. Sequences with a mask on the first frame only
(test-dev, test-challenge) become samples with a prompt and no track, flagged "unlabelled".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tpo_core.data.frames import natural_key
from tpo_core.data.readers._masks import Masks, png_stems, read_masks, stills
from tpo_core.data.readers._tracks import followed, guarded, names_in
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, at
from tpo_core.data.readers.files import below, fill, read_lines
from tpo_core.data.sample import Media, Sample

NAME = "davis17"
FOLDERS = {"semi-supervised": "Annotations", "unsupervised": "Annotations_unsupervised"}
RESOLUTION = Option("480p", "which size of frames and masks", ("480p", "Full-Resolution"))
FRAMES = Option("JPEGImages/{resolution}/{name}", "folder of a sequence's frames below the root")


def read_sequence(root: str, sequence: str, annotations: str, options: Mapping[str, str]) -> tuple[Media, Masks]:
    """The frames of a sequence and its masks, of the set "semi-supervised" or "unsupervised"; both may be none."""
    folder = below(options["labels"], FOLDERS[annotations], options["resolution"], sequence)
    path = fill(options["frames"], name=sequence, resolution=options["resolution"])
    frames = png_stems(root, folder)
    if len(frames) == 1:  # only listing the folder tells how many frames there are
        images = sorted((name for name in names_in(root, path) if name.endswith(".jpg")), key=natural_key)
        frames = [name.removesuffix(".jpg") for name in images] or frames
    masks = read_masks(root, folder, frames)
    return stills(path, frames, masks.size, fps=None, stride=None), masks


def sequences_of(root: str, split: str, reader: str, options: Mapping[str, str]) -> tuple[str, Iterator[str]]:
    """The list file of a split, and its lines."""
    source = below(options["labels"], f"ImageSets/2017/{split}.txt")
    return source, read_lines(root, source, reader)


def _samples(
    root: str, labels: LabelFile, row: int, sequence: str, options: Mapping[str, str]
) -> Iterator[Sample | Reject]:
    media, masks = read_sequence(root, sequence, options["annotations"], options)
    if not masks.positions:
        yield Reject(at(labels.source, row), "no_labels", f"sequence {sequence} is listed but has no masks")
    elif not masks.objects():
        yield Reject(at(labels.source, row), "track_never_visible", f"{sequence}: its masks show no object")
    for index in masks.objects():
        yield followed(
            labels, f"{sequence}-{index}", row, media, masks.track(index),
            object_id=str(index), withheld=len(masks.positions) < len(media.frame_names or ()), context=masks.void(),
        )  # fmt: skip


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source, lines = sequences_of(root, split, NAME, options)
    labels = LabelFile(NAME, split, source, NAME)
    for row, sequence in enumerate(line.strip() for line in lines):
        if sequence:
            yield from guarded(_samples(root, labels, row, sequence, options), source, row, sequence)


READER = Reader(
    name=NAME,
    summary="DAVIS 2017: mask tracks of objects whose first box is given, from palette PNGs",
    layout="ImageSets/2017/{split}.txt, Annotations/480p/<seq>/%05d.png, JPEGImages/480p/<seq>/%05d.jpg",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "annotations": Option("semi-supervised", "which set of masks", tuple(FOLDERS)),
        "resolution": RESOLUTION,
        "frames": FRAMES,
    },
)
