"""GOT-10k: one object's box in every frame of a sequence; its first box is given in the question.

Format: http://got-10k.aitestunion.com. Boxes are (left, top, width, height) with the top left pixel at 1: 1 is taken
off (provenance origin 1; a writer of predictions adds it again). Absence comes from `absence.label`, or a box of zero
or negative size; `cover.label` / 8 is the visible part. Sequences of the official test split hold their first box only:
they become samples with a prompt and no track, flagged "unlabelled".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from tpo_core.data.readers._tracks import followed, guarded, names_in, read_boxes
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, at
from tpo_core.data.readers.files import below, fill, read_lines, require
from tpo_core.data.sample import Media, Sample, TrackEntry
from tpo_core.storage.uri import exists, join

NAME = "got10k"
ORIGIN = 1
COVER_LEVELS = 8


def _sequences(root: str, folder: str) -> list[str]:
    if exists(join(root, folder, "list.txt")):
        return [line.strip() for line in read_lines(root, below(folder, "list.txt"), NAME) if line.strip()]
    require(root, folder, NAME)
    return [name for name in names_in(root, folder) if exists(join(root, folder, name, "groundtruth.txt"))]


def _numbers(root: str, path: str) -> list[int] | None:
    if not exists(join(root, path)):
        return None
    return [int(line) for line in read_lines(root, path, NAME) if line.strip()]


def _entries(root: str, folder: str) -> tuple[TrackEntry, ...]:
    boxes = read_boxes(root, below(folder, "groundtruth.txt"), NAME, ORIGIN)
    absent, cover = (_numbers(root, below(folder, f"{label}.label")) for label in ("absence", "cover"))
    for label, values in (("absence", absent), ("cover", cover)):
        if values is not None and len(values) != len(boxes) and len(boxes) > 1:
            raise ValueError(f"{len(boxes)} boxes but {len(values)} values in {label}.label")
    entries = []
    for frame, box in enumerate(boxes):
        visible = box is not None and not (absent and absent[frame])
        ratio = cover[frame] / COVER_LEVELS if cover else None
        entries.append(TrackEntry(frame, visible, ratio, box if visible else None))
    return tuple(entries)


def _meta(root: str, path: str) -> dict[str, str]:
    if not exists(join(root, path)):
        return {}
    pairs = (line.partition(":") for line in read_lines(root, path, NAME))
    return {key.strip(): value.strip() for key, mark, value in pairs if mark}


def _media(
    root: str, sequence: str, split: str, n_boxes: int, meta: dict[str, str], options: Mapping[str, str]
) -> Media:
    size = re.fullmatch(r"\((\d+),\s*(\d+)\)", meta.get("resolution", ""))
    width, height = (int(size[1]), int(size[2])) if size else (None, None)
    rate = re.fullmatch(r"([\d.]+)\s*Hz", meta.get("anno_fps", ""))
    fps = float(rate[1]) if rate else None
    n_frames = n_boxes if n_boxes > 1 else None
    if options["media"] == "mp4":
        path = fill(options["video"], name=sequence, split=split)
        return Media(path, "video", width=width, height=height, fps=fps, n_frames=n_frames)
    path = fill(options["frames"], name=sequence, split=split)
    names = tuple(f"{k:08d}.jpg" for k in range(1, n_boxes + 1))
    if n_frames is None:  # a test sequence: only listing the folder tells how many frames there are
        names = tuple(name for name in names_in(root, path) if name.endswith(".jpg"))
    return Media(path, "frames", width=width, height=height, fps=fps, n_frames=len(names), frame_names=names)


def _samples(root: str, labels: LabelFile, sequence: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    folder = labels.source.rpartition("/")[0]
    if not exists(join(root, labels.source)):
        yield Reject(at(labels.source, 0), "no_labels", f"sequence {sequence} is listed but has no groundtruth.txt")
        return
    entries = _entries(root, folder)
    meta = _meta(root, below(folder, "meta_info.ini"))
    media = _media(root, sequence, labels.split, len(entries), meta, options)
    yield followed(
        labels, sequence, 0, media, entries, label=meta.get("object_class"), withheld=len(entries) == 1, origin=ORIGIN
    )


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    folder = below(options["labels"], split)
    for sequence in _sequences(root, folder):
        labels = LabelFile(NAME, split, below(folder, sequence, "groundtruth.txt"), NAME)
        yield from guarded(_samples(root, labels, sequence, options), labels.source, 0, sequence)


READER = Reader(
    name=NAME,
    summary="GOT-10k: the track of an object whose first box is given",
    layout="{split}/list.txt, {split}/<seq>/{groundtruth.txt,absence.label,cover.label,meta_info.ini,%08d.jpg}",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "media": Option("frames", "frames: JPEG files in the sequence folder; mp4: a video file", ("frames", "mp4")),
        "frames": Option("{split}/{name}", "folder of a sequence's frames below the root"),
        "video": Option("{split}/{name}/{name}.mp4", "path of a sequence's video below the root"),
    },
)
