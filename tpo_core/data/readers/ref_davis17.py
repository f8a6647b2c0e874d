"""Ref-DAVIS17: expressions of two annotators for the objects of DAVIS 2017.

Format: https://www.mpi-inf.mpg.de/departments/computer-vision-and-machine-learning/research/video-segmentation/
video-object-segmentation-with-language-referring-expressions. Four text files, `Davis17_annot{1,2}{,_full_video}.txt`
(first frame or whole video seen), with lines `<sequence> <object> "<expression>"` of train and val together; a split
takes its own sequences. The files of annotator 2 are latin-1, and three sequences are misspelt: both are mended, the
native name is kept. Masks are those of the unsupervised set, whose 255 becomes a target "void" that no turn refers to.
Each run (annotator, view) is scored on its own: it is in the sample's id, and can be chosen.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tpo_core.data.readers import davis17
from tpo_core.data.readers._masks import Masks
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, at, grounded_turns
from tpo_core.data.readers.files import below, read_lines
from tpo_core.data.sample import Media, Sample, Target

NAME = "ref_davis17"
RUNS = {
    "a1-first": (1, "Davis17_annot1.txt"),
    "a1-full": (1, "Davis17_annot1_full_video.txt"),
    "a2-first": (2, "Davis17_annot2.txt"),
    "a2-full": (2, "Davis17_annot2_full_video.txt"),
}
ENCODING = {1: "utf-8-sig", 2: "latin-1"}
MISSPELT = {"clasic-car": "classic-car", "dog-scale": "dogs-scale", "motor-bike": "motorbike"}
_LINE = re.compile(r"(?P<sequence>\S+)\s+(?P<object>\d+)\s+(?P<text>\S.*)")


@dataclass(frozen=True)
class Line:
    """One line of a text file: who wrote it on which object of which sequence."""

    labels: LabelFile
    row: int
    run: str
    sequence: str
    native: str
    object_id: str
    text: str


def _lines(root: str, split: str, options: Mapping[str, str]) -> Iterator[Line | Reject]:
    for run, (annotator, name) in RUNS.items():
        if options["run"] not in ("all", run):
            continue
        labels = LabelFile(NAME, split, below(options["labels"], options["texts"], name), NAME)
        for row, line in enumerate(read_lines(root, labels.source, NAME, encoding=ENCODING[annotator])):
            found = _LINE.fullmatch(line.strip())
            text = found["text"].strip('" \t') if found else ""
            if found and text:
                native = found["sequence"]
                yield Line(labels, row, run, MISSPELT.get(native, native), native, found["object"], text)
            elif line.strip():
                detail = f'expected `<sequence> <object> "<expression>"`: {line[:120]!r}'
                yield Reject(at(labels.source, row), "bad_record", detail)


def _sample(line: Line, media: Media, masks: Masks) -> Sample | Reject:
    native_id = f"{line.sequence}-{line.object_id}-{line.run}"
    if not masks.positions:
        return Reject(at(line.labels.source, line.row), "no_labels", f"{native_id}: the sequence has no masks")
    track = masks.track(int(line.object_id))
    target = Target("track", label=line.text, object_id=line.object_id, annotator=RUNS[line.run][0], track=track)
    mended = line.native != line.sequence
    return line.labels.sample(
        "mask", native_id, line.row, (media,),
        grounded_turns("mask", line.text, line.labels.sample_id(native_id)), (target, *masks.void()),
        raw={"sequence": line.native} if mended else None, flags=("sequence_mended",) if mended else (),
    )  # fmt: skip


def _of_sequence(root: str, sequence: str, lines: list[Line], options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    if not lines:
        return
    try:
        media, masks = davis17.read_sequence(root, sequence, "unsupervised", options)
    except ValueError as error:
        yield from (Reject(at(line.labels.source, line.row), "bad_record", f"{sequence}: {error}") for line in lines)
        return
    for line in lines:
        yield _sample(line, media, masks)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    parts = {
        part: davis17.sequences_of(root, part, NAME, options)[1] for part in dict.fromkeys((split, "train", "val"))
    }
    sequences = {part: [line.strip() for line in lines if line.strip()] for part, lines in parts.items()}
    known = {sequence for names in sequences.values() for sequence in names}
    of: dict[str, list[Line]] = {sequence: [] for sequence in sequences[split]}
    for line in _lines(root, split, options):
        if isinstance(line, Reject):
            yield line
        elif line.sequence in of:
            of[line.sequence].append(line)
        elif line.sequence not in known:
            yield Reject(at(line.labels.source, line.row), "no_labels", f"DAVIS has no sequence {line.native!r}")
    for sequence, own in of.items():
        yield from _of_sequence(root, sequence, own, options)


READER = Reader(
    name=NAME,
    summary="Ref-DAVIS17: masks of expressions of two annotators, from palette PNGs",
    layout="davis_text_annotations/Davis17_annot{1,2}{,_full_video}.txt, and DAVIS 2017 with Annotations_unsupervised",
    default_split="val",
    parse=_parse,
    options={
        "labels": LABELS,
        "texts": Option("davis_text_annotations", "folder of the text files, below the label files"),
        "run": Option("all", "whose expressions, written after seeing what", ("all", *RUNS)),
        "resolution": davis17.RESOLUTION,
        "frames": davis17.FRAMES,
    },
)
