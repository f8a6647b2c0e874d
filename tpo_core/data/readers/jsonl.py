"""Canonical samples, one JSON object a line: the door for a user's own data, and what `inspect --jsonl` prints.

The fields are those of `tpo_core.data.sample.Sample`; fields with a default may be left out, mask counts are text. A
line {"rejected": {"uri", "reason", "detail"}} passes through as a reject.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers.base import LABELS, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill, read_lines
from tpo_core.data.sample import Sample, from_row, to_row, to_table

NAME = "jsonl"


def to_json(item: Sample | Reject) -> str:
    """One line of JSON, the inverse of what this reader takes."""
    if isinstance(item, Reject):
        return json.dumps({"rejected": vars(item)})
    return json.dumps(to_row(item), default=lambda counts: counts.decode("ascii"))


def _bytes_counts(value: Any) -> Any:
    if isinstance(value, list):
        return [_bytes_counts(item) for item in value]
    if isinstance(value, dict):
        return {
            key: item.encode("ascii") if key == "counts" and isinstance(item, str) else _bytes_counts(item)
            for key, item in value.items()
        }
    return value


def _items(line: str, _number: int) -> Iterator[Sample | Reject]:
    row = json.loads(line) if line.strip() else None
    if row is None:
        return
    if "rejected" in row:
        yield Reject(**row["rejected"])
        return
    sample = from_row(_bytes_counts(row))
    to_table([sample])  # raises where a value does not have the type of its field
    yield sample


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source = below(options["labels"], fill(options["file"], split=split))
    yield from mapped(read_lines(root, source, NAME), source, _items)


READER = Reader(
    name=NAME,
    summary="canonical samples as JSON lines: your own data",
    layout="{split}.jsonl, and the media at the paths that it names",
    default_split="train",
    parse=_parse,
    options={"labels": LABELS, "file": Option("{split}.jsonl", "name of the file")},
)
