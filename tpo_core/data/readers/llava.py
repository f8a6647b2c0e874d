"""Conversations in the LLaVA layout: LLaVA, ShareGPT4V, ShareGPT-4o, LLaVA-Hound and many others.

Format: https://github.com/haotian-liu/LLaVA (docs/Finetune_Custom_Data.md): a JSON list, or JSON lines, of `image` or
`video` (a path or a list of paths; absent in a row of text only) and `conversations` of `from` and `value`.

- `<image>` and `<video>` may stand anywhere in the text, which is kept as it is. The k-th one is the k-th media, which
  its turn refers to; LLaVA-Video writes `<image>` for a video, too. Media without a placeholder go to the first turn.
  More placeholders than media: the row is rejected.
- `id` is not unique in the published files: a sample is known by file and row.
- A conversation may begin with an answer (a caption without a question).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._choices import stream_rows
from tpo_core.data.readers.base import DATASET, LABELS, LabelFile, Option, Reader, Reject, mapped, row_id
from tpo_core.data.readers.files import below, fill
from tpo_core.data.sample import Media, Sample, Turn

NAME = "llava"
ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
PLACEHOLDER = re.compile("<(image|video)>")


def media_of(row: dict[str, Any], split: str, options: Mapping[str, str]) -> tuple[Media, ...]:
    """The images and then the videos of a row."""
    media = []
    for kind in ("image", "video"):
        given = row.get(kind) or []
        paths = given if isinstance(given, list) else [given]
        for path in paths:
            if not isinstance(path, str):
                raise ValueError(f"{kind} is not a path: {path!r}")
            stored = "frames" if kind == "video" and options["videos"] == "frames" else kind
            media.append(Media(fill(options[kind], name=path, split=split), stored))
    return tuple(media)


def turns_of(row: dict[str, Any], media: tuple[Media, ...]) -> tuple[Turn, ...]:
    """The turns of a row, each with the media whose placeholders it holds."""
    waiting = {
        "image": [place for place, item in enumerate(media) if item.kind == "image"],
        "video": [place for place, item in enumerate(media) if item.kind != "image"],
    }
    talk: list[tuple[str, str, list[int]]] = []
    for part in row["conversations"]:
        refs = []
        for found in PLACEHOLDER.finditer(part["value"]):
            places = waiting[found[1]] or waiting["video" if found[1] == "image" else "image"]
            if not places:
                raise ValueError(f"more placeholders than the {len(media)} media")
            refs.append(places.pop(0))
        talk.append((ROLES[part["from"]], part["value"], refs))
    spoken = [refs for role, _, refs in talk if role != "system"]
    if not spoken:
        raise ValueError("the conversation has no turns")
    spoken[0].extend(waiting["image"] + waiting["video"])
    return tuple(Turn(role, text, tuple(refs)) for role, text, refs in talk)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    file = fill(options["file"], split=split)
    source = below(options["labels"], file)
    labels = LabelFile(options["dataset"], split, source, NAME)

    def build(row: dict[str, Any], number: int) -> Iterator[Sample]:
        media = media_of(row, split, options)
        turns = turns_of(row, media)
        task = "chat" if any(turn.role == "user" for turn in turns) else "caption"
        yield labels.sample(task, row_id(file, number), number, media, turns, raw={"id": row.get("id")})

    yield from mapped(stream_rows(root, source, NAME), source, build)


OPTIONS = {
    "labels": LABELS,
    "file": Option("{split}.json", "name of the annotation file: .json, .jsonl or .parquet"),
    "image": Option("{name}", "path of an image below the root; {name} is the path in the annotation"),
    "video": Option("{name}", "path of a video below the root; {name} is the path in the annotation"),
    "videos": Option("file", "file: a video is one file; frames: a folder of image files", ("file", "frames")),
}
READER = Reader(
    name=NAME,
    summary="LLaVA layout (LLaVA, ShareGPT4V, ShareGPT-4o, LLaVA-Hound): conversations about images and videos",
    layout="{split}.json, and the media at the paths that it names",
    default_split="train",
    parse=_parse,
    options={**OPTIONS, "dataset": Option(NAME, DATASET)},
)
