"""MeViS: masks of an expression that may name several objects.

Format: https://github.com/henghuiding/MeViS. The target of an expression is the union of its `anno_id`s. A mask list is
indexed by the POSITION of a frame in `frames`; null, and a mask without pixels, mean absent. Frames lie in a folder of
JPEG files or, by option, in one video per clip, whose k-th frame is the k-th of the list.
The official `valid` split has no masks: it gives samples without targets, flagged "unlabelled".

`mask_dict.json` (train: some GB) is read once, mask list by mask list. A video's samples come as soon as its last list
is read, and its lists are dropped then; lists that no expression names are dropped at once. So the lists of the videos
that are begun and not complete are held: of one video where the lists of a video follow one another, in any order.
Samples come in that order, videos without masks first, videos that lack a list last.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from tpo_core.data import rle
from tpo_core.data.readers._masks import Expression, expressions_of
from tpo_core.data.readers._tracks import guarded
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject
from tpo_core.data.readers.files import below, fill, read_json_file, stream_pairs
from tpo_core.data.sample import UNLABELLED, Media, Rle, Sample, Target, TrackEntry
from tpo_core.errors import TpoError

NAME = "mevis"


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


def _anno_ids(expression: Expression) -> tuple[int, ...]:
    return tuple(expression.content.get("anno_id") or ())


def _samples(
    labels: LabelFile, expression: Expression, masks: Mapping[str, Any], tracks: dict, options: Mapping[str, str]
) -> Iterator[Sample]:
    """`tracks` keeps those of the video, since expressions of one object share its masks."""
    text, ids = expression.content["exp"].strip(), _anno_ids(expression)
    if ids and ids not in tracks:
        tracks[ids] = _track(list(ids), masks, len(expression.frames))
    track: tuple[TrackEntry, ...] = tracks.get(ids, ())
    media = _media(expression.video, expression.frames, labels.split, options)
    shown = next((entry.rle for entry in track if entry.rle is not None), None)
    if shown is not None:
        media = replace(media, width=shown.w, height=shown.h)
    objects = expression.content.get("obj_id", [])
    target = Target("track", label=text, object_id=",".join(map(str, objects)), set_rule="union", track=track)
    raw = {"anno_id": expression.content.get("anno_id"), "obj_id": expression.content.get("obj_id")}
    targets, flags = ((target,), ()) if track else ((), (UNLABELLED,))
    yield labels.grounded("mask", text, expression.name, expression.row, media, targets, raw=raw, flags=flags)


def _complete(wanted: dict[str, set[str]], lists: Iterator[tuple[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each video with the mask lists that it wants, as soon as they are read; with fewer where the file lacks some."""
    users: dict[str, list[str]] = {}
    for video, ids in wanted.items():
        for anno_id in ids:
            users.setdefault(anno_id, []).append(video)
    held: dict[str, dict[str, Any]] = {video: {} for video in wanted}
    for anno_id, per_frame in lists:
        for video in [video for video in users.get(anno_id, ()) if video in held]:
            held[video][anno_id] = per_frame
            if len(held[video]) == len(wanted[video]):
                yield video, held.pop(video)
    yield from held.items()


def _wanted(expressions: list[Expression]) -> set[str]:
    """The mask lists of a video, as the keys of mask_dict.json; of expressions of another shape none."""
    lists = [each.content.get("anno_id") for each in expressions if isinstance(each.content, dict)]
    return {str(anno_id) for ids in lists if isinstance(ids, list) for anno_id in ids}


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    folder = below(options["labels"], split)
    labels = LabelFile(NAME, split, below(folder, "meta_expressions.json"), NAME)
    content = read_json_file(root, labels.source, NAME)
    videos = content.get("videos") if isinstance(content, dict) else None
    if not isinstance(videos, dict):
        raise TpoError(f"{NAME}: {labels.source} has no `videos`; is it the meta_expressions.json of MeViS?")
    by_video: dict[str, list[Expression]] = {}
    for expression in expressions_of(videos.items()):
        by_video.setdefault(expression.video, []).append(expression)
    needs = {video: _wanted(each) for video, each in by_video.items()}
    plain: list[tuple[str, dict[str, Any]]] = [(video, {}) for video, ids in needs.items() if not ids]
    wanted = {video: ids for video, ids in needs.items() if ids}
    lists = stream_pairs(root, below(folder, "mask_dict.json"), NAME) if wanted else iter(())
    for video, masks in chain(plain, _complete(wanted, lists)):
        tracks: dict[tuple[int, ...], tuple[TrackEntry, ...]] = {}
        for each in by_video.pop(video):
            yield from guarded(_samples(labels, each, masks, tracks, options), labels.source, each.row, each.name)


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
