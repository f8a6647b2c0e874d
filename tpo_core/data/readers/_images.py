"""What readers of image datasets share: images to leave out, expressions, and boxes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tpo_core.data.readers.base import Option
from tpo_core.data.readers.files import read_lines
from tpo_core.data.sample import Box
from tpo_core.errors import TpoError

EXCLUDE = Option("", "file below the root of COCO image ids, one a line, that are not read (held-out images)")


def excluded_ids(root: str, path: str, reader: str) -> frozenset[int]:
    """The ids of the file that the option `exclude` names; none without a file. TpoError for a line that is no id."""
    ids = set()
    for number, line in enumerate(read_lines(root, path, reader) if path else ()):
        try:
            ids.update([int(line)] if line.strip() else [])
        except ValueError as error:
            raise TpoError(f"{reader}: line {number + 1} of {path} is no COCO image id: {line[:40]!r}") from error
    return frozenset(ids)


def only_split(reader: str, split: str, known: str) -> None:
    """TpoError for a split that a dataset of one file does not have: it would give the same samples again."""
    if split != known:
        raise TpoError(f"{reader}: there is no split {split!r}; the dataset has one, {known!r}")


def expression_of(text: str) -> str:
    """The text without white space around it. ValueError when nothing is left, since nothing could be asked for."""
    if not text.strip():
        raise ValueError("the expression is empty")
    return text.strip()


def from_xywh(bbox: Sequence[Any]) -> Box:
    """(left, top, right, bottom) of COCO's (left, top, width, height)."""
    left, top, width, height = (float(value) for value in bbox)
    return left, top, left + width, top + height
