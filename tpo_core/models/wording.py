"""Boxes, moments and masks written out as numbers in the text, for a model without heads.

This is how pixel-to-sequence methods teach localisation, and what task tokens are compared with. All of it is text that
the tokenizer of the base model can spell already:

- a box is `[12, 34, 56, 78]`: x0, y0, x1, y1 in hundredths of the width and height, two digits each, 00 to 99, each
  number the cell that holds the coordinate;
- a moment is `0.38 to 0.88`, in seconds, with two decimals in clips of less than ten seconds, else one; several are
  joined by `and`;
- a mask or track is its box on KEY_FRAMES stored frames at equal distances, from the first to the last; `none` where
  the object is absent.

The sentence around them is that of the task (`instructions.yaml`); the numbers stand where the task tokens stand.
`tpo_core/evaluation/spoken.py` reads them back.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import cycle

import numpy as np
import torch
from torch import Tensor

from tpo_core.data.example import Example
from tpo_core.data.record import Turn
from tpo_core.data.sample import ANSWER_MARKER, TRACK_BOX, answer_targets, kind_of, prompt_boxes
from tpo_core.errors import TpoError
from tpo_core.models.targets import fractions, mask_one, temporal_one

CELLS = 100
KEY_FRAMES = 3
ABSENT = "none"
SHORT_CLIP_S = 10.0


def worded(example: Example, turns: Sequence[Turn]) -> list[Turn]:
    """The turns with numbers where task tokens stood: in answers the markers of the sample's kind, in questions
    `<track_box>`. Turns without them, and what people wrote themselves, stay as they are.

    Raises TpoError for a mask or track of which no stored frame carries a label.
    """
    marker = ANSWER_MARKER.get(kind_of(example.sample))
    given = (box_text(fractions(target.box, example)) for target in prompt_boxes(example.sample) if target.box)
    labels: Iterator[str] | None = None
    found = []
    for turn in turns:
        if turn.role == "user" and turn.target_refs:
            turn = replace(turn, text=filled(turn.text, TRACK_BOX, given, len(turn.target_refs)), target_refs=())
        elif turn.role == "assistant" and marker is not None and marker in turn.text:
            labels = labels or cycle(label_texts(example))
            turn = replace(turn, text=filled(turn.text, marker, labels, turn.text.count(marker)))
        found.append(turn)
    return found


def filled(text: str, mark: str, texts: Iterator[str], count: int) -> str:
    """`text` with the next of `texts` for each of its first `count` marks; marks stay when there are no more texts."""
    for _ in range(count):
        text = text.replace(mark, next(texts, mark), 1)
    return text


def label_texts(example: Example) -> list[str]:
    """What the answer of a sample has to say, in numbers: a text for each box, or one for all moments or a mask."""
    kind = kind_of(example.sample)
    if kind == "region":
        return [box_text(fractions(target.box, example)) for target in answer_targets(example.sample) if target.box]
    if kind == "temporal":
        spans_s = temporal_one(example, 1) * example.duration_s
        return [" and ".join(span_text(span_s, example.duration_s) for span_s in spans_s) or ABSENT]
    return [" ".join(_key_boxes(example))]


def box_text(box_4: Tensor) -> str:
    """xyxy fractions (4,) as `[12, 34, 56, 78]`."""
    cells = (box_4.clamp(0, 1) * CELLS).floor().clamp(max=CELLS - 1).int().tolist()
    return f"[{', '.join(f'{cell:02d}' for cell in cells)}]"


def span_text(span_s: Tensor, duration_s: float) -> str:
    """Start and end (2,) in seconds as `0.38 to 0.88`."""
    decimals = 2 if duration_s < SHORT_CLIP_S else 1
    start, end = span_s.tolist()
    return f"{start:.{decimals}f} to {end:.{decimals}f}"


def key_places(n_frames: int) -> np.ndarray:
    """Places, among n_frames stored frames, of those on which a mask is written out; (KEY_FRAMES,) int, rising."""
    return np.linspace(0, n_frames - 1, KEY_FRAMES).round().astype(int)


def _key_boxes(example: Example) -> Iterator[str]:
    """The box of each key frame; of one without a label, that of the nearest labelled frame."""
    _, valid_T, _, boxes_T4 = mask_one(example, 1)
    labelled = torch.nonzero(valid_T)[:, 0].numpy()
    if not len(labelled):
        raise TpoError(
            f"{example.sample.sample_id}: no stored frame carries a label that could be written out: leave its data set"
            " out of the phases (datasets), or keep more frames (data.frames.n_frames)"
        )
    for place in key_places(len(valid_T)):
        box_4 = boxes_T4[labelled[np.abs(labelled - place).argmin()]]
        yield ABSENT if box_4.isnan().any() else box_text(box_4)
