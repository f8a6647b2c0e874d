"""VideoChat2-IT: a JSON list of media with question-answer pairs.

Format: https://github.com/OpenGVLab/Ask-Anything (video_chat2). The instruction `i` of the first pair is the system
text, once. A pair with an empty `q` has no user turn (captions). `start` and `end` select a part of the video, in
seconds. Text is kept as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from tpo_core.data.readers.base import LABELS, Option, Reader, Reject, at, below, fill, read_json_file
from tpo_core.data.sample import Clip, Media, Provenance, Sample, Turn
from tpo_core.errors import TpoError

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


def _sample(row: dict[str, Any], number: int, source: str, split: str, options: Mapping[str, str]) -> Sample:
    media = _media(row, split, options)
    turns = _turns(row["QA"], len(media))
    native_id = f"{PurePosixPath(source).stem}-{number}"
    return Sample(
        sample_id=f"{NAME}/{split}/{native_id}",
        dataset=NAME,
        split=split,
        task="chat" if any(turn.role == "user" for turn in turns) else "caption",
        media=media,
        turns=turns,
        provenance=Provenance(source_file=source, row=number, native_id=native_id, reader=NAME),
    )


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source = below(options["labels"], fill(options["file"], split=split))
    rows = read_json_file(root, source, NAME)
    if not isinstance(rows, list):
        raise TpoError(f"{NAME}: {source} holds no JSON list of records; is it the annotation file?")
    for number, row in enumerate(rows):
        try:
            item: Sample | Reject = _sample(row, number, source, split, options)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
            item = Reject(at(source, number), "bad_record", f"{type(error).__name__}: {error}")
        yield item


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
