"""What readers of video sequences share: boxes of text files, the sample of a followed object, rejects by name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tpo_core.data.readers.base import MALFORMED, LabelFile, Reject, at, grounded_turns
from tpo_core.data.readers.files import read_lines
from tpo_core.data.sample import UNLABELLED, Box, Media, Sample, Target, TrackEntry
from tpo_core.storage.uri import join, list_names


def guarded(items: Iterable[Sample | Reject], source: str, row: int, name: str) -> Iterator[Sample | Reject]:
    """The items of one native record; a reject that names the record where reading it shows another shape.

    `items` is a generator, so that it fails in here. Nothing of a record that fails is kept.
    """
    try:
        found = list(items)
    except MALFORMED as error:
        reason = "text_not_utf8" if isinstance(error, UnicodeError) else "bad_record"
        found = [Reject(at(source, row), reason, f"{name}: {type(error).__name__}: {error}")]
    yield from found


def names_in(root: str, folder: str) -> list[str]:
    """Sorted names directly below a folder of the root. Hidden ones do not count: archives that were made on a Mac hold
    a "._00000.png" beside each 00000.png."""
    return [name for name in list_names(join(root, folder) if folder else root) if not name.startswith(".")]


def numbers_of(text: str) -> list[float]:
    """The finite numbers of a text that commas, blanks or tabs separate. ValueError for anything else."""
    values = [float(part) for part in re.split(r"[,\s]+", text.strip())]
    if not all(map(math.isfinite, values)):
        raise ValueError(f"{text!r} is not finite")
    return values


def box_of(left: float, top: float, width: float, height: float, origin: int) -> Box | None:
    """A native (left, top, width, height) as 0-based xyxy; None where its size is zero or negative."""
    x, y = left - origin, top - origin
    return (x, y, x + width, y + height) if width > 0 and height > 0 else None


def read_boxes(root: str, path: str, reader: str, origin: int) -> list[Box | None]:
    """One box a line, as `box_of` gives them. ValueError for a line that is not four finite numbers."""
    boxes: list[Box | None] = []
    lines = [line.strip() for line in read_lines(root, path, reader)]
    while lines and not lines[-1]:
        lines.pop()
    for number, line in enumerate(lines):  # a line is a frame, so an empty one between others is a fault
        if not line:
            raise ValueError(f"line {number + 1} of {path} is empty")
        left, top, width, height = numbers_of(line)
        boxes.append(box_of(left, top, width, height, origin))
    return boxes


def followed(
    labels: LabelFile,
    native_id: str,
    row: int,
    media: Media,
    entries: Sequence[TrackEntry],
    *,
    label: str | None = None,
    object_id: str = "0",
    withheld: bool = False,
    context: Sequence[Target] = (),
    raw: Mapping[str, Any] | None = None,
    flags: Sequence[str] = (),
    origin: int = 0,
) -> Sample | Reject:
    """A "track" sample: the question gives the object's first box, the answer is its track.

    `withheld`: the labels hold no more than that box, as in test splits: no track, flagged "unlabelled". An object
    whose first box is not on frame 0 is flagged "late_first_box". No turn refers to the `context` targets.
    """
    first = next((entry for entry in entries if entry.visible and entry.box is not None), None)
    if first is None:
        detail = f"{native_id}: the object is absent in all {len(entries)} frames"
        return Reject(at(labels.source, row), "track_never_visible", detail)
    tracks = () if withheld else (Target("track", label=label, object_id=object_id, track=tuple(entries)),)
    prompt = Target("box", label=label, object_id=object_id, box=first.box, frame=first.frame)
    turns = grounded_turns("track", "", labels.sample_id(native_id), answers=len(tracks), prompts=1)
    flags = (*flags, *((UNLABELLED,) if withheld else ()), *(("late_first_box",) if first.frame else ()))
    targets = (*tracks, prompt, *context)
    return labels.sample("track", native_id, row, (media,), turns, targets, raw=raw, flags=flags, origin=origin)
