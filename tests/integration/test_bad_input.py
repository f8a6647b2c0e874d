"""Planted faults among good records: the rejects are exactly the planted ones, each with its reason.

Media come through the real decoders, in a child process; Ray has no part in it.
"""

import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from tests.integration.test_preprocess import box_row, config, rejected, run, span_row
from tests.unit.data.test_decode import write_video
from tpo_core.data import rle
from tpo_core.data.loader import load_example
from tpo_core.data.shards import ShardSet

NAN = float("nan")
TWICE = "duplicate_sample_id"
SIZE = (128, 96)  # of the videos of write_video, which last 2.4 s: 24 frames, 10 a second


def damaged_payload(path: Path, first: float, last: float) -> None:
    """Zeroes a share of the media data of an mp4; its header stays whole."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    size = int.from_bytes(data[start - 8 : start - 4], "big") - 8
    begin, end = start + int(first * size), start + int(last * size)
    data[begin:end] = bytes(end - begin)
    path.write_bytes(data)


def cut(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])


def write_sound(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_frames(folder: Path, sizes: list[tuple[int, int]]) -> None:
    folder.mkdir()
    for number, size in enumerate(sizes):
        Image.new("RGB", size, (90, 90, 90)).save(folder / f"{number}.png")


def fast(path: Path) -> Path:
    return write_video(path, options={"movflags": "faststart"})


def then(make: Callable[[Path], object], damage: Callable[[Path], object]) -> Callable[[Path], None]:
    def both(path: Path) -> None:
        make(path)
        damage(path)

    return both


BAD_MEDIA: dict[str, Callable[[Path], object]] = {
    "header-cut.mp4": then(write_video, lambda path: cut(path, 0.6)),
    "cut-early.mp4": then(fast, lambda path: cut(path, 0.1)),
    "cut-half.mp4": then(fast, lambda path: cut(path, 0.5)),
    "cut-late.mp4": then(fast, lambda path: cut(path, 0.9)),
    "zeroed.mp4": then(write_video, lambda path: damaged_payload(path, 0, 1)),
    "zeroed-fast.mp4": then(fast, lambda path: damaged_payload(path, 0, 1)),
    "zeroed-half.mp4": then(write_video, lambda path: damaged_payload(path, 0.5, 1)),
    "empty.mp4": lambda path: path.touch(),
    "sound.mp4": write_sound,
    "text.mp4": lambda path: path.write_text("not a video\n" * 400),
    "noise.mp4": lambda path: path.write_bytes(np.random.default_rng(0).bytes(20_000)),
    "text.jpg": lambda path: path.write_text("not an image"),
    "cut.jpg": then(lambda path: Image.effect_noise((64, 48), 50).save(path), lambda path: cut(path, 0.5)),
    "damaged-frame": then(
        lambda path: write_frames(path, [SIZE] * 4), lambda path: (path / "1.png").write_bytes(b"\x89PNG")
    ),
    "two-sizes": lambda path: write_frames(path, [SIZE, SIZE, (64, 48), SIZE]),
    "no-frames": lambda path: path.mkdir(),
}


REASON_OF = {"no-frames": "media_missing"}  # an empty folder is told as one that is not there


def kind_of_media(name: str) -> str:
    return {"jpg": "image", "png": "image"}.get(name.rpartition(".")[2], "video" if "." in name else "frames")


def write_codec(path: Path, codec: str) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(24):
            frame = av.VideoFrame.from_ndarray(np.full((96, 128, 3), 20 + 8 * number, np.uint8), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


STAMPS = [0, 1, 2, 3, 20, 40, 60, 70]  # tenths of a second
# name: how it is made, width, height, duration in seconds, numbers of the four frames that are kept
GOOD_MEDIA: dict[str, tuple[Callable[[Path], object], int, int, float, list[int]]] = {
    "plain.mp4": (write_video, 128, 96, 2.4, [3, 9, 15, 21]),
    "one-frame.mp4": (lambda path: write_video(path, 1), 128, 96, 0.1, [0]),
    "turned.mp4": (lambda path: write_video(path, rotation=90), 96, 128, 2.4, [3, 9, 15, 21]),
    "upside-down.mp4": (lambda path: write_video(path, rotation=180), 128, 96, 2.4, [3, 9, 15, 21]),
    "variable.mp4": (lambda path: write_video(path, 8, stamps=STAMPS), 128, 96, 8.7, [3, 4, 5, 7]),
    "small.mp4": (lambda path: write_video(path, size=(176, 144)), 176, 144, 2.4, [3, 9, 15, 21]),
    "4k.mp4": (lambda path: write_video(path, 8, size=(3840, 2160)), 3840, 2160, 0.8, [1, 3, 5, 7]),
    "matroska.mkv": (lambda path: write_codec(path, "libx264"), 128, 96, 2.4, [3, 9, 15, 21]),
    "vp9.webm": (lambda path: write_codec(path, "libvpx-vp9"), 128, 96, 2.4, [3, 9, 15, 21]),
    "mpeg4.avi": (lambda path: write_codec(path, "mpeg4"), 128, 96, 2.4, [3, 9, 15, 21]),
}


def mask_row(name: str, rle: dict | None, *, visible: bool = True) -> dict:
    row = box_row(name, video("plain.mp4"))
    entry = {"frame": 3, "visible": visible, "rle": rle}
    turns = [{**row["turns"][0]}, {**row["turns"][1], "text": "There <track_begin><tracking>."}]
    return {**row, "task": "mask", "turns": turns, "targets": [{"kind": "mask", "track": [entry]}]}


def video(name: str, **facts) -> dict:
    return {"uri": name, "kind": "video", **facts}


def boxed(name: str, *box: float, frame: int = 3) -> dict:
    return box_row(name, video("plain.mp4"), box, frame)


def timed(name: str, start_s: float, end_s: float, media: str = "plain.mp4", **facts) -> dict:
    return {**span_row(name, media, (start_s, end_s)), "media": [video(media, **facts)]}


def run_lengths(height: int, width: int) -> dict:
    mask = rle.encode(np.ones((height, width), bool))
    return {"h": mask.h, "w": mask.w, "counts": mask.counts.decode()}


WHOLE = run_lengths(96, 128)
ANNOTATIONS: list[tuple[dict, str | None]] = [
    (timed("good-span", 0.5, 1.5), None),
    (timed("long", 1.0, 9.0), None),  # clipped to the end, as the flag says
    (timed("reversed", 1.5, 0.5), "moment_reversed"),
    (timed("late", 5.0, 6.0), "moment_past_end"),
    (timed("early", -1.0, 1.0), "moment_before_start"),
    (timed("empty", 1.0, 1.0), "moment_empty"),
    (timed("nan-span", NAN, 1.0), "nan"),
    (timed("wrong-fps", 0.5, 1.5, fps=30.0), "fps_mismatch"),
    (timed("right-fps", 0.5, 1.5, fps=10.0), None),
    (boxed("good-box", 4, 4, 20, 20), None),
    (boxed("partly-outside", -3, -3, 20, 20), None),
    (boxed("outside", 128, 0, 140, 20), "box_outside_image"),
    (boxed("inverted", 20, 20, 4, 4), "box_empty"),
    (boxed("nan-box", 4, 4, NAN, 20), "nan"),
    (boxed("no-such-frame", 4, 4, 20, 20, frame=24), "frame_out_of_range"),
    (mask_row("good-mask", WHOLE), None),
    (mask_row("mask-of-another-size", run_lengths(48, 64)), "mask_size_mismatch"),
    (mask_row("unreadable-mask", {**WHOLE, "counts": "0Pa"}), "mask_unreadable"),
    (mask_row("never-there", None, visible=False), "track_never_visible"),
    (timed("twice", 0.5, 1.5), None),
    (timed("twice", 0.6, 1.4), TWICE),
    (span_row("gone", "gone.mp4"), "media_missing"),
    (span_row("escapes", "../own/plain.mp4"), "path_outside_root"),
    ({**box_row("resized", video("plain.mp4", width=64, height=48)), "targets": [{"kind": "box", "box": [1, 1, 9, 9]}]},
     "size_mismatch"),
]  # fmt: skip


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """(output, {sample id: reason}, the result of preprocessing) of all of the above, and of two sources more."""
    root = tmp_path_factory.mktemp("planted")
    own = root / "own"
    own.mkdir()
    for name, make in [*BAD_MEDIA.items(), *((name, made[0]) for name, made in GOOD_MEDIA.items())]:
        make(own / name)
    Image.new("RGB", (64, 48)).save(own / "good.png")
    media = [*BAD_MEDIA, *GOOD_MEDIA, "good.png"]
    rows = [box_row(f"media-{name}", {"uri": name, "kind": kind_of_media(name)}, frame=None) for name in media]
    lines = [json.dumps(row).encode() for row in [*rows, *(row for row, _ in ANNOTATIONS)]]
    lines.append(json.dumps(span_row("latin", "plain.mp4")).replace("When", "Caf\xe9").encode("latin-1"))
    lines.append(b'{"sample_id": "own/half')
    (own / "train.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    (own / "val.jsonl").write_text(json.dumps(span_row("other-set", "plain.mp4", (0.2, 0.4))) + "\n")
    output = tmp_path_factory.mktemp("out") / "set"
    facts, _ = run(root, output, config(reject_budget=0.99))
    return output, rejected(output), facts


def test_the_rejects_are_exactly_the_planted_ones(result):
    _, rows, facts = result
    lines = len(BAD_MEDIA) + len(GOOD_MEDIA) + 1 + len(ANNOTATIONS)
    planted = [(f"own/media-{name}", REASON_OF.get(name, "decode_failed")) for name in BAD_MEDIA]
    planted += [(row["sample_id"], reason) for row, reason in ANNOTATIONS if reason is not None]
    planted += [(f"train.jsonl:{lines + 1}", "text_not_utf8"), (f"train.jsonl:{lines + 2}", "bad_record")]
    assert sorted(map(name_and_reason, rows)) == sorted(planted)
    assert sum(facts["rejected"].values()) == len(planted)


def name_and_reason(row: dict) -> tuple[str, str]:
    """A record that was refused when it was read is named by its line; the text begins with its id if it has one."""
    named = row["sample_id"] or row["detail"].partition(":")[0]
    return (named if named.startswith("own/") else row["uri"]), row["reason"]


@pytest.mark.parametrize("name", GOOD_MEDIA)
def test_the_good_media_come_out_right(result, name):
    _, width, height, duration_s, kept = GOOD_MEDIA[name]
    row = ShardSet.open(result[0]).media(f"own/{name}")
    assert (row.width, row.height) == (width, height)
    assert row.duration_s == pytest.approx(duration_s, abs=0.01)
    assert set(kept) <= set(row.frame_index.tolist())
    frames = row.frames_THWC()
    assert frames.shape[1:3] == (row.stored_height, row.stored_width)
    middle = frames[:, row.stored_height // 2, row.stored_width // 2].astype(int)
    expected = [[20 + 8 * number] * 3 for number in row.frame_index]
    assert np.abs(middle - expected).max() < 8
    if name == "variable.mp4":
        assert row.times_s[np.isin(row.frame_index, kept)] == pytest.approx([0.3, 2.0, 4.0, 7.0])


@pytest.mark.parametrize(("name", "corner"), [("turned.mp4", "side"), ("upside-down.mp4", "bottom right")])
def test_turned_videos_are_upright(result, name, corner):
    """write_video marks the top left corner of the picture as it is coded, in red."""
    frame = ShardSet.open(result[0]).media(f"own/{name}").frames_THWC()[0].astype(int)
    height, width = frame.shape[:2]
    quarters = {
        "top left": frame[:4, :4], "top right": frame[:4, width - 4 :], "bottom left": frame[height - 4 :, :4],
        "bottom right": frame[height - 4 :, width - 4 :],
    }  # fmt: skip
    (red,) = [place for place, part in quarters.items() if (part[..., 0] - part[..., 1]).mean() > 100]
    assert red == corner if corner != "side" else red in ("top right", "bottom left")


def test_what_was_changed_is_told_and_what_is_good_is_as_it_was(result):
    samples = {sample.sample_id: sample for sample in ShardSet.open(result[0]).samples("train")}
    good = {f"own/media-{name}" for name in (*GOOD_MEDIA, "good.png")}
    assert samples.keys() == good | {row["sample_id"] for row, reason in ANNOTATIONS if reason in (None, TWICE)}
    assert samples["own/long"].targets[0].span_s == pytest.approx((1.0, 2.4))
    assert samples["own/long"].provenance.flags == ("end_clipped",)
    assert samples["own/twice"].targets[0].span_s == (0.5, 1.5)  # the first of the two
    assert samples["own/partly-outside"].targets[0].box == (-3, -3, 20, 20)
    assert samples["own/good-mask"].targets[0].track[0].visible


def test_two_data_sets_that_name_a_video_have_it_decoded_once_and_keep_both(result):
    output, _, facts = result
    shards = ShardSet.open(output)
    (other,) = shards.samples("val")
    assert load_example(shards, other).frames_THWC.shape[1:] == (32, 43, 3)
    assert facts["media"] == len(GOOD_MEDIA) + 1
    assert facts["samples"]["val"] == {"temporal": 1}
