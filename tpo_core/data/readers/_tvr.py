"""The JSON lines in which moment_detr and CG-DETR keep the moments of Charades-STA and TACoS.

Format: https://github.com/jayleicn/moment_detr. One line a query, times in seconds of the video:
`{"qid": 0, "query": "...", "duration": 33.67, "vid": "SYN01", "relevant_windows": [[0.0, 6.9]]}`. A row without windows
has its labels withheld.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from tpo_core.data.readers._moments import positive, seconds, sentence
from tpo_core.data.readers.base import LabelFile, Reject, mapped
from tpo_core.data.readers.files import fill, read_lines
from tpo_core.data.sample import UNLABELLED, Media, Sample, Target


def tvr_samples(root: str, labels: LabelFile, video: str) -> Iterator[Sample | Reject]:
    """One sample a line, its native id is the qid; several windows are several moments of one query (all_of)."""

    def build(line: str, number: int) -> Iterator[Sample]:
        if not line.strip():
            return
        row = json.loads(line)
        query, spans = sentence(row["query"]), [seconds(window) for window in row.get("relevant_windows") or ()]
        path = fill(video, name=row["vid"], split=labels.split)
        media = Media(path, "video", duration_s=positive(row["duration"], "duration"))
        rule = "all_of" if len(spans) > 1 else "single"
        targets = [Target("span", label=query, group=0, set_rule=rule, span_s=span) for span in spans]
        raw = {"query": row["query"], "vid": row["vid"], "duration": row["duration"]}
        flags = () if spans else (UNLABELLED,)
        yield labels.grounded("span", query, str(row["qid"]), number, media, targets, raw=raw, flags=flags)

    yield from mapped(read_lines(root, labels.source, labels.reader), labels.source, build)
