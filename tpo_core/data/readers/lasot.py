"""LaSOT: one object's box in every frame of a sequence; its first box is given in the question.

Format: http://vision.cs.stonybrook.edu/~lasot/. `<class>/<class>-<n>/groundtruth.txt` holds (left, top, width, height)
with the top left pixel at 1: 1 is taken off (provenance origin 1; a writer of predictions adds it again). Absence comes
from `full_occlusion.txt` and `out_of_view.txt` (one csv line of 0 and 1) only: most absent frames carry a box, which is
kept. A few visible frames have a box without size: visible without box, flagged "box_missing". `nlp.txt` names the
object: the label. A sequence may have more frames than boxes: the first ones are taken.
The list of a split is that of the toolkit; the split "all" takes every sequence that there is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tpo_core.data.readers._tracks import followed, guarded, names_in, numbers_of, read_boxes
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, at
from tpo_core.data.readers.files import below, fill, read_lines, require
from tpo_core.data.sample import Box, Media, Sample, TrackEntry
from tpo_core.storage.uri import exists, join

NAME = "lasot"
ORIGIN = 1
ALL = "all"
FLAG_FILES = ("full_occlusion.txt", "out_of_view.txt")


def _sequences(root: str, split: str, options: Mapping[str, str]) -> Iterator[str]:
    if split != ALL:
        source = below(options["labels"], fill(options["list"], split=split))
        yield from (line.strip() for line in read_lines(root, source, NAME) if line.strip())
        return
    require(root, options["labels"], NAME)
    for folder in names_in(root, options["labels"]):
        for name in names_in(root, below(options["labels"], folder)):
            if exists(join(root, below(options["labels"], folder, name, "groundtruth.txt"))):
                yield name


def _absent(root: str, folder: str, n_boxes: int) -> list[bool]:
    absent = [False] * n_boxes
    for name in FLAG_FILES:
        flags = numbers_of(",".join(line for line in read_lines(root, below(folder, name), NAME) if line.strip()))
        if len(flags) != n_boxes:
            raise ValueError(f"{n_boxes} boxes but {len(flags)} values in {name}")
        absent = [one or flag != 0 for one, flag in zip(absent, flags, strict=True)]
    return absent


def _label(root: str, folder: str) -> str | None:
    path = below(folder, "nlp.txt")
    return " ".join(read_lines(root, path, NAME)).strip() or None if exists(join(root, path)) else None


def _samples(root: str, labels: LabelFile, sequence: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    folder = labels.source.rpartition("/")[0]
    needed = [name for name in ("groundtruth.txt", *FLAG_FILES) if not exists(join(root, below(folder, name)))]
    if needed:
        yield Reject(at(labels.source, 0), "no_labels", f"sequence {sequence} has no {', '.join(needed)}")
        return
    boxes: list[Box | None] = read_boxes(root, labels.source, NAME, ORIGIN)
    absent = _absent(root, folder, len(boxes))
    entries = [
        TrackEntry(frame, not gone, box=box) for frame, (box, gone) in enumerate(zip(boxes, absent, strict=True))
    ]
    bare = [entry.frame for entry in entries if entry.visible and entry.box is None]
    path = fill(options["frames"], **{"class": sequence.rpartition("-")[0]}, name=sequence)
    names = tuple(f"{k:08d}.jpg" for k in range(1, len(boxes) + 1))
    media = Media(path, "frames", n_frames=len(boxes), frame_names=names)
    yield followed(
        labels, sequence, 0, media, entries, label=_label(root, folder), origin=ORIGIN,
        raw={"frames_without_size": bare} if bare else None, flags=("box_missing",) if bare else (),
    )  # fmt: skip


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    for sequence in _sequences(root, split, options):
        source = below(options["labels"], sequence.rpartition("-")[0], sequence, "groundtruth.txt")
        labels = LabelFile(NAME, split, source, NAME)
        yield from guarded(_samples(root, labels, sequence, options), source, 0, sequence)


READER = Reader(
    name=NAME,
    summary="LaSOT: the track of an object whose first box is given",
    layout="{split}ing_set.txt, <class>/<seq>/{groundtruth,full_occlusion,out_of_view,nlp}.txt, .../img/%08d.jpg",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "list": Option("{split}ing_set.txt", "list of a split's sequences, one a line, below the label files"),
        "frames": Option("{class}/{name}/img", "folder of a sequence's frames below the root"),
    },
)
