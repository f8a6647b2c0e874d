"""Ref-YouTube-VOS: the masks of one object that an expression names, on every fifth frame of a video.

Format: https://youtube-vos.org/dataset/rvos/. meta_expressions.json names the frames of a video, and per expression an
`obj_id` (a string), which is the palette INDEX of the object in `Annotations/<video>/<frame>.png`. `valid` and `test`
have no `obj_id`: samples without targets, flagged "unlabelled"; where a file of theirs has `obj_id`, the masks are read
as those of train. The file of `valid` lists the videos of `test` as well: by default they are left out. Frames are put
in order. The text is kept as it is; an expression whose video lacks the mask of a frame is rejected as "no_labels".
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

from tpo_core.data.readers._masks import Expression, Masks, expressions_of, read_masks, stills
from tpo_core.data.readers._tracks import guarded
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, at
from tpo_core.data.readers.files import below, fill, stream_pairs
from tpo_core.data.sample import UNLABELLED, Sample, Target

NAME = "ref_youtube_vos"


def _samples(
    labels: LabelFile, expression: Expression, read: Callable[[str, Sequence[str]], Masks], options: Mapping[str, str]
) -> Iterator[Sample | Reject]:
    text, object_id = expression.content["exp"].strip(), expression.content.get("obj_id")
    frames = tuple(sorted(expression.frames))
    names = {"name": expression.video, "split": labels.split}
    masks = Masks() if object_id is None else read(below(options["labels"], fill(options["masks"], **names)), frames)
    media = stills(fill(options["frames"], **names), frames, masks.size)
    if object_id is None:
        yield labels.grounded("mask", text, expression.name, expression.row, media, (), flags=(UNLABELLED,))
    elif missing := masks.missing(frames):
        detail = f"{expression.name}: {len(missing)} of {len(frames)} frames have no mask, {missing[0]} for one"
        yield Reject(at(labels.source, expression.row), "no_labels", detail)
    else:
        target = Target("track", label=text, object_id=object_id, track=masks.track(int(object_id)))
        yield labels.grounded("mask", text, expression.name, expression.row, media, (target,))


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    def source_of(part: str) -> str:
        return below(options["labels"], "meta_expressions", part, "meta_expressions.json")

    labels = LabelFile(NAME, split, source_of(split), NAME)
    videos = stream_pairs(root, labels.source, NAME, "videos")
    left_out: set[str] = set()
    if split == "valid" and options["valid"] == "official":
        left_out = {video for video, _ in stream_pairs(root, source_of("test"), NAME, "videos")}
    read = functools.lru_cache(maxsize=1)(functools.partial(read_masks, root))  # expressions of a video are together
    for each in expressions_of(videos):
        if each.video not in left_out:
            yield from guarded(_samples(labels, each, read, options), labels.source, each.row, each.name)


READER = Reader(
    name=NAME,
    summary="Ref-YouTube-VOS: masks of an expression, from palette PNGs",
    layout="meta_expressions/{split}/meta_expressions.json, {split}/{JPEGImages,Annotations}/<video>/<frame>.{jpg,png}",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "frames": Option("{split}/JPEGImages/{name}", "folder of a video's frames below the root"),
        "masks": Option("{split}/Annotations/{name}", "folder of a video's masks below the label files"),
        "valid": Option(
            "official", "videos of split valid; official: those that test does not list", ("official", "listed")
        ),
    },
)
