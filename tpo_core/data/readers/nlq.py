"""Ego4D NLQ: videos with clips, annotations and queries, each with the moment that answers it.

Format: https://ego4d-data.org/docs/data/annotations-schemas/ (evaluation: https://github.com/EGO4D/episodic-memory).
Each moment is given twice: `clip_start_sec` and `clip_end_sec` are read, as the evaluation does. A sample is the clip
(`clip_s` in its video), or by option a file of its own. A prediction is keyed by clip_uid, annotation_uid and
query_idx, the place in the list of queries: a query without text is no sample, but counts in query_idx. Nine in a
hundred truths have no length: they are rejected as moment_empty, as nothing can be learned from them. Test queries
carry no times: they are flagged "unlabelled" (split test_unannotated).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._moments import parts, positive, span_sample
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill, stream_items
from tpo_core.data.sample import Clip, Media, Sample

NAME = "nlq"


def _media(video: dict[str, Any], clip: dict[str, Any], split: str, options: Mapping[str, str]) -> Media:
    place = Clip(float(clip["video_start_sec"]), float(clip["video_end_sec"]))
    path = fill(options["video"], name=video["video_uid"], clip=clip["clip_uid"], split=split)
    if options["clips"] == "cut":
        return Media(path, "video", duration_s=positive(place.end - place.start, "length of the clip"))
    return Media(path, "video", clip_s=place)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    labels = LabelFile(NAME, split, below(options["labels"], f"nlq_{split}.json"), NAME)

    def queries(video: dict[str, Any], clip: dict[str, Any], note: dict[str, Any], row: int) -> Iterator[Any]:
        media = _media(video, clip, split, options)

        def one(query: dict[str, Any], number: int) -> Iterator[Sample]:
            text = (query.get("query") or "").strip()
            if not text:
                return
            key = {"clip_uid": clip["clip_uid"], "annotation_uid": note["annotation_uid"], "query_idx": number}
            labelled = query.get("clip_start_sec") is not None
            span = (float(query["clip_start_sec"]), float(query["clip_end_sec"])) if labelled else None
            raw = {**key, "query": query["query"], "template": query.get("template")}
            yield span_sample(labels, "_".join(map(str, key.values())), row, media, text, span, raw=raw)

        return parts(labels.source, row, note["language_queries"], one)

    def build(video: dict[str, Any], row: int) -> Iterator[Sample | Reject]:
        def clip_samples(clip: dict[str, Any], _: int) -> Iterator[Sample | Reject]:
            return parts(labels.source, row, clip["annotations"], lambda note, _: queries(video, clip, note, row))

        return parts(labels.source, row, video["clips"], clip_samples)

    yield from mapped(stream_items(root, labels.source, NAME, "videos"), labels.source, build)


READER = Reader(
    name=NAME,
    summary="Ego4D NLQ: the moment that answers a question about an egocentric clip",
    layout="nlq_{split}.json (train, val, test_unannotated), videos/<video_uid>.mp4",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "video": Option("videos/{name}.mp4", "path below the root; {name} is the video_uid, {clip} the clip_uid"),
        "clips": Option("source", "source: a file is a whole video; cut: a file is a clip", ("source", "cut")),
    },
)
