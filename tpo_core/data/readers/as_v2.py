"""AS-V2 (All-Seeing): conversations in the LLaVA layout whose answers name the boxes of objects and relations.

Format: https://github.com/OpenGVLab/all-seeing (all-seeing-v2). Answers hold `<ref>bus</ref><box>[[290, 201, 835, 850]]
</box>`, of one or more boxes, and `<pred>on</pred><box>[[subject]]</box><box>[[object]]</box>`, in whole numbers of
which 999 is the right or lower edge. They become targets in pixels, in one group a tag.

- Some files refer to the image PADDED TO A SQUARE, half of the pad (rounded down) before it: option `boxes`.
- The layout need not tell the size of an image: `width` and `height` of a row count where they are there, else the file
  that the option `sizes` names. A conversation without them keeps its text and has no targets (flag
  "boxes_without_size"); with `task=box` it is the reject "no_image_size".
- `task=chat`: a conversation, its text as it is. A box without width or height is left out of its targets (flag
  "empty_box_left_out"). `task=box`: one sample for each `<ref>` in an answer; such a box is a reject.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from tpo_core.data.readers import llava
from tpo_core.data.readers._choices import stream_rows
from tpo_core.data.readers._images import expression_of
from tpo_core.data.readers.base import DATASET, LabelFile, Option, Reader, Reject, at, mapped, row_id
from tpo_core.data.readers.files import below, fill, stream_items
from tpo_core.data.sample import Box, Media, Sample, Target, Turn

NAME = "as_v2"
SCALE = 999
_TAG = re.compile(r"<(ref|pred)>(.*?)</\1>((?:\s*<box>.*?</box>)+)", re.DOTALL)
_BOXES = re.compile(r"<box>(.*?)</box>", re.DOTALL)


@dataclass(frozen=True)
class Named:
    """What a tag names: native boxes, each with the end of a relation that it is, None for an object."""

    words: str
    boxes: tuple[tuple[str | None, tuple[float, ...]], ...]

    @property
    def is_object(self) -> bool:
        return all(end is None for end, _ in self.boxes)


def named(text: str) -> list[Named]:
    """The tags of an answer, in order. ValueError for boxes that are not lists of four numbers, and for a relation that
    has not two lists of them."""
    found = []
    for tag, words, content in _TAG.findall(text):
        lists = [json.loads(boxes) for boxes in _BOXES.findall(content)]
        ends = ("subject", "object") if tag == "pred" else (None,) * len(lists)
        each = [(end, tuple(map(float, box))) for end, boxes in zip(ends, lists, strict=True) for box in boxes]
        if any(len(box) != 4 for _, box in each):
            raise ValueError(f"a box of {words!r} has not four numbers")
        found.append(Named(words, tuple(each)))
    return found


def to_pixels(box: tuple[float, ...], width: int, height: int, *, padded: bool) -> Box:
    """A native box in pixels of the image; `padded`: it refers to the image made square."""
    side = max(width, height)
    across, down = (side, side) if padded else (width, height)
    left, top = ((side - width) // 2, (side - height) // 2) if padded else (0, 0)
    x1, y1, x2, y2 = (value / SCALE for value in box)
    return x1 * across - left, y1 * down - top, x2 * across - left, y2 * down - top


def _targets(item: Named, group: int, media: Media, padded: bool) -> list[Target]:
    """One target a box: all boxes belong to the tag. `object_id` is the end of a relation."""
    rule = "all_of" if len(item.boxes) > 1 else "single"
    size = (media.width or 0, media.height or 0)
    return [
        Target("box", item.words, end, group=group, set_rule=rule, box=to_pixels(box, *size, padded=padded))
        for end, box in item.boxes
    ]


def _answers(turns: tuple[Turn, ...]) -> list[list[Named]]:
    """What each turn names; user turns give no targets, since a box that is asked about is not an answer."""
    return [named(turn.text) if turn.role == "assistant" else [] for turn in turns]


def _chat(
    labels: LabelFile, native_id: str, row: int, media: tuple[Media, ...], turns: tuple[Turn, ...], padded: bool
) -> Sample:
    targets: list[Target] = []
    talk, flags, group = [], set(), 0
    for turn, items in zip(turns, _answers(turns), strict=True):
        first = len(targets)
        for item in items:
            if not (media and media[0].width and media[0].height):
                flags.add("boxes_without_size")
                continue
            boxes = [(target, target.box) for target in _targets(item, group, media[0], padded) if target.box]
            kept = [target for target, box in boxes if box[0] < box[2] and box[1] < box[3]]
            flags.update(["empty_box_left_out"] if len(kept) < len(boxes) else [])
            targets, group = targets + kept, group + 1
        talk.append(replace(turn, target_refs=tuple(range(first, len(targets)))))
    return labels.sample("chat", native_id, row, media, talk, targets, flags=sorted(flags))


def _objects(
    labels: LabelFile, native_id: str, row: int, media: tuple[Media, ...], turns: tuple[Turn, ...], padded: bool
) -> Iterator[Sample | Reject]:
    objects = [item for items in _answers(turns) for item in items if item.is_object]
    if objects and not (media and media[0].width and media[0].height):
        yield Reject(at(labels.source, row), "no_image_size", f"{native_id}: its boxes cannot be put into pixels")
        return
    for place, item in enumerate(objects):
        words, targets = expression_of(item.words), _targets(item, 0, media[0], padded)
        raw = {"boxes": [box for _, box in item.boxes]}
        yield labels.grounded("phrase_box", words, f"{native_id}-{place}", row, media[0], targets, raw=raw)


def _sizes(root: str, path: str) -> dict[str, tuple[Any, Any]]:
    """Width and height by the name of an image, from a file with COCO's `images`; none without a file."""
    rows = stream_items(root, path, NAME, "images") if path else ()
    return {row["file_name"]: (row["width"], row["height"]) for row in rows}


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    file = fill(options["file"], split=split)
    source = below(options["labels"], file)
    labels, sizes = LabelFile(options["dataset"], split, source, NAME), _sizes(root, options["sizes"])
    padded = options["boxes"] == "padded"

    def build(row: dict[str, Any], number: int) -> Iterator[Sample | Reject]:
        media = llava.media_of(row, split, options)
        width, height = row.get("width"), row.get("height")
        if media and width is None:
            width, height = sizes.get(PurePosixPath(media[0].uri).name, (None, None))
        if media and width is not None and height is not None:
            media = (replace(media[0], width=int(width), height=int(height)), *media[1:])
        turns, native_id = llava.turns_of(row, media), row_id(file, number)
        if options["task"] == "chat":
            yield _chat(labels, native_id, number, media, turns, padded)
        else:
            yield from _objects(labels, native_id, number, media, turns, padded)

    yield from mapped(stream_rows(root, source, NAME), source, build)


READER = Reader(
    name=NAME,
    summary="AS-V2: conversations about images with the boxes of what they name",
    layout="{split}.json, and the images at the paths that it names",
    default_split="train",
    parse=_parse,
    options={
        **llava.OPTIONS,
        "dataset": Option(NAME, DATASET),
        "task": Option("chat", "chat: a conversation; box: a sample for each object that it names", ("chat", "box")),
        "boxes": Option("image", "what the numbers refer to: image, or padded to a square", ("image", "padded")),
        "sizes": Option("", "JSON file below the root with COCO's `images` (file_name, width, height)"),
    },
)
