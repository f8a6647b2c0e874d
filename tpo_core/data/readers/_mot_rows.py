"""The rows of a MOTChallenge truth file: who is where on which frame."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field

from tpo_core.data.readers._tracks import box_of
from tpo_core.data.readers.base import Reject, at
from tpo_core.data.readers.files import read_lines
from tpo_core.data.sample import Box

ORIGIN = 1
PEDESTRIAN = 1


@dataclass(frozen=True)
class Person:
    """One row: where a person is, and how much of it is to be seen (0 to 1, None: not told)."""

    box: Box
    visible_ratio: float | None


@dataclass
class Truth:
    """The rows of a sequence, frame (0-based) -> identity -> person, and those that were refused."""

    frames: dict[int, dict[int, Person]] = field(default_factory=dict)
    rejects: list[Reject] = field(default_factory=list)


def _row(values: list[str]) -> tuple[int, int, Person | None] | None:
    """Frame, identity and person (None: a box without size); None for a row that is not to be read.

    Raises ValueError or IndexError for a row of another shape.
    """
    frame, identity = int(values[0]) - 1, int(values[1])
    left, top, width, height, considered = (float(value) for value in values[2:7])
    if not all(map(math.isfinite, (left, top, width, height))):
        raise ValueError("a box that is not finite")
    classed = len(values) == 9
    if considered == 0 or (classed and int(values[7]) != PEDESTRIAN):
        return None
    box = box_of(left, top, width, height, ORIGIN)
    return frame, identity, Person(box, float(values[8]) if classed else None) if box else None


def load_truth(root: str, source: str, n_frames: int | None, reader: str) -> Truth:
    """The rows of a truth file; bad ones become rejects. `n_frames`: length of the sequence where it is known."""
    truth = Truth()
    for row, values in enumerate(csv.reader(read_lines(root, source, reader), quoting=csv.QUOTE_NONE)):
        try:
            found = _row(values) if values else None
        except (ValueError, IndexError) as error:
            truth.rejects.append(Reject(at(source, row), "bad_record", f"{','.join(values)}: {error}"))
            continue
        if found is None:
            continue
        frame, identity, person = found
        reason = None
        if frame < 0 or (n_frames is not None and frame >= n_frames):
            reason = "frame_out_of_range"
        elif identity in truth.frames.get(frame, {}):
            reason = "duplicate_box"
        elif person is None:
            reason = "box_empty"
        else:
            truth.frames.setdefault(frame, {})[identity] = person
        if reason:
            truth.rejects.append(Reject(at(source, row), reason, f"frame {frame + 1}, identity {identity}"))
    return truth
