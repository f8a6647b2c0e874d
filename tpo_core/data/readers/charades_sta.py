"""Charades-STA: one line a query, `<video> <start> <end>##<sentence>` in seconds; durations from the Charades table.

Format: https://github.com/jiyanggao/TALL. A sentence may hold `#`, so a line is split at its first `##`. Many ends lie
past the video: they are clipped to the duration and the native end is kept. Reversed and empty moments are rejected.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping

from tpo_core.data.readers.base import LABELS, Option, Reader, Reject, at, grounded_turns, raw_json
from tpo_core.data.readers.files import below, fill, read_lines
from tpo_core.data.sample import Media, Provenance, Sample, Target
from tpo_core.errors import TpoError

NAME = "charades_sta"


def _durations(root: str, path: str) -> dict[str, float]:
    table = csv.DictReader(read_lines(root, path, NAME))
    durations = {}
    for row in table:
        if not row.get("id") or not row.get("length"):
            raise TpoError(f"{NAME}: {path} line {table.line_num} lacks `id` or `length`; expected the Charades table")
        try:
            durations[row["id"]] = float(row["length"])
        except ValueError as error:
            raise TpoError(f"{NAME}: {path} line {table.line_num}: length {row['length']!r} is no number") from error
    return durations


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source = below(options["labels"], f"charades_sta_{split}.txt")
    lines = read_lines(root, source, NAME)
    known = (
        _durations(root, below(options["labels"], f"Charades_v1_{split}.csv")) if options["durations"] == "csv" else {}
    )
    for row, line in enumerate(lines):
        if not line.strip():
            continue
        fields, mark, sentence = line.partition("##")
        try:
            video, start, end = fields.split()
            span = (float(start), float(end))
        except ValueError:
            mark = ""
        if not mark or not sentence.strip():
            yield Reject(at(source, row), "bad_line", f"expected `<video> <start> <end>##<sentence>`: {line[:120]!r}")
            continue
        query = sentence.strip()
        sample_id = f"{NAME}/{split}/{video}-{row}"
        yield Sample(
            sample_id=sample_id,
            dataset=NAME,
            split=split,
            task="span",
            media=(Media(fill(options["video"], name=video, split=split), "video", duration_s=known.get(video)),),
            turns=grounded_turns("span", query, sample_id),
            targets=(Target("span", label=query, span_s=span),),
            provenance=Provenance(
                source_file=source,
                row=row,
                native_id=f"{video}-{row}",
                reader=NAME,
                raw=raw_json(line=line),
                flags=() if video in known else ("duration_unknown",),
            ),
        )


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
    },
)
