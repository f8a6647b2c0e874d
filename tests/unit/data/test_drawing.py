"""Drawings: the timeline and the text that stand below the frames, and masks on them, where they belong."""

import numpy as np
import pytest

from tpo_core.data import rle
from tpo_core.data.drawing import DIM, GIVEN, LABELS, WHITE, sheet
from tpo_core.data.frames import DecodedMedia
from tpo_core.data.sample import Clip, Media, Provenance, Saliency, Sample, Target, TrackEntry, Turn

WIDTH, HEIGHT, FRAMES = 200, 100, 6
TOP = 2 * HEIGHT  # of what stands below the frames, three side by side
MARGIN = 6


def drawn(task: str, targets=(), *, answer="", clip=None, turns=None, **fields) -> np.ndarray:
    """Pixels (H, W, 3) of a sample on six grey frames of a video of 12 s."""
    refs = tuple(range(len(targets)))
    sample = Sample(
        sample_id="own/train/a",
        dataset="own",
        split="train",
        task=task,
        media=(Media("a.mp4", "video", clip_s=clip),),
        turns=turns or (Turn("user", "Q", (0,)), Turn("assistant", answer, (), refs)),
        provenance=Provenance("train.jsonl", 0, "a", "jsonl"),
        targets=tuple(targets),
        **fields,
    )
    frames = np.full((FRAMES, HEIGHT, WIDTH, 3), 128, np.uint8)
    index = np.arange(FRAMES) * 20 + 10
    media = DecodedMedia(frames, None, index, index / 10, 120, 10.0, 12.0, WIDTH, HEIGHT, WIDTH, HEIGHT, "test")
    return np.asarray(sheet(sample, media)).astype(int)


def share_of(pixels: np.ndarray, colour: tuple[int, int, int]) -> tuple[float, float] | None:
    """Where a colour begins and ends, as shares of the timeline's width."""
    columns = np.flatnonzero((pixels == colour).all(-1).any(0))
    length = pixels.shape[1] - 2 * MARGIN - 1
    return None if not columns.size else ((columns[0] - MARGIN) / length, (columns[-1] - MARGIN) / length)


def bars(pixels: np.ndarray, row: int) -> np.ndarray:
    """The lower edge of a row of the timeline, which no text reaches into."""
    return pixels[TOP + 19 * row + MARGIN + 16][None]


@pytest.mark.parametrize("clip", [None, Clip(2.0, 8.0)])
def test_each_moment_has_a_row_and_a_colour_on_the_timeline_of_the_sample(clip):
    length = 12.0 if clip is None else 6.0
    targets = [Target("span", label="one", span_s=(0, length / 4)), Target("span", span_s=(length / 2, length))]
    pixels = drawn("dense_caption", targets, clip=clip)
    assert share_of(bars(pixels, 1), LABELS[0]) == pytest.approx((0.0, 0.25), abs=0.01)
    assert share_of(bars(pixels, 2), LABELS[1]) == pytest.approx((0.5, 1.0), abs=0.01)


def test_an_instant_is_a_tick():
    begin, end = share_of(bars(drawn("dense_caption", [Target("point", span_s=(6.0, 6.0))]), 1), LABELS[0])
    assert begin == pytest.approx(0.5, abs=0.01)
    assert end - begin < 0.02


def test_highlights_are_bars_as_high_as_their_scores():
    saliency = Saliency(4.0, (0, 2), ((2, 2), (4, 4)))
    pixels = drawn("highlight", [Target("saliency", saliency=saliency)])
    heights = (pixels[TOP + 19 :] == LABELS[0]).all(-1).sum(0)
    low, none, high = (heights[int(pixels.shape[1] * share)] for share in (0.16, 0.5, 0.84))
    assert none == 0
    assert high == pytest.approx(2 * low, abs=1)


def test_a_long_list_of_moments_is_shortened():
    targets = [Target("span", label=f"{k}", span_s=(k / 10, k / 10 + 1)) for k in range(40)]
    assert drawn("dense_caption", targets).shape[0] < TOP + 20 * 19


def test_the_right_option_stands_out_among_the_others():
    pixels = drawn("mcq", options=("a cat", "a dog", "a cow"), answer_index=1, answer="a dog")
    brightest = [pixels[TOP + 19 * row + 4 : TOP + 19 * (row + 1) + 2].max((0, 1)) for row in range(5)]
    assert [tuple(colour) for colour in brightest] == [WHITE, DIM, LABELS[0], DIM, WHITE]


@pytest.mark.parametrize("text", ["word " * 80, "x" * 400, "\u5b83 \u2019 \u2014", ""])
def test_any_text_fits_below_the_frames(text):
    pixels = drawn("chat", answer=text)
    assert pixels.shape[1] == 3 * WIDTH
    assert pixels[:, -3:][TOP:].max() == 0
    assert pixels.shape[0] < TOP + 9 * 19


def test_a_mask_is_laid_over_the_frame_it_belongs_to():
    left = np.zeros((HEIGHT, WIDTH), bool)
    left[:, : WIDTH // 2] = True
    entries = (TrackEntry(10, True, rle=rle.encode(left)), TrackEntry(30, False))
    pixels = drawn("mask", [Target("mask", track=entries)])
    assert pixels[50, 50].tolist() == pytest.approx([(128 + level) / 2 for level in LABELS[0]], abs=2)
    assert pixels[50, 150].tolist() == [128] * 3
    assert pixels[50, WIDTH + 50].tolist() == [128] * 3


def test_what_the_question_gives_is_yellow_and_objects_keep_their_colour():
    box = (20.0, 40.0, 60.0, 60.0)
    targets = [
        Target("track", object_id="a", track=(TrackEntry(10, True, box=box), TrackEntry(30, True, box=box))),
        Target("track", object_id="b", track=(TrackEntry(50, True, box=box),)),
        Target("box", object_id="a", box=box, frame=10),
    ]
    turns = (Turn("user", "Follow <track_box>.", (0,), (2,)), Turn("assistant", "There.", (), (0, 1)))
    pixels = drawn("track", targets, turns=turns)
    lower_edge = [tuple(pixels[60, WIDTH * panel + 40]) for panel in range(3)]
    assert lower_edge == [GIVEN, LABELS[0], LABELS[1]]
