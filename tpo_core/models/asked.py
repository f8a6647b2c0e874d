"""What a sample asks for: the phrase, and the frame that it speaks of."""

import numpy as np

from tpo_core.data.example import Example
from tpo_core.data.sample import Sample, answer_targets, prompt_boxes


def query_of(sample: Sample) -> str:
    """What a sample asks for, in words: the phrase of its first target, else the last thing that the user says."""
    labels = [target.label for target in answer_targets(sample) if target.label]
    said = [turn.text for turn in sample.turns if turn.role == "user"]
    return next(iter([*labels, *reversed(said)]), "")


def prompt_frame(example: Example) -> int:
    """The place, among the stored frames, of the frame on which the question gives a box; 0 where it gives none."""
    frames = [target.frame for target in prompt_boxes(example.sample) if target.frame is not None]
    places = np.flatnonzero(np.isin(example.frame_index, frames[:1]))
    return int(places[0]) if len(places) else 0
