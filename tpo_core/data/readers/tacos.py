"""TACoS: moments of a sentence in long cooking videos, in the form that 2D-TAN or the one that CG-DETR published.

2D-TAN (https://github.com/microsoft/VideoX): a JSON object of `<video>.avi` with moments in FRAMES; seconds = frame /
fps, duration = num_frames / fps, and fps is 29.4, not 30: it is taken from the file. Starts at or behind the end are
rejected, ends past the video are clipped. CG-DETR (https://github.com/wjun0830/CGDETR): JSON lines that are in seconds
already and name videos without `.avi`; its qid is the id of the sample, which its scorer asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._moments import parts, positive, seconds, sentence, span_sample
from tpo_core.data.readers._tvr import tvr_samples
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill, stream_pairs
from tpo_core.data.sample import Media, Sample

NAME = "tacos"


def _frames(root: str, labels: LabelFile, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    def build(pair: tuple[str, dict[str, Any]], row: int) -> Iterator[Sample | Reject]:
        name, video = pair[0].removesuffix(".avi"), pair[1]
        fps, n_frames = positive(video["fps"], "fps"), int(video["num_frames"])
        path = fill(options["video"], name=name, split=labels.split)
        media = Media(path, "video", fps=fps, n_frames=n_frames, duration_s=positive(n_frames / fps, "duration"))

        def one(event: tuple[Any, str], number: int) -> Iterator[Sample]:
            raw = {"timestamps": event[0], "fps": fps, "num_frames": n_frames}
            span = seconds(event[0], fps)
            yield span_sample(labels, f"{name}-{number}", row, media, sentence(event[1]), span, raw=raw)

        return parts(labels.source, row, zip(video["timestamps"], video["sentences"], strict=True), one)

    yield from mapped(stream_pairs(root, labels.source, NAME), labels.source, build)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    suffix = {"2dtan": "json", "cgdetr": "jsonl"}[options["form"]]
    labels = LabelFile(NAME, split, below(options["labels"], f"{split}.{suffix}"), NAME)
    if options["form"] == "2dtan":
        return _frames(root, labels, options)
    return tvr_samples(root, labels, options["video"])


READER = Reader(
    name=NAME,
    summary="TACoS: moments of a sentence in cooking videos, in frames or in seconds",
    layout="{split}.json or {split}.jsonl (train, val, test), videos/<video>.avi",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "video": Option("videos/{name}.avi", "path of a video below the root; {name} is the video without .avi"),
        "form": Option("2dtan", "2dtan: JSON in frames; cgdetr: JSON lines in seconds", ("2dtan", "cgdetr")),
    },
)
