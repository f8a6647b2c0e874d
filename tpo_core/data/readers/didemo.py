"""DiDeMo: a JSON list of descriptions, each with the moment that every one of four or more annotators chose.

Format: https://github.com/LisaAnne/LocalizingMoments. A moment is the first and the last of six 5-second chunks, BOTH
included: [1, 2] is 5 to 15 s. Annotators disagree on two thirds of the descriptions, so each gives a target of its own
(set_rule any_of); the moment that most chose comes first (the first listed on ties), for those who train on one. Of
longer videos only the first 30 s were annotated. The last chunk of a shorter one ends with the video, whose duration
the file does not tell: moments are clipped once it is decoded. Videos come in several containers and are often
converted: `{file}` is the name in the labels, `{name}` the same without its extension.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from tpo_core.data.readers._moments import sentence
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, at, mapped
from tpo_core.data.readers.files import below, fill, stream_items
from tpo_core.data.sample import Media, Sample, Span, Target

NAME = "didemo"
CHUNK_S = 5.0
N_CHUNKS = 6


def span_of(first: int, last: int) -> Span:
    """Seconds of the chunks first..last, both included. ValueError when there are no such chunks."""
    if not (0 <= first < N_CHUNKS and 0 <= last < N_CHUNKS):
        raise ValueError(f"chunks {[first, last]} are not among 0..{N_CHUNKS - 1}")
    return first * CHUNK_S, (last + 1) * CHUNK_S


def _targets(query: str, times: list[list[int]]) -> tuple[Target, ...]:
    votes = Counter(map(tuple, times))
    ranked = sorted(enumerate(times), key=lambda item: -votes[tuple(item[1])])
    return tuple(
        Target("span", label=query, annotator=k, group=0, set_rule="any_of", span_s=span_of(*chunks))
        for k, chunks in ranked
    )


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    source = below(options["labels"], f"{split}_data.json")
    labels = LabelFile(NAME, split, source, NAME)

    def build(row: dict[str, Any], number: int) -> Iterator[Sample | Reject]:
        query, file, native_id = sentence(row["description"]), row["video"], str(row["annotation_id"])
        times = row["times"]
        if not times:
            yield Reject(at(source, number), "no_labels", f"annotation {native_id} has no times")
        elif any(last < first for first, last in times):
            yield Reject(at(source, number), "moment_reversed", f"annotation {native_id}: chunks {times}")
        else:
            path = fill(options["video"], name=PurePosixPath(file).stem, file=file, split=split)
            raw = {"times": times, "num_segments": row.get("num_segments")}
            media = Media(path, "video")
            yield labels.grounded("span", query, native_id, number, media, _targets(query, times), raw=raw)

    yield from mapped(stream_items(root, source, NAME), source, build)


READER = Reader(
    name=NAME,
    summary="DiDeMo: moments of a description, by several annotators, in 5-second chunks",
    layout="{split}_data.json, videos/<video>",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "video": Option("videos/{file}", "path of a video below the root; {name}.mp4 when they were converted"),
    },
)
