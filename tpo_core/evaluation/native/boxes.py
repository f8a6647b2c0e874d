"""Boxes of phrases and of followed objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tpo_core.data.predictions import tracks
from tpo_core.data.readers.got10k import COVER_LEVELS
from tpo_core.data.sample import Box, Sample, TrackEntry
from tpo_core.evaluation.looking import frames_of
from tpo_core.evaluation.native.files import Answered, Benchmark, Files, native_id, raw, write_lines
from tpo_core.evaluation.record import everywhere


def _refcoco(given: Sequence[Answered], folder: Path) -> Files:
    rows = [{"id": native_id(one.sample), "pred_xyxy": one.answer.box and list(one.answer.box)} for one in given]
    return Files(write_lines(folder / "predictions.jsonl", rows))


def _refcoco_truth(asked: Sequence[Sample], folder: Path) -> Files:
    rows = [
        {
            "id": native_id(sample),
            "dataset": sample.dataset,
            "width": sample.media[0].width,
            "height": sample.media[0].height,
            "gt_xywh": raw(sample)["bbox_xywh"],
        }
        for sample in asked
    ]
    return Files(write_lines(folder / "truth.jsonl", rows), {"split": None, "split_by": None})


def _boxes(one: Answered) -> list[Box | None] | None:
    """A box for every frame; None where nothing was answered."""
    frames = frames_of(one.sample)
    found = everywhere(one.answer.boxes or {}, frames)
    return [found[frame] for frame in frames] if found else None


def _entries(sample: Sample) -> list[TrackEntry]:
    """The labels of every frame, in order."""
    return sorted(next(target.track for target in sample.targets if target.track), key=lambda entry: entry.frame)


def _native_lines(sample: Sample) -> str:
    """The boxes of the labels as they were before they were read, but for those of no extent."""
    lines = (tracks.native_line(entry.box, sample.provenance.origin) for entry in _entries(sample))
    return "".join(f"{line}\n" for line in lines)


def _lasot(given: Sequence[Answered], folder: Path) -> Files:
    place = folder / "predictions"
    place.mkdir()
    for one in given:
        boxes = _boxes(one)
        if boxes is not None:
            tracks.write_lasot(str(place), one.sample, boxes)
    return Files(place)


def _lasot_truth(asked: Sequence[Sample], folder: Path) -> Files:
    """As the `annos` folder of its toolkit."""
    place = folder / "truth"
    (place / "absent").mkdir(parents=True)
    for sample in asked:
        name = f"{native_id(sample)}.txt"
        (place / name).write_text(_native_lines(sample))
        (place / "absent" / name).write_text("".join(f"{int(not entry.visible)}\n" for entry in _entries(sample)))
    return Files(place, {"sequences": None})


def _got10k(given: Sequence[Answered], folder: Path) -> Files:
    place = folder / "predictions"
    place.mkdir()
    for one in given:
        boxes = _boxes(one)
        if boxes is not None:
            tracks.write_got10k(str(place), one.sample, boxes, [one.answer.seconds / len(boxes)] * len(boxes))
    return Files(place)


def _got10k_truth(asked: Sequence[Sample], folder: Path) -> Files:
    place = folder / "truth"
    place.mkdir()
    (place / "list.txt").write_text("".join(f"{native_id(sample)}\n" for sample in asked))
    for sample in asked:
        sequence, media = place / native_id(sample), sample.media[0]
        sequence.mkdir()
        (sequence / "groundtruth.txt").write_text(_native_lines(sample))
        (sequence / "cover.label").write_text("".join(f"{_cover(entry)}\n" for entry in _entries(sample)))
        (sequence / "meta_info.ini").write_text(f"[METAINFO]\nresolution: ({media.width}, {media.height})\n")
    return Files(place)


def _cover(entry: TrackEntry) -> int:
    share = 1.0 if entry.visible_ratio is None else entry.visible_ratio
    return round(share * COVER_LEVELS) if entry.visible else 0


REFCOCO = Benchmark(_refcoco, _refcoco_truth, native_id)
LASOT = Benchmark(_lasot, _lasot_truth, native_id)
GOT10K = Benchmark(_got10k, _got10k_truth, native_id)
