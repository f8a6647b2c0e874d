"""Random changes of frames that keep labels and texts true. Nothing is cropped, and a clip changes as a whole.

Brightness and contrast suit every kind. Exchanging left and right suits moments, and boxes of images, whose boxes are
mirrored with the frames; never masks, tracks and conversation, and never a sample whose text may name a side or
something to read. The words are English, so a text with other than ASCII characters is left alone too.
"""

import re
from dataclasses import replace

import numpy as np

from tpo_core.config.augment import AugmentConfig
from tpo_core.data.chance import fractions
from tpo_core.data.example import UNCHANGED, Change, Example
from tpo_core.data.sample import Sample, Target, kind_of

# Referring expressions abbreviate: "lft guy", "r one", "cup at 3 o'clock".
SIDES = (
    r"left\w*|right\w*|l|r|lt|rt|lft|rgt|rght|rite|sides?|sided|sideways|\w*clockwise|o'?clock|east\w*|west\w*"
    "|starboard|port"
)
READABLE = (
    r"texts?|letter(?:s|ed|ing)?|number(?:s|ed)?|numerals?|digits?|words?|wording|sign(?:s|ed|age)?|written|writ(?:e|es|ing)"
    r"|wrote|handwrit\w*|say(?:s|ing)?|said|spell\w*|read(?:s|ing|able)?|label(?:s|ed|led)?|captions?|captioned"
    r"|subtitles?|titles?|titled|print(?:s|ed)?|inscri\w*|initials|alphabet\w*|logos?|licen[cs]e"
)
# "second bus" and "last chair" are counted from a side; moments may well speak of the first or the last second.
COUNTED = "first|second|third|fourth|fifth|last"

_TELLTALE = re.compile(rf"\b(?:{SIDES}|{READABLE})\b|\d|[^\x00-\x7f]", re.IGNORECASE)
_COUNTED = re.compile(rf"\b(?:{COUNTED})\b", re.IGNORECASE)


def draw_change(config: AugmentConfig, sample: Sample, *parts: object) -> Change:
    """The change of a sample; `parts` (seed, phase, number of the micro-batch, place in it) decide what is random."""
    brightness, contrast, flip = fractions(3, *parts, "augment")
    return Change(
        brightness=1 + config.brightness * (2 * brightness - 1),
        contrast=1 + config.contrast * (2 * contrast - 1),
        flip=flip < config.flip and may_flip(sample),
    )


def may_flip(sample: Sample) -> bool:
    """Whether the sample stays true when left and right are exchanged and its boxes mirrored."""
    kind = kind_of(sample)
    if len(sample.media) != 1 or any(target.rle or target.track for target in sample.targets):
        return False
    if kind == "temporal":
        suitable = not any(target.box for target in sample.targets)
    else:
        suitable = kind == "region" and sample.media[0].kind == "image"
    texts = [turn.text for turn in sample.turns]
    if kind == "region" and any(_COUNTED.search(text) for text in texts):
        return False
    return suitable and not any(_TELLTALE.search(text) for text in texts)


def apply_change(example: Example, change: Change) -> Example:
    """The example with changed frames, and mirrored boxes where these were flipped."""
    if change == UNCHANGED or not len(example.frames_THWC):
        return example
    frames, sample = example.frames_THWC, example.sample
    if (change.brightness, change.contrast) != (1.0, 1.0):
        levels = bytearray(frames).translate(level_table(frames, change).tobytes())  # 6 times as fast as table[frames]
        frames = np.frombuffer(levels, np.uint8).reshape(frames.shape)
    if change.flip:
        frames = frames.take(np.arange(frames.shape[2])[::-1], axis=2)  # twice as fast as copying a reversed view
        sample = replace(sample, targets=tuple(mirrored(target, example.width) for target in sample.targets))
    return replace(example, sample=sample, frames_THWC=frames, change=change)


def level_table(frames_THWC: np.ndarray, change: Change) -> np.ndarray:
    """New level (256,) uint8 of each old one. Contrast turns about the mean of the clip, which is exact (a sum of
    integers), so that the table does not depend on how numpy adds."""
    mean = float(frames_THWC.mean(dtype=np.float64))
    levels = ((np.arange(256) - mean) * change.contrast + mean) * change.brightness
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def mirrored(target: Target, width: int) -> Target:
    """The target as it is after the image, `width` pixels wide, was mirrored."""
    if target.box is None:
        return target
    x1, y1, x2, y2 = target.box
    return replace(target, box=(width - x2, y1, width - x1, y2))
