"""TimeIT and TimePro: timed answers as text, in the layout of VideoChat2-IT; QuerYD comes in this form too.

Format: https://huggingface.co/datasets/ShuhuaiRen/TimeIT. Text is kept as it is, also where "Transcribed speech: ..."
precedes a question. The times in an answer are prose; they are parsed in addition and become targets of the answer:
"happens in 35.0 - 79.0 seconds", "a - b seconds, text.  c - d seconds, text." (spans), "2.7 seconds, text." and "The
highlight timestamps are in the t1, t2 seconds" (points; saliency scores stay in the text). A time elsewhere in a
sentence ("bake for 30 seconds") is none. A span without length is what rounding left of a short one: it becomes a
point; a reversed one is rejected. Files of steps name CUT clips, `<id>_<start>_<end>.mp4`, and their times are of the
clip.

By option, a question whose answer holds exactly one span trains the temporal head: the times in its answer give way to
the head's token. The published files hold training data only: another split is refused unless the file is named by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from tpo_core.data.readers.base import DATASET, LABELS, LabelFile, Option, Reader, Reject, mapped, row_id
from tpo_core.data.readers.files import below, fill, stream_items
from tpo_core.data.sample import ANSWER_MARKER, Media, Sample, Target, Turn
from tpo_core.errors import TpoError

NAME = "timeit"
_NUMBER = r"\d+(?:\.\d+)?"
_TIMES = re.compile(  # at the start of an answer or of a sentence, or where the fixed phrase says so
    rf"""(?:^|\s\s|[.!?]["')]*\s+|happens\ in\ )
        (?P<times>(?P<start>{_NUMBER})\s*-\s*(?P<end>{_NUMBER})|(?P<point>{_NUMBER})(?=\ seconds?,))
        \ seconds?\b""",
    re.VERBOSE,
)
_HIGHLIGHTS = re.compile(rf"highlight timestamps are in the ((?:{_NUMBER},\s*)*{_NUMBER}) seconds?")
_QUOTED = re.compile(r"(?<!\w)(['\"])(.+)\1(?!\w)", re.DOTALL)  # an apostrophe within a word is no quote


def parsed(answer: str) -> list[Target]:
    """The spans and the points that an answer names, in its order."""
    highlights = _HIGHLIGHTS.search(answer)
    if highlights:
        return [Target("point", span_s=(float(t), float(t))) for t in highlights[1].split(",")]
    targets, places = [], list(_TIMES.finditer(answer))
    for found, until in zip(places, [*(place.start() for place in places[1:]), len(answer)], strict=False):
        start, end = float(found["start"] or found["point"]), float(found["end"] or found["point"])
        label = answer[found.end() : until].strip(" ,.\n") or None
        targets.append(Target("point" if start == end else "span", label=label, span_s=(start, end)))
    return targets


def _chat(pairs: list[dict[str, str]]) -> tuple[list[Turn], list[Target]]:
    turns: list[Turn] = []
    targets: list[Target] = []
    for pair in pairs:
        new = parsed(pair["a"])
        if pair["q"].strip():
            turns.append(Turn("user", pair["q"], () if turns else (0,)))
        refs = tuple(range(len(targets), len(targets) + len(new)))
        turns.append(Turn("assistant", pair["a"], () if turns else (0,), refs))
        targets += new
    return turns, targets


def _grounding(pair: dict[str, str]) -> tuple[list[Turn], list[Target], dict[str, str]] | None:
    """The pair as a task of the temporal head, with its answer as it was; None without exactly one span."""
    found, targets = _TIMES.search(pair["a"]), parsed(pair["a"])
    if found is None or [target.kind for target in targets] != ["span"] or not pair["q"].strip():
        return None
    begin, end = found.span("times")
    answer = pair["a"][:begin] + ANSWER_MARKER["temporal"] + pair["a"][end:]
    query = _QUOTED.search(pair["q"])
    label = (query[2] if query else pair["q"]).strip()
    turns = [Turn("user", pair["q"], (0,)), Turn("assistant", answer, (), (0,))]
    return turns, [Target("span", label=label, span_s=targets[0].span_s)], {"a": pair["a"]}


def _parse(name: str, root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    if "{split}" not in options["file"] and split != "train":
        raise TpoError(f"{name}: {options['file']} holds training data, not split {split!r}; set the option `file`")
    file = fill(options["file"], split=split)
    source = below(options["labels"], file)
    labels = LabelFile(options["dataset"], split, source, name)

    def build(row: dict[str, Any], number: int) -> Iterator[Sample]:
        media = Media(fill(options["video"], name=row["video"], split=split), "video")
        native_id = row_id(file, number)
        pairs = row["QA"]
        head = _grounding(pairs[0]) if options["task"] == "span" and len(pairs) == 1 else None
        if head is not None:
            turns, targets, raw = head
            yield labels.sample("span", native_id, number, (media,), turns, targets, raw=raw)
        else:
            turns, targets = _chat(pairs)
            yield labels.sample("chat", native_id, number, (media,), turns, targets)

    yield from mapped(stream_items(root, source, name), source, build)


def reader(name: str, summary: str, file: str, task: str) -> Reader:
    """A reader of one TimeIT file; `file` and `task` are the defaults of its options."""
    return Reader(
        name=name,
        summary=summary,
        layout=f"{file}, and the videos at the paths that it names",
        default_split="train",
        parse=partial(_parse, name),
        options={
            "labels": LABELS,
            "file": Option(file, "path of the annotation file"),
            "dataset": Option(name, DATASET),
            "video": Option("{name}", "path of a video below the root; {name} is the path in the annotation"),
            "task": Option(
                task, "chat: text as it is; span: an answer of exactly one span trains the head", ("chat", "span")
            ),
        },
    )


READER = reader(NAME, "TimeIT, TimePro: conversations whose answers hold times", "{split}.json", "chat")
