"""MOTChallenge (MOT15, 16, 17, 20): one track a person, and boxes of persons that a phrase names without doubt.

Format: https://motchallenge.net/instructions/. A row of `gt/gt.txt` is frame (1-based), id, left, top, width, height
(1-based pixels, provenance origin 1), a flag (0: not to be considered), then class and visible part (9 columns) or
world coordinates (MOT15, 10 columns: no class). Rows that are not to be considered or of another class than pedestrian
are not read. A frame without a row for an identity means absent there. `seqinfo.ini` tells size, rate and length.
MOT17 holds each sequence three times, once a detector, with the same labels: one of them is taken.
Sequences lie in a folder named after the split, or at the top for split "all"; a sequence is a split, too.
Region samples are taken where one person is clearly the leftmost, the rightmost or the tallest one on the frame.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

from tpo_core.data.readers._mot_rows import ORIGIN, Truth, load_truth
from tpo_core.data.readers._people import named_people
from tpo_core.data.readers._tracks import followed, names_in
from tpo_core.data.readers.base import LABELS, MALFORMED, LabelFile, Option, Reader, Reject, at
from tpo_core.data.readers.files import below, fill, read_lines, require
from tpo_core.data.sample import Media, Sample, Target, TrackEntry
from tpo_core.errors import TpoError
from tpo_core.storage.uri import exists, join

NAME = "mot"
ALL = "all"
DETECTORS = ("DPM", "FRCNN", "SDP")
SIZES = ("imWidth", "imHeight", "seqLength")
TRUTHS = ("gt/gt.txt", "gt.txt")


def _media(root: str, folder: str, names: Mapping[str, str], options: Mapping[str, str]) -> Media:
    """The media of a sequence, as `seqinfo.ini` describes it where there is one."""
    path = below(folder, "seqinfo.ini")
    lines = read_lines(root, path, NAME) if exists(join(root, path)) else iter(())
    about = {key.strip(): value.strip() for key, mark, value in (line.partition("=") for line in lines) if mark}
    width, height, n_frames = (int(about[key]) if key in about else None for key in SIZES)
    fps = float(about["frameRate"]) if "frameRate" in about else None
    if options["media"] == "mp4":
        uri = fill(options["video"], **names)
        return Media(uri, "video", width=width, height=height, fps=fps, n_frames=n_frames)
    uri = below(fill(options["frames"], **names), about.get("imDir", "img1"))
    files = tuple(f"{k:06d}{about.get('imExt', '.jpg')}" for k in range(1, n_frames + 1)) if n_frames else None
    return Media(uri, "frames", width=width, height=height, fps=fps, n_frames=n_frames, frame_names=files)


def _tracks(labels: LabelFile, sequence: str, media: Media, truth: Truth) -> Iterator[Sample | Reject]:
    absent = [TrackEntry(frame, False) for frame in range(media.n_frames or max(truth.frames, default=-1) + 1)]
    for identity in sorted({identity for people in truth.frames.values() for identity in people}):
        rows = [truth.frames.get(frame, {}).get(identity) for frame in range(len(absent))]
        entries = [
            TrackEntry(frame, True, row.visible_ratio, row.box) if row else absent[frame]
            for frame, row in enumerate(rows)
        ]
        yield followed(
            labels, f"{sequence}-track-{identity}", 0, media, entries,
            label="person", object_id=str(identity), origin=ORIGIN,
        )  # fmt: skip


def _regions(labels: LabelFile, sequence: str, media: Media, truth: Truth, every: int) -> Iterator[Sample]:
    for frame in sorted(truth.frames)[::every]:
        people = {identity: person.box for identity, person in truth.frames[frame].items()}
        for phrase, identity in named_people(people).items():
            target = Target("box", label=phrase, object_id=str(identity), box=people[identity], frame=frame)
            native_id = f"{sequence}-{frame}-{phrase.split()[1]}"
            yield labels.grounded("box", phrase, native_id, 0, media, (target,), origin=ORIGIN)


def _sequence(
    root: str, labels: LabelFile, folder: str, names: Mapping[str, str], options: Mapping[str, str]
) -> Iterator[Sample | Reject]:
    try:
        media = _media(root, folder, names, options)
        truth = load_truth(root, labels.source, media.n_frames, NAME)
    except MALFORMED as error:
        yield Reject(at(labels.source, 0), "bad_record", f"{names['name']}: {type(error).__name__}: {error}")
        return
    yield from truth.rejects  # one after another: the tracks of MOT20-05 take a GiB together
    if options["samples"] in ("track", "both"):
        yield from _tracks(labels, names["name"], media, truth)
    if options["samples"] in ("region", "both"):
        yield from _regions(labels, names["name"], media, truth, int(options["every"]))


def _truth_of(root: str, folder: str) -> str | None:
    return next((below(folder, name) for name in TRUTHS if exists(join(root, below(folder, name)))), None)


def _sequences(root: str, split: str, options: Mapping[str, str]) -> list[str]:
    """Folders of the sequences of a split: of those in its folder, or the sequence that it names."""
    top = options["labels"]
    require(root, top, NAME)
    if split != ALL and _truth_of(root, below(top, split)):
        return [below(top, split)]
    folder = top if split == ALL else below(top, split)
    found = [below(folder, name) for name in names_in(root, folder)]
    found = [each for each in found if _truth_of(root, each) or exists(join(root, below(each, "seqinfo.ini")))]
    if not found and split != ALL:
        known = ", ".join([ALL, *(name for name in names_in(root, top) if "." not in name)])
        raise TpoError(f"{NAME}: no sequence with a gt.txt in {join(root, folder)}; there are {known}")
    others = tuple(f"-{name}" for name in DETECTORS if name != options["detector"])
    return [each for each in found if options["detector"] == ALL or not each.endswith(others)]


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    if not options["every"].isdigit() or int(options["every"]) < 1:
        raise TpoError(f"option every of reader {NAME} is a whole number from 1; not {options['every']!r}")
    for folder in _sequences(root, split, options):
        source, name = _truth_of(root, folder), PurePosixPath(folder).name
        if source is None:
            yield Reject(at(below(folder, TRUTHS[0]), 0), "no_labels", f"sequence {name} has no gt.txt")
            continue
        labels, names = LabelFile(NAME, split, source, NAME), {"name": name, "folder": folder, "split": split}
        yield from _sequence(root, labels, folder, names, options)


READER = Reader(
    name=NAME,
    summary="MOTChallenge: tracks of persons, and boxes of the leftmost, rightmost or tallest person on a frame",
    layout="{split}/<seq>/{seqinfo.ini,gt/gt.txt,img1/%06d.jpg}; a split is a folder of sequences, a sequence, or all",
    default_split=ALL,
    parse=_parse,
    options={
        "labels": LABELS,
        "media": Option("frames", "frames: JPEG files of img1; mp4: a video file", ("frames", "mp4")),
        "frames": Option("{folder}", "folder of a sequence below the root, that holds img1"),
        "video": Option("{folder}/video.mp4", "path of a sequence's video below the root"),
        "samples": Option("both", "which samples to give", ("track", "region", "both")),
        "every": Option("5", "region samples on every n-th frame"),
        "detector": Option("FRCNN", "MOT17: which of the three copies of a sequence", (*DETECTORS, ALL)),
    },
)
