"""Writes the quick-start clips as h264 files with labels in the big datasets' formats: one ground truth, many formats.

Layout below the output, one folder a part, so that every reader meets what it would meet in the wild:

    <part>/videos/<clip>.mp4                                       every clip once, named by all video formats
    <part>/refcoco/{refs(unc).p,instances.json}, <part>/images/train2014/COCO_train2014_*.jpg
    <part>/charades/charades_sta_<split>.txt, Charades_v1_<split>.csv      moments of even clips
    <part>/qvhighlights/highlight_<split>_release.jsonl                    moments of odd clips
    <part>/mevis/<split>/{meta_expressions.json,mask_dict.json}            masks by expression
    <part>/got10k/<split>/<clip>/{groundtruth.txt,absence.label,...}       tracks
    <part>/videochat2_it/{captions,conversations,questions}.json           conversation
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from tpo_core.config.schema import GeneratorConfig
from tpo_core.data import rle
from tpo_core.data.quickstart import language
from tpo_core.data.quickstart.draw import render
from tpo_core.data.quickstart.real import write_real
from tpo_core.data.quickstart.world import FPS, SIDE_PX, Clip, sample_clip

# Seeds of the parts lie far apart: disjoint for any clip count below ten million.
_PART_OFFSET = {"train": 0, "val": 10_000_000, "test": 20_000_000, "unseen": 30_000_000}
_TURNS_A_CONVERSATION = 6
_CLIPS_A_CAPTION = 5  # captions are five times as long as all answers of a talk, and would crowd them out
_QUESTIONS_A_CLIP = 3
_MIN_VISIBLE_PX = 60  # an object this small (of 9,216 px) is no fair target of a region question


@dataclass(frozen=True)
class Labels:
    """One clip's truth, reduced to what the formats need; boxes xyxy pixels, half-open; None where not visible."""

    clip: Clip
    boxes: list[list[tuple[float, float, float, float] | None]]
    rles: list[list[dict[str, Any] | None]]
    image_frame: int
    image_jpeg: bytes
    captions: list[str]
    conversation: list[language.Question]


def write_quickstart(config: GeneratorConfig, output: Path, echo: Callable[[str], None]) -> dict[str, int]:
    """Writes all parts below `output` with two processes (under a minute for 2,600 clips); returns the clips a part."""
    counts = {part: int(getattr(config, f"{part}_clips")) for part in _PART_OFFSET}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        for part, count in counts.items():
            folder = output / part
            (folder / "videos").mkdir(parents=True, exist_ok=True)
            jobs = [(config.seed, part, number, folder / "videos") for number in range(count)]
            labels = list(pool.map(_make_clip, jobs, chunksize=16))
            for write in (_write_refcoco, _write_moments, _write_mevis, _write_got10k, _write_chat):
                write(labels, folder, native_split(part))
            echo(f"quick-start data: {part}: {count} clips")
    write_real(output / "real", echo)
    return counts


def native_split(part: str) -> str:
    """The split name inside a part's folder: `train`, or `val` for every held-out part."""
    return "train" if part == "train" else "val"


def _make_clip(job: tuple[int, str, int, Path]) -> Labels:
    seed, part, number, videos = job
    clip_seed = seed * 1_000 + _PART_OFFSET[part] + number
    clip = sample_clip(f"{part}{number:05d}_0.0_1.5", clip_seed, unseen=part == "unseen")
    frames, masks = render(clip)
    encode_mp4(videos / f"{clip.clip_id}.mp4", frames, FPS)
    rng = np.random.default_rng([clip_seed, 1])
    asked = language.questions(clip, rng)
    picked = rng.permutation(len(asked))[:_TURNS_A_CONVERSATION]
    image_frame = int(rng.integers(clip.n_frames))
    return Labels(
        clip=clip,
        boxes=[[_tight_box(mask) for mask in thing] for thing in masks],
        rles=[[_coco_rle(mask) if mask.any() else None for mask in thing] for thing in masks],
        image_frame=image_frame,
        image_jpeg=_jpeg(frames[image_frame]),
        captions=[language.caption(clip, rng)],
        conversation=[asked[i] for i in picked],
    )


def encode_mp4(path: Path, frames_THWC: np.ndarray, fps: float) -> None:
    """An h264 file (yuv420p, crf 12) of uint8 frames, written aside first: a cut-off file never has the final name."""
    partial = path.with_suffix(".partial")
    with av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264", rate=round(fps), options={"crf": "12", "preset": "ultrafast", "threads": "1"}
        )
        stream.height, stream.width, stream.pix_fmt = frames_THWC.shape[1], frames_THWC.shape[2], "yuv420p"
        for frame in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    partial.rename(path)


def _tight_box(mask: np.ndarray) -> tuple[float, float, float, float] | None:
    if mask.sum() < 1:
        return None
    ys, xs = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)


def _coco_rle(mask: np.ndarray) -> dict[str, Any]:
    return {"size": [SIDE_PX, SIDE_PX], "counts": rle.encode(mask).counts.decode("ascii")}


def _jpeg(frame: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def _write_refcoco(labels: list[Labels], folder: Path, split: str) -> None:
    """refer layout: one image a clip, one ref a visible thing; the polygon of an instance is its box."""
    images = folder / "images" / "train2014"
    images.mkdir(parents=True, exist_ok=True)
    refs: list[dict[str, Any]] = []
    instances: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": 1, "name": "object"}],
    }
    for image_id, label in enumerate(labels, start=1):
        name = f"COCO_train2014_{image_id:012d}.jpg"
        (images / name).write_bytes(label.image_jpeg)
        instances["images"].append({"id": image_id, "file_name": name, "width": SIDE_PX, "height": SIDE_PX})
        for thing, box in _region_targets(label):
            annotation_id = len(instances["annotations"]) + 1
            instances["annotations"].append(_coco_annotation(annotation_id, image_id, box))
            refs.append(_ref(len(refs), annotation_id, image_id, name, split, label.clip.things[thing].name))
    (folder / "refcoco").mkdir(exist_ok=True)
    (folder / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(refs, protocol=2))
    (folder / "refcoco" / "instances.json").write_text(json.dumps(instances))


def _region_targets(label: Labels) -> Iterator[tuple[int, tuple[float, float, float, float]]]:
    for thing in range(len(label.clip.things)):
        box = label.boxes[thing][label.image_frame]
        if box is not None and (box[2] - box[0]) * (box[3] - box[1]) >= _MIN_VISIBLE_PX:
            yield thing, box


def _coco_annotation(annotation_id: int, image_id: int, box: tuple[float, float, float, float]) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "area": (x1 - x0) * (y1 - y0),
        "iscrowd": 0,
        "segmentation": [[x0, y0, x1, y0, x1, y1, x0, y1]],
    }


def _ref(number: int, annotation_id: int, image_id: int, file_name: str, split: str, name: str) -> dict[str, Any]:
    said = f"the {name}"
    sentences = [{"sent_id": number, "sent": said, "raw": said, "tokens": said.split()}]
    return {
        "ref_id": number,
        "ann_id": annotation_id,
        "image_id": image_id,
        "category_id": 1,
        "file_name": file_name.replace(".jpg", f"_{number}.jpg"),
        "split": split,
        "sent_ids": [s["sent_id"] for s in sentences],
        "sentences": sentences,
    }


def _write_moments(labels: list[Labels], folder: Path, split: str) -> None:
    """Even clips as Charades-STA (text and durations), odd ones as QVHighlights (whole-clip saliency, one window)."""
    charades: list[str] = []
    durations: list[dict[str, str]] = []
    highlights: list[dict[str, Any]] = []
    for number, label in enumerate(labels):
        clip = label.clip
        if number % 2 == 0:
            durations.append({"id": clip.clip_id, "length": f"{clip.duration_s:.2f}"})
        for index, event in enumerate(clip.events):
            start_s, end_s = event.span_s()
            query = language.event_query(clip, index)
            if number % 2 == 0:
                charades.append(f"{clip.clip_id} {start_s} {end_s}##{query}.")
                continue
            highlights.append(
                {
                    "qid": len(highlights),
                    "query": query,
                    "duration": clip.duration_s,
                    "vid": clip.clip_id,
                    "relevant_windows": [[start_s, end_s]],
                    "relevant_clip_ids": [0],  # clips of 2 s: the format's grid is coarser than these videos
                    "saliency_scores": [[4, 4, 4]],
                }
            )
    charades_split = "train" if split == "train" else "test"
    (folder / "charades").mkdir(exist_ok=True)
    _write_lines(folder / "charades" / f"charades_sta_{charades_split}.txt", charades)
    with (folder / "charades" / f"Charades_v1_{charades_split}.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, ["id", "length"])
        table.writeheader()
        table.writerows(durations)
    (folder / "qvhighlights").mkdir(exist_ok=True)
    _write_lines(folder / "qvhighlights" / f"highlight_{split}_release.jsonl", [json.dumps(row) for row in highlights])


def _write_mevis(labels: list[Labels], folder: Path, split: str) -> None:
    videos: dict[str, Any] = {}
    masks: dict[str, list[dict[str, Any] | None]] = {}
    for label in labels:
        expressions = {}
        for thing in range(len(label.clip.things)):
            annotation = len(masks)
            masks[str(annotation)] = label.rles[thing]
            text = language.expression(label.clip, thing, motion=annotation % 4 == 0)
            expressions[str(thing)] = {"exp": text, "obj_id": [thing], "anno_id": [annotation]}
        names = [f"{t:05d}" for t in range(label.clip.n_frames)]
        videos[label.clip.clip_id] = {"expressions": expressions, "frames": names}
    root = folder / "mevis" / split
    root.mkdir(parents=True, exist_ok=True)
    (root / "meta_expressions.json").write_text(json.dumps({"videos": videos}))
    (root / "mask_dict.json").write_text(json.dumps(masks))


def _write_got10k(labels: list[Labels], folder: Path, split: str) -> None:
    """The first thing seen on frame 0 of each clip; 1-based boxes, absent frames all zero with `absence.label` 1."""
    root = folder / "got10k" / split
    names = []
    for label in labels:
        thing = next((i for i, boxes in enumerate(label.boxes) if boxes[0] is not None), None)
        if thing is None:
            continue
        boxes = label.boxes[thing]
        sequence = root / label.clip.clip_id
        sequence.mkdir(parents=True, exist_ok=True)
        _write_lines(sequence / "groundtruth.txt", [_one_based(box) for box in boxes])
        _write_lines(sequence / "absence.label", [str(int(box is None)) for box in boxes])
        _write_lines(sequence / "cover.label", [str(0 if box is None else 8) for box in boxes])
        meta = ["[METAINFO]", f"url: {label.clip.clip_id}", f"resolution: ({SIDE_PX}, {SIDE_PX})", "anno_fps: 8Hz"]
        _write_lines(sequence / "meta_info.ini", [*meta, f"object_class: {label.clip.things[thing].name}"])
        names.append(label.clip.clip_id)
    _write_lines(root / "list.txt", names)


def _one_based(box: tuple[float, float, float, float] | None) -> str:
    if box is None:
        return "0.0000,0.0000,0.0000,0.0000"
    x0, y0, x1, y1 = box
    return f"{x0 + 1:.4f},{y0 + 1:.4f},{x1 - x0:.4f},{y1 - y0:.4f}"


def _write_chat(labels: list[Labels], folder: Path, split: str) -> None:
    """A conversation of each clip, its first questions once more, each by itself, and a caption of each fifth clip."""
    captions: list[dict[str, Any]] = []
    conversations: list[dict[str, Any]] = []
    questions: list[dict[str, Any]] = []
    for number, label in enumerate(labels):
        video = f"{label.clip.clip_id}.mp4"
        if number % _CLIPS_A_CAPTION == 0:
            request = language.CAPTION_REQUESTS[len(captions) % len(language.CAPTION_REQUESTS)]
            captions.append({"video": video, "QA": [{"i": request, "q": "", "a": label.captions[0]}]})
        talk = [{"i": "", "q": question.text, "a": question.answer} for question in label.conversation]
        conversations.append({"video": video, "QA": talk})
        questions += [{"video": video, "QA": [pair]} for pair in talk[:_QUESTIONS_A_CLIP]]
    root = folder / "videochat2_it"
    root.mkdir(exist_ok=True)
    (root / "captions.json").write_text(json.dumps(captions))
    (root / "conversations.json").write_text(json.dumps(conversations))
    (root / "questions.json").write_text(json.dumps(questions))


def _write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
