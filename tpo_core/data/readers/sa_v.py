"""SA-V: the masks of an object on every fourth frame of a 24-fps video; its first box is given in the question.

Format: https://ai.meta.com/datasets/segment-anything-video/. Train: one `<id>_manual.json` and, for most videos, one
`<id>_auto.json` beside `<id>.mp4`, in folders of chunks or in one folder. `masklet[k][object]` is a mask on frame 4k of
the video; absent is a mask without pixels. Numbers may be floats. Preprocessing compares the decoded frames with
`video_frame_count`, since a player that drops or repeats frames would move every label.
Val and test: `sav_<split>.txt` lists the videos; `Annotations_6fps/<id>/<object>/%05d.png` is named after the frame of
`JPEGImages_24fps` and holds one object, non-zero, since objects may overlap. A frame without file is not annotated.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tpo_core.data import rle
from tpo_core.data.readers._masks import png_stems, read_masks, track_of
from tpo_core.data.readers._tracks import followed, guarded, names_in
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, at
from tpo_core.data.readers.files import below, fill, read_lines, require
from tpo_core.data.sample import Media, Sample
from tpo_core.storage.uri import join, read_bytes

NAME = "sa_v"
FPS = 24.0
STRIDE = 4  # frames of the video from one annotated frame to the next
KINDS = ("manual", "auto")


def _video(
    root: str, labels: LabelFile, name: str, folder: str, options: Mapping[str, str]
) -> Iterator[Sample | Reject]:
    content: dict[str, Any] = json.loads(read_bytes(join(root, labels.source)))
    video, kind = name.removesuffix(".json").rsplit("_", 1)
    width, height, n_frames = (int(content[f"video_{key}"]) for key in ("width", "height", "frame_count"))
    path = below(fill(options["video"], name=video, folder=folder))  # the folder may be the root
    media = Media(path, "video", width=width, height=height, n_frames=n_frames)
    for row, masklet in enumerate(content["masklet_id"]):
        masks = {k * STRIDE: rle.from_coco(shapes[row], height, width) for k, shapes in enumerate(content["masklet"])}
        object_id = str(int(masklet))
        yield followed(
            labels, f"{video}-{kind}-{object_id}", row, media, track_of(masks, masks), object_id=object_id
        )  # fmt: skip


def _train(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    top = below(options["labels"], fill(options["folder"], split=split))
    require(root, top, NAME)
    kinds = KINDS if options["masks"] == "both" else (options["masks"],)
    endings = tuple(f"_{kind}.json" for kind in kinds)
    chunks = [name for name in names_in(root, top) if "." not in name]
    for folder in [top, *(below(top, chunk) for chunk in chunks)]:
        for name in (name for name in names_in(root, folder) if name.endswith(endings)):
            labels = LabelFile(NAME, split, below(folder, name), NAME)
            yield from guarded(_video(root, labels, name, folder, options), labels.source, 0, name)


def _folder(root: str, labels: LabelFile, row: int, video: str, top: str) -> Iterator[Sample | Reject]:
    masks_at = below(top, "Annotations_6fps", video)
    objects = names_in(root, masks_at)
    if not objects:
        yield Reject(at(labels.source, row), "no_labels", f"video {video} is listed but has no masks")
    media = Media(below(top, "JPEGImages_24fps", video), "frames", fps=FPS)
    for object_id in objects:
        stems = png_stems(root, below(masks_at, object_id))
        masks = read_masks(root, below(masks_at, object_id), stems, binary=True)
        frames = [int(stem) for stem in stems]
        track = [replace(entry, frame=frames[entry.frame]) for entry in masks.track(1)]
        width, height = masks.size or (None, None)
        sized = replace(media, width=width, height=height)
        yield followed(labels, f"{video}-{object_id}", row, sized, track, object_id=object_id)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    if split == "train":
        yield from _train(root, split, options)
        return
    top = below(options["labels"], fill(options["folder"], split=split))
    labels = LabelFile(NAME, split, below(top, f"sav_{split}.txt"), NAME)
    for row, video in enumerate(line.strip() for line in read_lines(root, labels.source, NAME)):
        if video:
            yield from guarded(_folder(root, labels, row, video, top), labels.source, row, video)


READER = Reader(
    name=NAME,
    summary="SA-V: mask tracks of objects whose first box is given",
    layout="sav_train/<chunk>/<id>{_manual.json,.mp4}; sav_{split}/{sav_{split}.txt,Annotations_6fps,JPEGImages_24fps}",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "folder": Option("sav_{split}", "folder of a split, below the label files"),
        "masks": Option("manual", "train: masks drawn by hand, made automatically, or both", (*KINDS, "both")),
        "video": Option("{folder}/{name}.mp4", "train: path of a video below the root; {folder} is that of its masks"),
    },
)
