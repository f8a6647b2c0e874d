"""VideoChat2-IT: a JSON list of media with question-answer pairs.

Format: https://github.com/OpenGVLab/Ask-Anything (video_chat2). The instruction `i` of the first pair is the system
text, once. A pair with an empty `q` has no user turn (captions). `start` and `end` select a part of the video, in
seconds. Text is kept as it is. The files of the collection are all called train.json: a source takes one of them, which
the option `file` names by its path, so that their ids differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers.base import DATASET, LABELS, LabelFile, Option, Reader, Reject, mapped, row_id
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
    file = fill(options["file"], split=split)
    source = below(options["labels"], file)
    labels = LabelFile(options["dataset"], split, source, NAME)

    def build(row: dict[str, Any], number: int) -> Iterator[Sample]:
        media = _media(row, split, options)
        turns = _turns(row["QA"], len(media))
        task = "chat" if any(turn.role == "user" for turn in turns) else "caption"
        yield labels.sample(task, row_id(file, number), number, media, turns)

    yield from mapped(stream_items(root, source, NAME), source, build)


READER = Reader(
    name=NAME,
    summary="VideoChat2-IT: conversations and captions about videos and images",
    layout="{split}.json, and the media at the paths that it names",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "file": Option("{split}.json", "path of the annotation file, such as video/caption/webvid/train.json"),
        "dataset": Option(NAME, DATASET),
        "video": Option("{name}", "path of a video below the root; {name} is the path in the annotation"),
        "image": Option("{name}", "path of an image below the root; {name} is the path in the annotation"),
    },
)
