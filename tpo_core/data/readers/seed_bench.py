"""SEED-Bench, versions 1 and 2: multiple-choice questions on images, videos and sets of images.

Format: https://github.com/AILab-CVC/SEED-Bench (DATASET.md): records under `questions`, four choices, a letter.

- Version 1, videos: `segment` is in SECONDS for question type 11 (EPIC-Kitchens), in FRAMES at 15 fps for type 12
  (Breakfast), and absent for type 10 (Something-Something v2). The same numbers name other dimensions in version 2.
- Version 2: `data_id` may be a list. Frames of one folder ("Video") are one media of kind frames, other lists stay
  several images, in order; `<img>` in a question marks their places and is kept.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._choices import choice, letter_index
from tpo_core.data.readers._images import only_split
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill, stream_items
from tpo_core.data.sample import Clip, Media, Sample

NAME = "seed_bench"
BREAKFAST_FPS = 15.0
VIDEOS = {10: "something", 11: "epic", 12: "breakfast"}  # question type of version 1: option with the path


def _video(row: dict[str, Any], options: Mapping[str, str]) -> Media:
    kind = VIDEOS[row["question_type_id"]]
    per_second = BREAKFAST_FPS if kind == "breakfast" else 1.0
    clip = None
    if kind != "something":
        start, end = row["segment"]
        clip = Clip(float(start) / per_second, float(end) / per_second)
    return Media(fill(options[kind], name=row["data_id"]), "video", clip_s=clip)


def _media(row: dict[str, Any], options: Mapping[str, str]) -> tuple[Media, ...]:
    if row["data_type"] == "video":
        return (_video(row, options),)
    root = "image" if row["data_type"] == "image" else "cc3m" if row.get("data_source") == "cc3m" else "image_v2"
    names = row["data_id"] if isinstance(row["data_id"], list) else [row["data_id"]]
    paths = [fill(options[root], name=name) for name in names]
    folders = {posixpath.dirname(path) for path in paths}
    if row["data_type"] == "Video" and len(folders) == 1:
        return (Media(folders.pop(), "frames", frame_names=tuple(posixpath.basename(path) for path in paths)),)
    return tuple(Media(path, "image") for path in paths)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    only_split(NAME, split, "test")
    source = below(options["labels"], options["file"])
    labels = LabelFile(NAME, split, source, NAME)

    def build(row: dict[str, Any], number: int) -> Iterator[Sample | Reject]:
        choices = tuple(str(row[f"choice_{letter}"]) for letter in "abcd")
        raw = {"question_type_id": row["question_type_id"], "data_type": row["data_type"]}
        if "segment" in row:
            raw["segment"] = row["segment"]
        media, answer = _media(row, options), letter_index(row["answer"])
        yield choice(labels, str(row["question_id"]), number, media, row["question"], choices, answer, raw=raw)

    yield from mapped(stream_items(root, source, NAME, "questions"), source, build)


READER = Reader(
    name=NAME,
    summary="SEED-Bench 1 and 2: multiple-choice questions on images and videos",
    layout="SEED-Bench.json, and the images and videos at the paths of the options",
    default_split="test",
    parse=_parse,
    options={
        "labels": LABELS,
        "file": Option("SEED-Bench.json", "annotation file; of version 2 SEED-Bench_v2_level1_2_3.json"),
        "image": Option("SEED-Bench-image/{name}", "path of an image of version 1"),
        "something": Option("SSV2/videos/{name}", "path of a Something-Something v2 video (type 10)"),
        "epic": Option("EPIC-KITCHENS/{name}", "path of an EPIC-Kitchens video (type 11)"),
        "breakfast": Option("BreakfastII_15fps_qvga_sync/{name}", "path of a Breakfast video (type 12)"),
        "cc3m": Option("cc3m-image/{name}", "path of a CC3M image of version 2"),
        "image_v2": Option("SEED-Bench-2-image/{name}", "path of any other image of version 2"),
    },
)
