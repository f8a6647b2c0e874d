"""Samples with a known truth, their shard set, and a model that answers as it is told."""

import io
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.media_files import write_media
from tpo_core.data.example import Example
from tpo_core.data.record import Media, Provenance, Sample, Target, TrackEntry, Turn
from tpo_core.data.rle import encode
from tpo_core.data.shards import ShardSet, write_manifest, write_samples
from tpo_core.heads.base import BoxPrediction, MaskPrediction, SpanPrediction
from tpo_core.models.tpo import Answer

WIDTH, HEIGHT, DURATION_S = 40, 30, 8.0
FRAMES = [0, 4, 8, 12]  # of the original, stored
TIMES_S = [1.0, 3.0, 5.0, 7.0]
BOX, SPAN_S = (4.0, 3.0, 20.0, 15.0), (2.0, 6.0)
QUESTION, ANSWER = "What colour is the ball?", "red"
OPTIONS = ("blue", "red", "green")
TASK_OF = {
    "region": "box", "moment": "span", "mask": "mask", "track": "track", "qa": "chat", "choice": "mcq",
    "caption": "caption",
}  # fmt: skip
HEAD_OF = {"region": "region", "moment": "temporal", "mask": "mask", "track": "mask"}


def true_mask() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[3:15, 4:20] = True
    return mask


def targets_of(task: str) -> tuple[Target, ...]:
    """The object is there on the first three of the four stored frames."""
    if task == "region":
        return (Target("box", box=BOX, frame=0),)
    if task == "moment":
        return (Target("span", span_s=SPAN_S),)
    label = {"rle": encode(true_mask())} if task == "mask" else {"box": BOX}
    there = [TrackEntry(frame, True, **label) for frame in FRAMES[:3]]
    return (Target("track", track=(*there, TrackEntry(FRAMES[3], False))),) if task in ("mask", "track") else ()


def make_sample(task: str, number: int = 0, *, dataset: str = "tiny", answer: str = ANSWER) -> Sample:
    """A sample of a measured task on a video of its own."""
    targets = targets_of(task)
    uri = f"{dataset}/{task}-{number}.mp4"
    options = {"options": OPTIONS, "answer_index": OPTIONS.index(ANSWER), "answer_text": ANSWER}
    return Sample(
        sample_id=f"{dataset}/val/{task}-{number}",
        dataset=dataset,
        split="val",
        task=TASK_OF[task],
        media=(Media(uri, "video", WIDTH, HEIGHT, fps=2.0, n_frames=16, duration_s=DURATION_S),),
        turns=(Turn("user", QUESTION, (0,)), Turn("assistant", answer, (), tuple(range(len(targets))))),
        targets=targets,
        provenance=Provenance("tiny.json", number, str(number), "tiny"),
        **(options if task == "choice" else {}),
    )


def make_example(task: str, **sample) -> Example:
    frames = np.full((len(FRAMES), HEIGHT, WIDTH, 3), 90, np.uint8)
    made = make_sample(task, **sample)
    return Example(made, frames, np.array(TIMES_S), np.array(FRAMES, np.int64), WIDTH, HEIGHT, DURATION_S)


def prediction_of(head: str, box=BOX):
    """What a head says: the truth, unless another box is given; for masks the truth is there on every frame."""
    if head == "region":
        return BoxPrediction(torch.tensor(box))
    if head == "temporal":
        return SpanPrediction(torch.tensor([SPAN_S, (0.0, 8.0)]), torch.tensor([0.9, 0.1]))
    masks = np.tile(true_mask(), (len(FRAMES), 1, 1))
    return MaskPrediction(torch.from_numpy(masks), torch.tensor([box] * len(FRAMES)), torch.ones(len(FRAMES)))


def answer_with(*heads: str, text: str = "Answer:", own: tuple[str, ...] = ("region", "temporal", "mask")) -> Answer:
    """An answer that calls `heads`, of a model that has the heads `own`."""
    return Answer(text, [], [(head, prediction_of(head)) for head in heads if head in own], list(heads))


def right_answer(example: Example) -> Answer:
    """The right head with the truth, or the right words."""
    task = next(task for task, name in TASK_OF.items() if name == example.sample.task)
    return answer_with(HEAD_OF[task]) if task in HEAD_OF else answer_with(text="B)" if task == "choice" else ANSWER)


@dataclass
class FakeModel:
    """Answers by a function of the example; remembers the size of each batch and the media asked for."""

    reply: Callable[[Example], Answer] = right_answer
    heads: Collection[str] = ("region", "temporal", "mask")
    batches: list[int] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.heads = dict.fromkeys(self.heads)

    def chat(self, examples: list[Example], max_new_tokens: int) -> list[Answer]:
        self.batches.append(len(examples))
        self.asked += [example.sample.media[0].uri for example in examples]
        return [self.reply(example) for example in examples]


def media_row(sample: Sample) -> dict:
    buffer = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (90, 90, 90)).save(buffer, "JPEG")
    return {
        "uri": sample.media[0].uri, "kind": "video", "width": WIDTH, "height": HEIGHT, "stored_width": WIDTH,
        "stored_height": HEIGHT, "n_frames": 16, "fps": 2.0, "duration_s": DURATION_S, "frame_index": FRAMES,
        "frame_times_s": TIMES_S, "frames": [buffer.getvalue()] * len(FRAMES), "decoder": "decord",
    }  # fmt: skip


def write_shards(root: Path, parts: dict[str, list[Sample]]) -> Path:
    """A finished shard set with these samples."""
    everything = {sample.media[0].uri: sample for samples in parts.values() for sample in samples}
    files = write_media(root, map(media_row, everything.values()))
    for part, samples in parts.items():
        files |= write_samples(root, part, samples)
    write_manifest(root, {"files": files, "counts": {part: {"all": {"tiny": len(s)}} for part, s in parts.items()}})
    return root


@pytest.fixture(scope="session")
def shards_path(tmp_path_factory) -> Path:
    """Three samples of each task in `train` and in `val`, none of them in both."""
    parts = {
        part: [make_sample(task, number, dataset=part) for task in TASK_OF for number in range(3)]
        for part in ("train", "val")
    }
    return write_shards(tmp_path_factory.mktemp("shards"), parts)


@pytest.fixture
def shards(shards_path) -> ShardSet:
    return ShardSet.open(shards_path)
