"""NExT-GQA: multiple-choice questions about a video, with the spans that hold the evidence.

Format: https://github.com/doc-doc/NExT-GQA. `<split>.csv` holds questions with five options and the answer's TEXT,
`gsub_<split>.json` the spans (seconds) by video and question, any one of which is enough, and `map_vid_vidorID.json`
the folder of a video. A question is known as `<video>_<qid>`. The training split has no spans: its samples are plain
multiple choice. Spans are in seconds, so that the rate of the original (in raw) says nothing of a copy with another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._choices import choice, text_index
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, at, mapped
from tpo_core.data.readers.files import below, fill, read_json_file, read_table
from tpo_core.data.sample import Media, Sample, Target

NAME = "next_gqa"


def _targets(spans: list[Any], question: str) -> tuple[Target, ...]:
    rule, group = ("any_of", 0) if len(spans) > 1 else ("single", None)
    pairs = [(float(start), float(end)) for start, end in spans]
    return tuple(Target("span", label=question, group=group, set_rule=rule, span_s=pair) for pair in pairs)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    folder = options["labels"]
    source = below(folder, f"{split}.csv")
    rows = read_table(root, source, NAME)
    labels = LabelFile(NAME, split, source, NAME)
    grounded = split != "train"
    evidence = read_json_file(root, below(folder, f"gsub_{split}.json"), NAME) if grounded else {}
    folders = read_json_file(root, below(folder, "map_vid_vidorID.json"), NAME)

    def build(row: dict[str | None, Any], number: int) -> Iterator[Sample | Reject]:
        if None in row or None in row.values():
            raise ValueError("the line has not as many fields as the header")
        video, qid = row["video_id"], row["qid"]
        known = evidence.get(video, {})
        spans = known.get("location", {}).get(qid, [])
        if grounded and not spans:
            yield Reject(at(source, number), "no_labels", f"{video}_{qid} has no span in gsub_{split}.json")
            return
        media = Media(
            fill(options["video"], name=folders[video], split=split),
            "video",
            width=int(row["width"]),
            height=int(row["height"]),
            n_frames=int(row["frame_count"]),
            duration_s=float(known["duration"]) if grounded else None,
        )
        answers = tuple(row[f"a{place}"] for place in range(5))
        yield choice(
            labels,
            f"{video}_{qid}",
            number,
            (media,),
            row["question"],
            answers,
            text_index(row["answer"], answers),
            raw={"type": row["type"], "fps": known.get("fps")},
            targets=_targets(spans, row["question"]),
            task="grounded_mcq" if grounded else "mcq",
        )

    yield from mapped(rows, source, build)


READER = Reader(
    name=NAME,
    summary="NExT-GQA: multiple-choice questions with the spans of their evidence",
    layout="{split}.csv, gsub_{split}.json (val, test), map_vid_vidorID.json, videos/<folder>/<id>.mp4",
    default_split="test",
    parse=_parse,
    options={
        "labels": LABELS,
        "video": Option("videos/{name}.mp4", "path of a video below the root; {name} is <folder>/<id>"),
    },
)
