"""Charades-STA: one line a query, `<video> <start> <end>##<sentence>` in seconds; durations from the Charades table.

Format: https://github.com/jiyanggao/TALL. A sentence may hold `#`, so a line is split at its first `##`. Many ends lie
past the video: they are clipped to the duration and the native end is kept. Reversed and empty moments are rejected.
The table is CSV with commas inside of quotes. By option the JSON lines of CG-DETR are read instead, which leave the
reversed lines out, clip the ends and number the queries anew: scores against the two truths differ in the last digits,
and `source_file` tells which one it was.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tpo_core.data.readers._moments import positive, span_sample
from tpo_core.data.readers._tvr import tvr_samples
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, at, mapped
from tpo_core.data.readers.files import below, fill, read_lines, read_table
from tpo_core.data.sample import Media, Sample, Span
from tpo_core.errors import TpoError

NAME = "charades_sta"


def _durations(root: str, path: str) -> dict[str, float]:
    durations = {}
    for number, row in enumerate(read_table(root, path, NAME), start=1):
        if not row.get("id") or not row.get("length"):
            raise TpoError(f"{NAME}: row {number} of {path} lacks `id` or `length`; expected the Charades table")
        try:
            durations[row["id"]] = positive(row["length"], "length")
        except ValueError as error:
            raise TpoError(f"{NAME}: row {number} of {path}: length {row['length']!r} is no number") from error
    return durations


def _fields(line: str) -> tuple[str, Span, str] | None:
    """Video, moment and sentence of a line; None when it is no such line."""
    fields, _, sentence = line.partition("##")
    try:
        video, start, end = fields.split()
        return (video, (float(start), float(end)), sentence.strip()) if sentence.strip() else None
    except ValueError:
        return None


def _lines(root: str, labels: LabelFile, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    split, lines = labels.split, read_lines(root, labels.source, NAME)
    table = below(options["labels"], f"Charades_v1_{split}.csv")
    known = _durations(root, table) if options["durations"] == "csv" else {}

    def build(line: str, row: int) -> Iterator[Sample | Reject]:
        if not line.strip():
            return
        fields = _fields(line)
        if fields is None:
            detail = f"expected `<video> <start> <end>##<sentence>`: {line[:120]!r}"
            yield Reject(at(labels.source, row), "bad_line", detail)
            return
        video, span, query = fields
        media = Media(fill(options["video"], name=video, split=split), "video", duration_s=known.get(video))
        flags = () if video in known else ("duration_unknown",)
        yield span_sample(labels, f"{video}-{row}", row, media, query, span, raw={"line": line}, flags=flags)

    yield from mapped(lines, labels.source, build)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    file = {"text": f"charades_sta_{split}.txt", "cgdetr": f"charades_sta_{split}_tvr_format.jsonl"}[options["form"]]
    labels = LabelFile(NAME, split, below(options["labels"], file), NAME)
    if options["form"] == "cgdetr":
        return tvr_samples(root, labels, options["video"])
    return _lines(root, labels, options)


READER = Reader(
    name=NAME,
    summary="Charades-STA: moments of a sentence, in seconds",
    layout="charades_sta_{split}.txt, Charades_v1_{split}.csv (id, length in s), videos/<video>.mp4",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "video": Option("videos/{name}.mp4", "path of a video below the root"),
        "durations": Option(
            "csv", "where durations come from; decoder: not from a file, known after decoding", ("csv", "decoder")
        ),
        "form": Option("text", "text: the official lines; cgdetr: JSON lines of CG-DETR", ("text", "cgdetr")),
    },
)
