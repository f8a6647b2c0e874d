"""MeViS: masks of an expression that may name several objects.

Format: https://github.com/henghuiding/MeViS. The target of an expression is the union of its `anno_id`s. A mask list is
indexed by the POSITION of a frame in `frames`; null, and a mask without pixels, mean absent. Frames lie in a folder of
JPEG files or, by option, in one video per clip, whose k-th frame is the k-th of the list.
The official `valid` split has no masks: it gives samples without targets, flagged "unlabelled".
`mask_dict.json` is one JSON object and is held in memory whole (train: some GB).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tpo_core.data import rle
from tpo_core.data.readers.base import LABELS, Option, Reader, Reject, at, grounded_turns, raw_json
from tpo_core.data.readers.files import below, fill, read_json_file
from tpo_core.data.sample import UNLABELLED, Media, Provenance, Rle, Sample, Target, TrackEntry
from tpo_core.errors import TpoError
from tpo_core.storage.uri import exists, join

NAME = "mevis"
MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError)  # what a record of another shape raises


def _parts(anno_ids: list[int], masks: Mapping[str, Any], n_frames: int) -> Iterator[list[Rle]]:
    """For each frame the masks of the objects that are there."""
    lists = []
    for anno_id in anno_ids:
        per_frame = masks.get(str(anno_id))
        if per_frame is None:
            raise ValueError(f"anno_id {anno_id} is not in mask_dict.json")
        if len(per_frame) != n_frames:
            raise ValueError(f"anno_id {anno_id} has {len(per_frame)} masks for {n_frames} frames")
        lists.append(per_frame)
    for position in range(n_frames):
        shapes = [per_frame[position] for per_frame in lists]
        yield [rle.from_coco(shape, *shape["size"]) for shape in shapes if shape is not None]


def _track(anno_ids: list[int], masks: Mapping[str, Any], n_frames: int) -> tuple[TrackEntry, ...]:
    entries = []
    for frame, parts in enumerate(_parts(anno_ids, masks, n_frames)):
        whole = rle.union(parts) if len(parts) > 1 else next(iter(parts), None)
        box = None if whole is None else rle.bbox(whole)
        visible = box is not None
        entries.append(TrackEntry(frame, visible, box=box, rle=whole if visible else None))
    return tuple(entries)


def _media(video: str, frames: list[str], split: str, options: Mapping[str, str]) -> Media:
    path = fill(options["video" if options["media"] == "mp4" else "frames"], name=video, split=split)
    if options["media"] == "mp4":
        return Media(path, "video", n_frames=len(frames))
    return Media(path, "frames", n_frames=len(frames), frame_names=tuple(f"{frame}.jpg" for frame in frames))


def _sample(
    native_id: str, expression: dict[str, Any], track: tuple[TrackEntry, ...] | None, media: Media, split: str
) -> Sample:
    text = expression["exp"].strip()
    sample_id = f"{NAME}/{split}/{native_id}"
    shown = next((entry.rle for entry in track or () if entry.rle is not None), None)
    if shown is not None:
        media = replace(media, width=shown.w, height=shown.h)
    objects = ",".join(map(str, expression.get("obj_id", [])))
    targets = () if track is None else (Target("track", label=text, object_id=objects, set_rule="union", track=track),)
    return Sample(
        sample_id=sample_id,
        dataset=NAME,
        split=split,
        task="mask",
        media=(media,),
        turns=grounded_turns("mask", text, sample_id, answers=len(targets)),
        targets=targets,
        provenance=Provenance(
            source_file="",
            row=0,
            native_id=native_id,
            reader=NAME,
            raw=raw_json(anno_id=expression.get("anno_id"), obj_id=expression.get("obj_id")),
            flags=() if targets else (UNLABELLED,),
        ),
    )


def _video_samples(
    video: str, entry: dict[str, Any], masks: Mapping[str, Any], split: str, options: Mapping[str, str]
) -> Iterator[Sample | tuple[str, Exception]]:
    tracks: dict[tuple[int, ...], tuple[TrackEntry, ...]] = {}  # expressions of one object share its masks
    try:
        media, expressions = _media(video, entry["frames"], split, options), entry["expressions"].items()
    except MALFORMED as error:
        yield video, error
        return
    for number, expression in expressions:
        native_id = f"{video}-{number}"
        try:
            ids = tuple(expression.get("anno_id") or ())
            if ids and ids not in tracks:
                tracks[ids] = _track(list(ids), masks, len(entry["frames"]))
            yield _sample(native_id, expression, tracks.get(ids), media, split)
        except MALFORMED as error:
            yield native_id, error


def _names_masks(entry: Any) -> bool:
    """Whether an expression of a video has masks; a video of another shape has none, and is rejected when read."""
    expressions = entry.get("expressions") if isinstance(entry, dict) else None
    each = expressions.values() if isinstance(expressions, dict) else ()
    return any(isinstance(expression, dict) and expression.get("anno_id") for expression in each)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    folder = below(options["labels"], split)
    source = below(folder, "meta_expressions.json")
    content = read_json_file(root, source, NAME)
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise TpoError(f"{NAME}: {source} has no `videos`; is it the meta_expressions.json of MeViS?")
    mask_file = below(folder, "mask_dict.json")
    labelled = any(map(_names_masks, videos.values()))
    masks = read_json_file(root, mask_file, NAME) if labelled or exists(join(root, mask_file)) else {}
    row = 0
    for video, entry in videos.items():
        for item in _video_samples(video, entry, masks, split, options):
            if isinstance(item, Sample):
                yield replace(item, provenance=replace(item.provenance, source_file=source, row=row))
            else:
                yield Reject(at(source, row), "bad_record", f"{item[0]}: {type(item[1]).__name__}: {item[1]}")
            row += 1


READER = Reader(
    name=NAME,
    summary="MeViS: masks of a motion expression through a video",
    layout="{split}/meta_expressions.json, {split}/mask_dict.json, {split}/JPEGImages/<video>/<frame>.jpg",
    default_split="train",
    parse=_parse,
    options={
        "labels": LABELS,
        "media": Option("frames", "frames: folders of JPEG files; mp4: one video file a clip", ("frames", "mp4")),
        "frames": Option("{split}/JPEGImages/{name}", "folder of a clip's frames below the root"),
        "video": Option("{split}/videos/{name}.mp4", "path of a clip's video below the root"),
    },
)
