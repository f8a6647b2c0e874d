"""Files of MOTChallenge that hold degenerate rows, made fit for a code that stops at them."""

import math
from pathlib import Path

from tpo_core.metrics import files
from tpo_core.metrics.report import Rejections

MIN_COLUMNS = 7  # frame, id, x, y, w, h, confidence
PEDESTRIAN = 1
NOWHERE = (-1e6, -1e6, 1.0, 1.0)  # a box that overlaps with nothing and so is a false positive


def clean(source: Path, target: Path, frames: int, rejections: Rejections) -> None:
    """Writes the rows of a result that can be scored, and tells the others; nothing for a result that is not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    if source.is_file():
        seen: set[tuple[int, int]] = set()
        for number, line in files.lines(source):
            row = _row(line, f"{source.stem} line {number}", frames, seen, rejections)
            if row is not None:
                rows.append(row)
    else:
        rejections.add("missing", source.stem)
    target.write_text("".join(f"{row}\n" for row in rows), encoding="utf-8")


def _row(line: str, where: str, frames: int, seen: set[tuple[int, int]], rejections: Rejections) -> str | None:
    """The row as frame,id,x,y,w,h,confidence, or None."""
    try:
        values = [float(word) for word in line.replace(",", " ").split()]
        frame, number = int(values[0]), int(values[1])
        kind = int(values[7]) if len(values) > 7 else PEDESTRIAN
    except (ValueError, IndexError, OverflowError):
        rejections.add("malformed", where)
        return None
    if len(values) < MIN_COLUMNS or number < 0 or kind > PEDESTRIAN:
        rejections.add("malformed", where)
        return None
    if not 1 <= frame <= frames:
        rejections.add("out_of_range", f"{where}: frame {frame} of {frames}")
        return None
    if (frame, number) in seen:
        rejections.add("duplicate", f"{where}: id {number} again in frame {frame}")
        return None
    seen.add((frame, number))
    box = values[2:6]
    reason = _flaw(box)
    if reason is not None:
        rejections.add(reason, where)
        box = list(NOWHERE)
    confidence = values[6] if math.isfinite(values[6]) else 0.0
    return ",".join([str(frame), str(number), *(repr(value) for value in box), repr(confidence)])


def _flaw(box: list[float]) -> str | None:
    if not all(math.isfinite(value) for value in box):
        return "not_finite"
    if min(box[2:]) < 0:
        return "reversed"
    return "zero_length" if min(box[2:]) == 0 else None
