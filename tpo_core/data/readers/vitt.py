"""ViTT: lines of JSON, each one annotator's section marks of a video, as a timed table of contents.

Format: https://github.com/google-research-datasets/Video-Timeline-Tags-ViTT. `ViTT-annotations.json` holds one object a
LINE despite its name, of all splits; `{split}_id.txt` (train, dev, test) lists the videos of a split. Times are
MILLISECONDS and section STARTS only, so that a target is a point; that a section ends where the next one starts is a
convention which is left to the user. An id that comes again is another annotator (number k gives native id `<id>-<k>`).
Ids are those of YouTube-8M, not of YouTube: name the videos by them, or give a table of the YouTube ids.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tpo_core.data.readers._moments import dense_caption, sentence
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill, read_json_file, read_lines
from tpo_core.data.sample import Media, Sample, Target

NAME = "vitt"
MS = 1000.0


def _section(mark: dict[str, Any]) -> Target:
    start = float(mark["timestamp"]) / MS
    return Target("point", label=sentence(mark["tag"]), span_s=(start, start))


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source = below(options["labels"], "ViTT-annotations.json")
    labels = LabelFile(NAME, split, source, NAME)
    wanted = {line.strip() for line in read_lines(root, below(options["labels"], f"{split}_id.txt"), NAME)}
    table = read_json_file(root, below(options["labels"], options["ids"]), NAME) if options["ids"] else None
    seen: Counter[str] = Counter()

    def build(line: str, row: int) -> Iterator[Sample | Reject]:
        if not line.strip():
            return
        record = json.loads(line)
        name = record["id"]
        if name not in wanted:
            return
        annotator, seen[name] = seen[name], seen[name] + 1
        media = Media(fill(options["video"], name=name if table is None else table[name], split=split), "video")
        raw = {"annotations": record["annotations"]}
        for item in dense_caption(labels, f"{name}-{annotator}", row, media, record["annotations"], _section, raw=raw):
            if isinstance(item, Sample):
                item = replace(item, targets=tuple(replace(target, annotator=annotator) for target in item.targets))
            yield item

    yield from mapped(read_lines(root, source, NAME), source, build)


READER = Reader(
    name=NAME,
    summary="ViTT: the sections of a video, with the second at which each starts",
    layout="ViTT-annotations.json, {split}_id.txt (train, dev, test), videos/<YouTube-8M id>.mp4",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "video": Option("videos/{name}.mp4", "path of a video below the root; {name} is its id"),
        "ids": Option("", "JSON object of YouTube ids by YouTube-8M id, beside the labels; empty: not translated"),
    },
)
