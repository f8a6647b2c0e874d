"""VideoChat2-IT: a JSON list of media with question-answer pairs.

Format: https://github.com/OpenGVLab/Ask-Anything (video_chat2). The instruction `i` of the first pair is the system
text, once. A pair with an empty `q` has no user turn (captions). `start` and `end` select a part of the video, in
seconds. Text is kept as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill, stream_items
from tpo_core.data.sample import Clip, Media, Sample, Turn

NAME = "videochat2_it"


def _media(row: dict[str, Any], split: str, options: Mapping[str, str]) -> tuple[Media, ...]:
    kind = next((kind for kind in ("video", "image") if row.get(kind)), None)
    if kind is None:
        return ()
    path = row[kind]
    if not isinstance(path, str):
        raise ValueError(f"{kind} is not a path: {path!r}")
    start, end = row.get("start"), row.get("end")
    clip = None if start is None or end is None else Clip(float(start), float(end))
    return (Media(fill(options[kind], name=path, split=split), kind, clip_s=clip),)


def _turns(pairs: list[dict[str, str]], n_media: int) -> tuple[Turn, ...]:
    system = (pairs[0].get("i") or "").strip()
    talk = []
    for pair in pairs:
        if (pair.get("q") or "").strip():
            talk.append(("user", pair["q"]))
        talk.append(("assistant", pair["a"]))
    refs = tuple(range(n_media))
    turns = [Turn("system", system)] if system else []
    return (*turns, *(Turn(role, text, refs if i == 0 else ()) for i, (role, text) in enumerate(talk)))


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source = below(options["labels"], fill(options["file"], split=split))
    labels = LabelFile(NAME, split, source, NAME)

    def build(row: dict[str, Any], number: int) -> Iterator[Sample]:
        media = _media(row, split, options)
        turns = _turns(row["QA"], len(media))
        task = "chat" if any(turn.role == "user" for turn in turns) else "caption"
        yield labels.sample(task, f"{PurePosixPath(source).stem}-{number}", number, media, turns)

    yield from mapped(stream_items(root, source, NAME), source, build)


READER = Reader(
    name=NAME,
    summary="VideoChat2-IT: conversations and captions about videos and images",
    layout="{split}.json, and the media at the paths that it names",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "file": Option("{split}.json", "name of the annotation file"),
        "video": Option("{name}", "path of a video below the root; {name} is the path in the annotation"),
        "image": Option("{name}", "path of an image below the root; {name} is the path in the annotation"),
    },
)
