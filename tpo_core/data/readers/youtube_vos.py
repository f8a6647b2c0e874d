"""YouTube-VOS: the masks of an object on every fifth frame of a video; its first box is given in the question.

Format: https://youtube-vos.org/dataset/vos/. `meta.json` names the objects of a video with category and frames; an
object is the palette INDEX of its id in `Annotations/<video>/<frame>.png`. Objects may start late, and the first frame
that meta.json tells for an object is wrong for a few: where an object is comes from the masks alone. `valid` and `test`
hold the mask of an object on its first frame only: samples with a prompt and no track, flagged "unlabelled".
In `train` an object that lacks the mask of one of its frames is rejected as "no_labels".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._masks import Masks, png_stems, read_masks, stills
from tpo_core.data.readers._tracks import followed, guarded
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, at
from tpo_core.data.readers.files import below, fill, stream_pairs
from tpo_core.data.sample import Media, Sample

NAME = "youtube_vos"


def _object(
    labels: LabelFile, row: int, media: Media, masks: Masks, native_id: str, facts: dict[str, Any], frames: list[str]
) -> Iterator[Sample | Reject]:
    missing = set(facts["frames"]) & set(masks.missing(frames))
    object_id = native_id.rpartition("-")[2]
    if missing and labels.split == "train":
        detail = f"{native_id}: {len(missing)} of its {len(facts['frames'])} frames have no mask, {min(missing)} first"
        yield Reject(at(labels.source, row), "no_labels", detail)
        return
    yield followed(
        labels, native_id, row, media, masks.track(int(object_id)),
        label=facts.get("category"), object_id=object_id, withheld=bool(missing),
    )  # fmt: skip


def _video(
    root: str, labels: LabelFile, row: int, video: str, entry: dict[str, Any], options: Mapping[str, str]
) -> Iterator[Sample | Reject]:
    names = {"name": video, "split": labels.split}
    folder, objects = below(options["labels"], fill(options["masks"], **names)), entry["objects"]
    told = {frame for facts in objects.values() for frame in facts["frames"]}
    frames = sorted(told.union(png_stems(root, folder)))
    masks = read_masks(root, folder, frames)
    media = stills(fill(options["frames"], **names), frames, masks.size)
    for object_id, facts in objects.items():
        name = f"{video}-{object_id}"
        yield from guarded(_object(labels, row, media, masks, name, facts, frames), labels.source, row, name)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    labels = LabelFile(NAME, split, below(options["labels"], split, "meta.json"), NAME)
    for row, (video, entry) in enumerate(stream_pairs(root, labels.source, NAME, "videos")):
        yield from guarded(_video(root, labels, row, video, entry, options), labels.source, row, video)


READER = Reader(
    name=NAME,
    summary="YouTube-VOS: mask tracks of objects whose first box is given, from palette PNGs",
    layout="{split}/meta.json, {split}/JPEGImages/<video>/<frame>.jpg, {split}/Annotations/<video>/<frame>.png",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "frames": Option("{split}/JPEGImages/{name}", "folder of a video's frames below the root"),
        "masks": Option("{split}/Annotations/{name}", "folder of a video's masks below the label files"),
    },
)
