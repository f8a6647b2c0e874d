"""Result files of box trackers, as the official scorers read them: one box a frame, in the origin of the dataset.

A prediction is one box a frame of its sample (xyxy, pixels, 0-based), or None where the tracker gives none. Native
boxes are (left, top, width, height) with the origin of the sample's labels added to left and top; None becomes a box of
zeros. Numbers are added as decimals, so that reading gives back what was written to the last bit.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterable, Sequence

from tpo_core.data.sample import Box, Sample
from tpo_core.errors import TpoError
from tpo_core.storage.uri import join, read_bytes, write_bytes

Boxes = Sequence[Box | None]
_EXACT = decimal.Context(prec=800)  # a sum of two float64 has no more digits
NOTHING = "0,0,0,0"


def native_line(box: Box | None, origin: int) -> str:
    """A box as "left,top,width,height". TpoError for one that is not finite or has no size."""
    if box is None:
        return NOTHING
    if not all(map(math.isfinite, box)) or box[2] <= box[0] or box[3] <= box[1]:
        raise TpoError(f"a prediction is None or a finite box with a size, not {box}")
    x1, y1, x2, y2 = (decimal.Decimal(repr(float(value))) for value in box)
    values = (_EXACT.add(x1, origin), _EXACT.add(y1, origin), _EXACT.subtract(x2, x1), _EXACT.subtract(y2, y1))
    return ",".join(f"{value:f}" for value in values)


def box_of_line(line: str, origin: int) -> Box | None:
    """The box of a native line; None for one without size."""
    left, top, width, height = (decimal.Decimal(value.strip()) for value in line.replace("\t", ",").split(","))
    if width <= 0 or height <= 0:
        return None
    x1, y1 = _EXACT.subtract(left, origin), _EXACT.subtract(top, origin)
    return (float(x1), float(y1), float(_EXACT.add(x1, width)), float(_EXACT.add(y1, height)))


def _write(uri: str, sample: Sample, boxes: Boxes) -> None:
    n_frames = sample.media[0].n_frames
    if n_frames is not None and len(boxes) != n_frames:
        raise TpoError(f"{sample.sample_id}: {len(boxes)} boxes for {n_frames} frames")
    lines = [native_line(box, sample.provenance.origin) for box in boxes]
    write_bytes(uri, "".join(f"{line}\n" for line in lines).encode())


def _lines(uri: str) -> list[str]:
    return read_bytes(uri).decode().split()


def _read(uri: str, sample: Sample) -> list[Box | None]:
    return [
        box_of_line(line, sample.provenance.origin) for line in read_bytes(uri).decode().splitlines() if line.strip()
    ]


def _flat(folder: str, sample: Sample) -> str:
    return join(folder, f"{sample.provenance.native_id}.txt")


def write_lasot(folder: str, sample: Sample, boxes: Boxes) -> None:
    """Writes `<seq>.txt`. TpoError where the number of boxes is not that of the frames; so do all below."""
    _write(_flat(folder, sample), sample, boxes)


def read_lasot(folder: str, sample: Sample) -> list[Box | None]:
    """The boxes of `<seq>.txt`. FileNotFoundError where there is none; so do all below."""
    return _read(_flat(folder, sample), sample)


def write_trackingnet(folder: str, sample: Sample, boxes: Boxes) -> None:
    """Writes `<seq>.txt`, which the server takes zipped."""
    _write(_flat(folder, sample), sample, boxes)


def read_trackingnet(folder: str, sample: Sample) -> list[Box | None]:
    """The boxes of `<seq>.txt`."""
    return _read(_flat(folder, sample), sample)


def _got10k(folder: str, sample: Sample, kind: str) -> str:
    sequence = sample.provenance.native_id
    return join(folder, sequence, f"{sequence}_{kind}.txt")


def write_got10k(folder: str, sample: Sample, boxes: Boxes, seconds: Sequence[float]) -> None:
    """Writes `<seq>/<seq>_001.txt` and `<seq>_time.txt`: the scorer needs the seconds that each frame took."""
    if len(seconds) != len(boxes):
        raise TpoError(f"{sample.sample_id}: {len(seconds)} times for {len(boxes)} boxes")
    _write(_got10k(folder, sample, "001"), sample, boxes)
    times = "".join(f"{float(value)!r}\n" for value in seconds)
    write_bytes(_got10k(folder, sample, "time"), times.encode())


def read_got10k(folder: str, sample: Sample) -> tuple[list[Box | None], list[float]]:
    """The boxes and the seconds of a sequence."""
    times = read_bytes(_got10k(folder, sample, "time")).decode().split()
    return _read(_got10k(folder, sample, "001"), sample), [float(value) for value in times]


def _mot_place(folder: str, sample: Sample) -> tuple[str, str]:
    """The file of the sample's sequence and its identity in there."""
    sequence, _, identity = sample.provenance.native_id.rpartition("-track-")
    if not sequence:
        raise TpoError(f"{sample.sample_id} is no track of MOTChallenge")
    return join(folder, f"{sequence}.txt"), identity


def write_mot(folder: str, tracks: Iterable[tuple[Sample, Boxes]]) -> None:
    """Writes `<seq>.txt` of every sequence, rows "frame,id,left,top,width,height,1,-1,-1,-1" by frame and identity.

    All tracks of a sequence must be given at once, since they share a file; a frame without box has no row.
    """
    rows: dict[str, list[tuple[int, int, str]]] = {}
    for sample, boxes in tracks:
        uri, identity = _mot_place(folder, sample)
        found = rows.setdefault(uri, [])
        for frame, box in enumerate(boxes):
            if box is not None:
                found.append((frame + 1, int(identity), native_line(box, sample.provenance.origin)))
    for uri, found in rows.items():
        text = "".join(f"{frame},{identity},{line},1,-1,-1,-1\n" for frame, identity, line in sorted(found))
        write_bytes(uri, text.encode())


def read_mot(folder: str, samples: Iterable[Sample]) -> dict[str, list[Box | None]]:
    """By sample id, the boxes of each sample's identity in every frame of its labels."""
    files: dict[str, dict[tuple[str, int], str]] = {}
    found = {}
    for sample in samples:
        uri, identity = _mot_place(folder, sample)
        if uri not in files:
            rows = (line.split(",") for line in _lines(uri))
            files[uri] = {(row[1], int(row[0])): ",".join(row[2:6]) for row in rows}
        track = next(target.track for target in sample.targets if target.track is not None)
        lines = [files[uri].get((identity, entry.frame + 1), NOTHING) for entry in track]
        found[sample.sample_id] = [box_of_line(line, sample.provenance.origin) for line in lines]
    return found
