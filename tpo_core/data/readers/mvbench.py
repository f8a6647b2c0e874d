"""MVBench: twenty tasks of multiple-choice questions about videos, one file a task.

Format: https://github.com/OpenGVLab/Ask-Anything (video_chat2, MVBENCH.md). Split "test" is every task whose file is
there, in the official order; the name of a file, such as "action_sequence", is a split of that task alone.

- The answer is a text; of equal candidates the LAST is right, as in the official template.
- `start` and `end` (seconds) count for five tasks only and become the clip; the others are asked on the whole video.
- Episodic Reasoning is on folders of JPEG files at 3 fps, numbered from 1: file 1 is at 0 s here, and at 1/3 s where
  the official code turns seconds into file numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tpo_core.data.readers._choices import choice, text_index
from tpo_core.data.readers.base import LABELS, LabelFile, Option, Reader, Reject, mapped
from tpo_core.data.readers.files import below, fill, require, stream_items
from tpo_core.data.sample import Clip, Media, Sample
from tpo_core.storage.uri import exists, join

NAME = "mvbench"
FRAMES_FPS = 3.0
# Folder of a task's media, as in the official list of tasks.
FOLDERS = {
    "action_sequence": "star/Charades_v1_480",
    "action_prediction": "star/Charades_v1_480",
    "action_antonym": "ssv2_video",
    "fine_grained_action": "Moments_in_Time_Raw/videos",
    "unexpected_action": "FunQA_test/test",
    "object_existence": "clevrer/video_validation",
    "object_interaction": "star/Charades_v1_480",
    "object_shuffle": "perception/videos",
    "moving_direction": "clevrer/video_validation",
    "action_localization": "sta/sta_video",
    "scene_transition": "scene_qa/video",
    "action_count": "perception/videos",
    "moving_count": "clevrer/video_validation",
    "moving_attribute": "clevrer/video_validation",
    "state_change": "perception/videos",
    "fine_grained_pose": "nturgbd",
    "character_order": "perception/videos",
    "egocentric_navigation": "vlnqa",
    "episodic_reasoning": "tvqa/frames_fps3_hq",
    "counterfactual_inference": "clevrer/video_validation",
}
BOUNDED = {"action_sequence", "action_prediction", "object_interaction", "action_localization", "episodic_reasoning"}


def task_title(name: str) -> str:
    """ "fine_grained_action" as "Fine-grained Action", the way results are listed."""
    return " ".join(word.capitalize() for word in name.split("_")).replace("Fine Grained", "Fine-grained")


def _media(row: dict[str, Any], task: str, options: Mapping[str, str]) -> Media:
    uri = fill(options["video"], folder=FOLDERS[task], name=row["video"])
    clip = Clip(float(row["start"]), float(row["end"])) if task in BOUNDED else None
    if task == "episodic_reasoning":
        return Media(uri, "frames", fps=FRAMES_FPS, clip_s=clip)
    return Media(uri, "video", clip_s=clip)


def _parse(root: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    folder = below(options["labels"], "json")
    names = [name for name in FOLDERS if exists(join(root, folder, f"{name}.json"))] if split == "test" else [split]
    if not names or split not in {"test", *FOLDERS}:
        require(root, below(folder, f"{next(iter(FOLDERS)) if split == 'test' else split}.json"), NAME)
    for name in names:
        yield from _task(root, below(folder, f"{name}.json"), name, split, options)


def _task(root: str, source: str, name: str, split: str, options: Mapping[str, str]) -> Iterator[Sample | Reject]:
    labels = LabelFile(NAME, split, source, NAME)

    def build(row: dict[str, Any], number: int) -> Iterator[Sample | Reject]:
        candidates = tuple(str(candidate) for candidate in row["candidates"])
        answer = text_index(str(row["answer"]), candidates, last=True)
        raw = {"task_type": task_title(name)}
        media = (_media(row, name, options),)
        yield choice(labels, f"{name}-{number}", number, media, row["question"], candidates, answer, raw=raw)

    yield from mapped(stream_items(root, source, NAME), source, build)


READER = Reader(
    name=NAME,
    summary="MVBench: twenty tasks of multiple-choice questions about videos",
    layout="json/<task>.json, video/<folder of the task>/<video>",
    default_split="test",
    parse=_parse,
    options={
        "labels": LABELS,
        "video": Option("video/{folder}/{name}", "path of a video or frame folder; {folder} is the official one"),
    },
)
