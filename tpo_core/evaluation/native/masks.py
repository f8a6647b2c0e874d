"""Masks of expressions, as a PNG a frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tpo_core.data.predictions import masks
from tpo_core.data.sample import Rle, Sample, answer_targets
from tpo_core.evaluation.looking import frames_of
from tpo_core.evaluation.native.files import Answered, Benchmark, Files, native_id, write_value
from tpo_core.evaluation.record import everywhere


def _masks(given: Sequence[Answered], folder: Path) -> Files:
    place = folder / "predictions"
    place.mkdir()
    for one in given:
        found = everywhere(one.answer.masks or {}, frames_of(one.sample))
        if found:
            masks.write_expression(str(place), one.sample, found)
    return Files(place)


def labels_of(sample: Sample) -> dict[int, Rle | None]:
    """The mask of each frame that carries a label, None where nothing is there."""
    return {entry.frame: entry.rle for target in answer_targets(sample) for entry in target.track or ()}


def frame_names(sample: Sample) -> list[str]:
    """The names of all frames, as the writers of masks have them."""
    names = sample.media[0].frame_names
    return [PurePosixPath(names[frame]).stem if names else f"{frame:05d}" for frame in frames_of(sample)]


def _key(sample: Sample) -> str:
    video, _, expression = native_id(sample).rpartition("-")
    return f"{video}_{expression}"


def _meta(asked: Sequence[Sample], about: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The content of meta_expressions.json; about: what is said of an expression besides its text, by sample id."""
    videos: dict[str, Any] = {}
    for sample in asked:
        video, _, expression = native_id(sample).rpartition("-")
        entry = videos.setdefault(video, {"expressions": {}, "frames": frame_names(sample)})
        text = answer_targets(sample)[0].label
        entry["expressions"][expression] = {"exp": text, **about[sample.sample_id]}
    return {"videos": videos}


def _mevis_truth(asked: Sequence[Sample], folder: Path) -> Files:
    """One mask list an expression: the union of its objects."""
    place, lists = folder / "truth", {}
    for number, sample in enumerate(asked):
        labels = labels_of(sample)
        listed = [labels.get(frame) for frame in frames_of(sample)]
        lists[str(number)] = [mask and {"size": [mask.h, mask.w], "counts": mask.counts.decode()} for mask in listed]
    about = {sample.sample_id: {"anno_id": [number]} for number, sample in enumerate(asked)}
    write_value(place / "mask_dict.json", lists)
    write_value(place / "meta_expressions.json", _meta(asked, about))
    return Files(place)


def _ref_youtube_vos_truth(asked: Sequence[Sample], folder: Path) -> Files:
    place = folder / "truth"
    about = {sample.sample_id: {"obj_id": answer_targets(sample)[0].object_id} for sample in asked}
    write_value(place / "meta_expressions.json", _meta(asked, about))
    videos: dict[str, dict[str | None, Sample]] = {}
    for sample in asked:  # several expressions mean one object
        video = native_id(sample).rpartition("-")[0]
        videos.setdefault(video, {}).setdefault(answer_targets(sample)[0].object_id, sample)
    for video, objects in videos.items():
        masks.write_indices(str(place / "Annotations" / video), [(s, labels_of(s)) for s in objects.values()])
    return Files(place, {"split": "valid"})


MEVIS = Benchmark(_masks, _mevis_truth, _key)
REF_YOUTUBE_VOS = Benchmark(_masks, _ref_youtube_vos_truth, _key)
