"""MOT15 ground truth of street scenes: one track a person, and boxes of persons that a phrase names without doubt.

Format: https://motchallenge.net. A row of `gt.txt` is frame (1-based), id, left, top, width, height (1-based pixels),
confidence (0: to be ignored), and world coordinates. A frame without a row for an identity means absent there.
Region samples are taken where one person is clearly the leftmost, the rightmost or the tallest one on the frame.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping

from tpo_core.data.readers.base import LABELS, Option, Reader, Reject, at, grounded_turns
from tpo_core.data.readers.files import below, fill, read_lines, require
from tpo_core.data.sample import Box, Media, Provenance, Sample, Target, TrackEntry
from tpo_core.errors import TpoError
from tpo_core.storage.uri import exists, join, list_names

NAME = "mot15"
ALL = "all"
MIN_GAP = 0.5  # in widths of the person named: distance of its centre to the next one's
MIN_TALLER = 1.15  # height over the next one's; chosen by eye

Frames = dict[int, dict[int, Box]]  # frame (0-based) -> identity -> box


def _load(root: str, source: str) -> tuple[Frames, list[Reject]]:
    frames: Frames = {}
    rejects = []
    for row, values in enumerate(csv.reader(read_lines(root, source, NAME))):
        try:
            frame, identity = int(values[0]) - 1, int(values[1])
            left, top, width, height, confidence = (float(value) for value in values[2:7])
        except (ValueError, IndexError):
            rejects.append(
                Reject(at(source, row), "bad_line", f"expected frame,id,left,top,width,height,confidence: {values}")
            )
            continue
        if confidence == 0:
            continue
        if frame < 0 or identity in frames.get(frame, {}):
            reason = "bad_frame" if frame < 0 else "duplicate_box"
            rejects.append(Reject(at(source, row), reason, f"frame {frame + 1}, identity {identity}"))
            continue
        frames.setdefault(frame, {})[identity] = (left - 1, top - 1, left - 1 + width, top - 1 + height)
    return frames, rejects


def _provenance(source: str, native_id: str) -> Provenance:
    return Provenance(source_file=source, row=0, native_id=native_id, reader=NAME, origin=1)


def _track_samples(frames: Frames, media: Media, sequence: str, source: str, split: str) -> Iterator[Sample]:
    n_frames = max(frames) + 1
    for identity in sorted({identity for people in frames.values() for identity in people}):
        boxes = [frames.get(frame, {}).get(identity) for frame in range(n_frames)]
        entries = tuple(TrackEntry(frame, box is not None, box=box) for frame, box in enumerate(boxes))
        first = next(entry for entry in entries if entry.visible)
        native_id = f"{sequence}-track-{identity}"
        sample_id = f"{NAME}/{split}/{native_id}"
        yield Sample(
            sample_id=sample_id,
            dataset=NAME,
            split=split,
            task="track",
            media=(media,),
            turns=grounded_turns("track", "", sample_id, prompts=1),
            targets=(
                Target("track", label="person", object_id=str(identity), track=entries),
                Target("box", label="person", object_id=str(identity), box=first.box, frame=first.frame),
            ),
            provenance=_provenance(source, native_id),
        )


def named_people(people: Mapping[int, Box]) -> dict[str, int]:
    """The phrases that name exactly one of the people (identity -> box) of a frame, by a clear margin."""
    if len(people) < 2:
        return {}
    centre = {identity: (box[0] + box[2]) / 2 for identity, box in people.items()}
    height = {identity: box[3] - box[1] for identity, box in people.items()}
    across, tall = sorted(people, key=centre.__getitem__), sorted(people, key=height.__getitem__, reverse=True)
    named = {}
    for phrase, one, other in (
        ("the leftmost person", across[0], across[1]),
        ("the rightmost person", across[-1], across[-2]),
    ):
        if abs(centre[one] - centre[other]) >= MIN_GAP * (people[one][2] - people[one][0]):
            named[phrase] = one
    if height[tall[0]] >= MIN_TALLER * height[tall[1]]:
        named["the tallest person"] = tall[0]
    return named


def _region_samples(
    frames: Frames, media: Media, sequence: str, source: str, split: str, every: int
) -> Iterator[Sample]:
    for frame in sorted(frames)[::every]:
        for phrase, identity in named_people(frames[frame]).items():
            native_id = f"{sequence}-{frame}-{phrase.split()[1]}"
            sample_id = f"{NAME}/{split}/{native_id}"
            target = Target("box", label=phrase, object_id=str(identity), box=frames[frame][identity], frame=frame)
            yield Sample(
                sample_id=sample_id,
                dataset=NAME,
                split=split,
                task="box",
                media=(media,),
                turns=grounded_turns("box", phrase, sample_id),
                targets=(target,),
                provenance=_provenance(source, native_id),
            )


def _sequences(root: str, split: str, options: Mapping[str, str]) -> list[str]:
    require(root, options["labels"], NAME)
    folder = join(root, below(options["labels"])) if options["labels"] else root
    found = [name for name in list_names(folder) if exists(join(folder, name, "gt.txt"))]
    if split == ALL:
        return found
    if split not in found:
        raise TpoError(f"{NAME}: no sequence {split!r} with a gt.txt in {folder}; there are {', '.join([ALL, *found])}")
    return [split]


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    if not options["every"].isdigit() or int(options["every"]) < 1:
        raise TpoError(f"option every of reader {NAME} is a whole number from 1; not {options['every']!r}")
    for sequence in _sequences(root, split, options):
        source = below(options["labels"], sequence, "gt.txt")
        frames, rejects = _load(root, source)
        yield from rejects
        media = Media(fill(options["video"], name=sequence, split=split), "video")
        if frames and options["samples"] in ("track", "both"):
            yield from _track_samples(frames, media, sequence, source, split)
        if options["samples"] in ("region", "both"):
            yield from _region_samples(frames, media, sequence, source, split, int(options["every"]))


READER = Reader(
    name=NAME,
    summary="MOT15: tracks of persons, and boxes of the leftmost, rightmost or tallest person on a frame",
    layout="<sequence>/gt.txt, <sequence>/video.mp4; a split is the name of a sequence, or all",
    default_split=ALL,
    parse=_parse,
    options={
        "labels": LABELS,
        "video": Option("{name}/video.mp4", "path of a sequence's video below the root"),
        "samples": Option("both", "which samples to give", ("track", "region", "both")),
        "every": Option("5", "region samples on every n-th frame"),
    },
)
