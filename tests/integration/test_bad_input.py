"""Planted faults among good records: the rejects are exactly the planted ones, each with its reason.

Media come through the real decoders, in a child process; Ray has no part in it.
"""

import io
import json
import pickle
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image

from tests.damaged_media import (
    Make,
    busy,
    coded,
    cut,
    fast,
    frames,
    noise_image,
    scratch,
    sound,
    then,
    turn,
    zero_payload,
    zero_tail,
)
from tests.integration.test_preprocess import box_row, config, rejected, run, span_row, video
from tests.unit.data.test_decode import grey, write_video
from tpo_core.data import rle
from tpo_core.data.loader import load_example
from tpo_core.data.shards import ShardSet
from tpo_core.errors import TpoError

NAN = float("nan")
SIZE = (128, 96)  # of the videos of write_video, which last 2.4 s: 24 frames, 10 a second
NOISE = np.random.default_rng(2).bytes(100)


def song(path: Path) -> None:
    """Sound with a cover picture, which containers hold as a video stream."""
    cover = io.BytesIO()
    Image.new("RGB", (64, 48)).save(cover, "JPEG")
    with av.open(str(path), "w") as container:
        stream, picture = container.add_stream("aac", rate=16_000), container.add_stream("mjpeg")
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuvj420p"
        picture.disposition = Disposition.attached_pic
        container.start_encoding()
        packet = av.Packet(cover.getvalue())
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = picture, 0, 0, True
        container.mux(packet)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", layout="mono")
        frame.sample_rate, frame.pts = 16_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


BAD_MEDIA: dict[str, Make] = {
    "cut-10.mp4": then(write_video, cut(0.1)),
    "cut-60.mp4": then(write_video, cut(0.6)),
    "cut-95.mp4": then(write_video, cut(0.95)),
    "fast-cut-10.mp4": then(fast, cut(0.1)),
    "fast-cut-50.mp4": then(fast, cut(0.5)),
    "fast-cut-90.mp4": then(fast, cut(0.9)),
    "cut.mkv": then(coded("libx264"), cut(0.6)),
    "cut.webm": then(coded("libvpx-vp9"), cut(0.6)),
    "cut.avi": then(coded("mpeg4"), cut(0.6)),
    "zeroed.mp4": then(write_video, zero_payload(0.0)),
    "fast-zeroed.mp4": then(fast, zero_payload(0.0)),
    "half-zeroed.mp4": then(write_video, zero_payload(0.5)),
    "large-zeroed.mp4": then(busy(1280, 720), zero_payload(0.0)),
    "zero-tail.mkv": then(busy(*SIZE), zero_tail),
    "hole.mp4": then(busy(*SIZE), scratch(bytes(100))),
    "large-hole.mp4": then(busy(1280, 720), scratch(bytes(100))),
    "hevc-hole.mp4": then(busy(*SIZE, "libx265"), scratch(bytes(100))),
    "large-scratch.mp4": then(busy(1280, 720), scratch(NOISE)),
    "empty.mp4": lambda path: path.touch(),
    "sound.mp4": sound,
    "song.mp4": song,
    "text.mp4": lambda path: path.write_text("not a video\n" * 400),
    "noise.mp4": lambda path: path.write_bytes(NOISE * 200),
    "empty.png": lambda path: path.touch(),
    "text.jpg": lambda path: path.write_text("not an image"),
    "cut.jpg": then(noise_image, cut(0.5)),
    "cut.png": then(noise_image, cut(0.5)),
    "zero-tail.jpg": then(noise_image, zero_tail),
    "damaged-frame": then(frames(*[SIZE] * 4), lambda path: (path / "2.png").write_bytes(b"\x89PNG")),
    "two-sizes": frames(SIZE, SIZE, (64, 48), SIZE),
    "no-frames": lambda path: path.mkdir(),
}
REASON_OF = {"no-frames": "media_missing"}  # storage such as S3 has no empty folders
EVENLY, STAMPS = [3, 9, 15, 21], [0, 1, 2, 3, 20, 40, 60, 70]  # stamps in tenths of a second

# name: how it is made, width, height, duration in seconds, numbers of the four frames that are chosen
GOOD_MEDIA: dict[str, tuple[Make, int, int, float, list[int]]] = {
    "plain.mp4": (write_video, *SIZE, 2.4, EVENLY),
    "fast.mp4": (fast, *SIZE, 2.4, EVENLY),
    "one-frame.mp4": (lambda path: write_video(path, 1), *SIZE, 0.1, [0]),
    "turned-90.mp4": (then(write_video, turn(0, 1, -1, 0)), 96, 128, 2.4, EVENLY),
    "turned-180.mp4": (then(write_video, turn(-1, 0, 0, -1)), *SIZE, 2.4, EVENLY),
    "turned-270.mp4": (then(write_video, turn(0, -1, 1, 0)), 96, 128, 2.4, EVENLY),
    "large-turned-90.mp4": (
        then(lambda path: write_video(path, 8, size=(1280, 720)), turn(0, 1, -1, 0)), 720, 1280, 0.8, [1, 3, 5, 7],
    ),
    "variable.mp4": (lambda path: write_video(path, 8, stamps=STAMPS), *SIZE, 8.7, [3, 4, 5, 7]),
    "small.mp4": (lambda path: write_video(path, size=(176, 144)), 176, 144, 2.4, EVENLY),
    "4k.mp4": (lambda path: write_video(path, 8, size=(3840, 2160)), 3840, 2160, 0.8, [1, 3, 5, 7]),
    "matroska.mkv": (coded("libx264"), *SIZE, 2.4, EVENLY),
    "vp9.webm": (coded("libvpx-vp9"), *SIZE, 2.4, EVENLY),
    "mpeg4.avi": (coded("mpeg4"), *SIZE, 2.4, EVENLY),
    "large.ts": (coded("libx264", 1280, 720), 1280, 720, 2.4, EVENLY),  # has no index: a jump lands too late
    "refreshed.mp4": (coded("libx264", 1280, 720, **{"intra-refresh": "1"}), 1280, 720, 2.4, EVENLY),
}  # fmt: skip
RED_CORNER = {  # write_video marks the top left corner of the coded picture
    "plain.mp4": "top left",
    "turned-90.mp4": "top right",
    "turned-180.mp4": "bottom right",
    "turned-270.mp4": "bottom left",
    "large-turned-90.mp4": "top right",
}


def timed(name: str, start_s: float, end_s: float, **facts) -> dict:
    return {**span_row(name, "", (start_s, end_s)), "media": [{**video("plain.mp4"), **facts}]}


def boxed(name: str, *box: float, frame: int = 3, media: str = "plain.mp4", **facts) -> dict:
    return box_row(name, {**video(media), **facts}, box, frame)


def masked(name: str, mask: dict | None, *, visible: bool = True) -> dict:
    row = box_row(name, video("plain.mp4"))
    row["turns"][1]["text"] = "There <track_begin><tracking>."
    entry = {"frame": 3, "visible": visible, "rle": mask}
    return {**row, "task": "mask", "targets": [{"kind": "mask", "track": [entry]}]}


def run_lengths(width: int, height: int) -> dict:
    mask = rle.encode(np.ones((height, width), bool))
    return {"h": mask.h, "w": mask.w, "counts": mask.counts.decode()}


ANNOTATIONS: list[tuple[dict, str | None]] = [
    (timed("span", 0.5, 1.5), None),
    (timed("past-the-end", 1.0, 9.0), None),  # clipped, and flagged
    (timed("reversed", 1.5, 0.5), "moment_reversed"),
    (timed("late", 5.0, 6.0), "moment_past_end"),
    (timed("early", -1.0, 1.0), "moment_before_start"),
    (timed("empty", 1.0, 1.0), "moment_empty"),
    (timed("nan-span", NAN, 1.0), "nan"),
    (timed("endless", 1.0, float("inf")), "nan"),
    (timed("wrong-fps", 0.5, 1.5, fps=30.0), "fps_mismatch"),
    (timed("right-fps", 0.5, 1.5, fps=10.0), None),
    (boxed("box", 4, 4, 20, 20), None),
    (boxed("a-pixel-outside", -1, -1, 20, 20), None),
    (boxed("a-pixel-past", 100, 80, 129, 97), None),
    (boxed("outside", 128, 0, 140, 20), "box_outside_image"),
    (boxed("inverted", 20, 20, 4, 4), "box_empty"),
    (boxed("nan-box", 4, 4, NAN, 20), "nan"),
    (boxed("last-frame", 4, 4, 20, 20, frame=23), None),
    (boxed("no-such-frame", 4, 4, 20, 20, frame=24), "frame_out_of_range"),
    (boxed("other-size", 1, 1, 9, 9, width=64, height=48), "size_mismatch"),
    (boxed("as-displayed", 10, 100, 90, 128, media="turned-90.mp4", width=96, height=128), None),
    (boxed("as-coded", 10, 10, 90, 90, media="turned-90.mp4", width=128, height=96), "size_mismatch"),
    (boxed("outside-displayed", 100, 10, 120, 90, media="turned-90.mp4"), "box_outside_image"),
    (masked("mask", run_lengths(*SIZE)), None),
    (masked("mask-of-another-size", run_lengths(64, 48)), "mask_size_mismatch"),
    (masked("unreadable-mask", {**run_lengths(*SIZE), "counts": "0Pa"}), "mask_unreadable"),
    (masked("never-there", None, visible=False), "track_never_visible"),
    (timed("twice", 0.5, 1.5), None),
    (timed("twice", 0.6, 1.4), "duplicate_sample_id"),
    (span_row("gone", "gone.mp4"), "media_missing"),
    (span_row("escapes", "../own/plain.mp4"), "path_outside_root"),
    (span_row("absolute", "/own/plain.mp4"), "path_outside_root"),
]
KEPT = [row["sample_id"] for row, reason in ANNOTATIONS if reason is None]


def write_got10k(root: Path) -> list[tuple[str, str]]:
    """One good sequence, whose boxes count pixels from 1, and three bad ones, which are returned with their reasons."""
    sequences = {
        "good": "11,21,30,20\n12,21,30,20\n",
        "nan": "11,21,nan,20\n1,1,9,9\n",
        "lacks-a-frame": "1,1,9,9\n" * 3,
    }
    for name, lines in sequences.items():
        folder = root / "train" / name
        folder.mkdir(parents=True)
        for number in (1, 2):
            Image.new("RGB", SIZE).save(folder / f"{number:08d}.jpg")
        (folder / "groundtruth.txt").write_text(lines)
    (root / "train/list.txt").write_text("".join(f"{name}\n" for name in [*sequences, "unlabelled"]))
    return [
        ("train/nan/groundtruth.txt:1", "bad_record"),
        ("train/unlabelled/groundtruth.txt:1", "no_labels"),
        ("got10k/train/lacks-a-frame", "decode_failed"),
    ]


def write_lasot(root: Path) -> list[tuple[str, str]]:
    for name, absent in (("cat-1", "0,0"), ("cat-2", "1,1"), ("cat-3", "0")):
        folder = root / "cat" / name
        frames(SIZE)(folder / "img")
        for number in (1, 2):
            Image.new("RGB", SIZE).save(folder / f"img/{number:08d}.jpg")
        (folder / "groundtruth.txt").write_text("1,1,30,20\n2,1,30,20\n")
        (folder / "full_occlusion.txt").write_text(absent)
        (folder / "out_of_view.txt").write_text("0,0")
    return [("cat/cat-2/groundtruth.txt:1", "track_never_visible"), ("cat/cat-3/groundtruth.txt:1", "bad_record")]


def write_tacos(root: Path) -> list[tuple[str, str]]:
    """Moments in frames, at the rate that the label file states; the good one is 0.5 - 1.5 s of plain.mp4."""
    event = {"timestamps": [[5, 15]], "sentences": ["He cuts."], "num_frames": 24}
    (root / "cooking.json").write_text(
        json.dumps({"plain.avi": event | {"fps": 10}, "small.avi": event | {"fps": 29.4}})
    )
    return [("tacos/cooking/small-0", "fps_mismatch")]


def write_charades(root: Path) -> list[tuple[str, str]]:
    (root / "charades_sta_home.txt").write_text("plain 0.2 0.4##a.\nplain 1.0 0.5##b.\nno line\nplain 9.0 9.5##c.\n")
    late = "charades_sta/home/plain-3"
    return [("charades_sta_home.txt:2", "moment_reversed"), ("charades_sta_home.txt:3", "bad_line"),
            (late, "moment_past_end")]  # fmt: skip


def write_own(root: Path) -> list[tuple[str, str]]:
    for name, make in [*BAD_MEDIA.items(), *((name, made[0]) for name, made in GOOD_MEDIA.items())]:
        make(root / name)
    noise_image(root / "good.jpg")
    rows = [
        box_row(f"media-{name}", {"uri": name, "kind": kind_of_media(name)}, frame=None)
        for name in [*BAD_MEDIA, *GOOD_MEDIA, "good.jpg"]
    ]
    lines = [json.dumps(row).encode() for row in [*rows, *(row for row, _ in ANNOTATIONS)]]
    lines.append(json.dumps(span_row("latin", "plain.mp4")).replace("When", "Caf\xe9").encode("latin-1"))
    lines.append(b'{"sample_id": "own/half')
    (root / "train.jsonl").write_bytes(b"\n".join(lines) + b"\n")
    planted = [(f"own/media-{name}", REASON_OF.get(name, "decode_failed")) for name in BAD_MEDIA]
    planted += [(row["sample_id"], reason) for row, reason in ANNOTATIONS if reason is not None]
    return [*planted, (f"train.jsonl:{len(lines) - 1}", "text_not_utf8"), (f"train.jsonl:{len(lines)}", "bad_record")]


def kind_of_media(name: str) -> str:
    suffix = name.rpartition(".")[2]
    return "image" if suffix in ("jpg", "png") else "video" if "." in name else "frames"


SOURCES = [
    # reader, folder below the root, split, what writes it, options
    ("jsonl", "own", "train", write_own, {}),
    ("tacos", "own", "cooking", write_tacos, {"video": "{name}.mp4"}),
    ("charades_sta", "own", "home", write_charades, {"video": "{name}.mp4", "durations": "decoder"}),
    ("got10k", "got10k", "train", write_got10k, {}),
    ("lasot", "lasot", "all", write_lasot, {}),
]


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """(shard set, rejects, planted rejects, the result of preprocessing) of all of the above."""
    root, output = tmp_path_factory.mktemp("planted"), tmp_path_factory.mktemp("out") / "set"
    planted, sources = [], []
    for reader, folder, split, write, options in SOURCES:
        (root / folder).mkdir(exist_ok=True)
        planted += write(root / folder)
        sources.append({"name": reader, "reader": reader, "root": folder, "split": split, "part": "train"})
        sources[-1]["options"] = options
    facts, _ = run(root, output, config(sources=sources, reject_budget=0.99))
    return ShardSet.open(output), rejected(output), planted, facts


def test_the_rejects_are_exactly_the_planted_ones(result):
    _, rows, planted, facts = result
    assert sorted(map(name_and_reason, rows)) == sorted(planted)
    assert sum(facts["rejected"].values()) == len(planted)
    assert all(row["detail"] and "\n" not in row["detail"] for row in rows)


def name_and_reason(row: dict) -> tuple[str, str]:
    """A record that was refused when it was read is named by its line; the text begins with its id if it has one."""
    named = row["sample_id"] or row["detail"].partition(":")[0]
    return (named if named.startswith("own/") or row["sample_id"] else row["uri"]), row["reason"]


def test_all_that_is_good_is_kept(result):
    shards, _, _, facts = result
    own = {f"own/media-{name}" for name in (*GOOD_MEDIA, "good.jpg")} | set(KEPT)
    others = {"tacos/cooking/plain-0", "charades_sta/home/plain-0", "got10k/train/good", "lasot/all/cat-1"}
    assert {sample.sample_id for sample in shards.samples("train")} == own | others
    assert facts["media"] == len(GOOD_MEDIA) + 3  # three sources name plain.mp4: it is decoded once


@pytest.mark.parametrize("name", GOOD_MEDIA)
def test_the_good_media_come_out_right(result, name):
    _, width, height, duration_s, chosen = GOOD_MEDIA[name]
    row = result[0].media(f"own/{name}")
    assert (row.width, row.height) == (width, height)
    assert row.duration_s == pytest.approx(duration_s, abs=0.01)
    assert set(chosen) <= set(row.frame_index.tolist())
    seen = row.frames_THWC()
    assert seen.shape[1:3] == (row.stored_height, row.stored_width)
    middle = seen[:, row.stored_height // 2, row.stored_width // 2].astype(int)
    assert np.abs(middle - [[grey(number)] * 3 for number in row.frame_index]).max() < 8
    stamps = STAMPS if name == "variable.mp4" else range(24)
    assert row.times_s == pytest.approx([stamps[number] / 10 for number in row.frame_index])


@pytest.mark.parametrize("name", RED_CORNER)
def test_turned_videos_are_upright(result, name):
    frame = result[0].media(f"own/{name}").frames_THWC()[0].astype(int)
    corners = {"top left": frame[:4, :4], "top right": frame[:4, -4:], "bottom left": frame[-4:, :4]}
    corners["bottom right"] = frame[-4:, -4:]
    red = [place for place, part in corners.items() if (part[..., 0] - part[..., 1]).mean() > 100]
    assert red == [RED_CORNER[name]]


def test_labels_are_as_they_were_but_for_what_is_told(result):
    shards = result[0]
    samples = {sample.sample_id: sample for sample in shards.samples("train")}
    assert samples["own/past-the-end"].targets[0].span_s == pytest.approx((1.0, 2.4))
    assert samples["own/past-the-end"].provenance.flags == ("end_clipped",)
    assert samples["own/twice"].targets[0].span_s == (0.5, 1.5)  # the first of the two
    assert samples["own/a-pixel-outside"].targets[0].box == (-1, -1, 20, 20)
    assert samples["own/mask"].targets[0].track[0].visible
    assert samples["tacos/cooking/plain-0"].targets[0].span_s == (0.5, 1.5)
    assert samples["charades_sta/home/plain-0"].targets[0].span_s == (0.2, 0.4)
    assert load_example(shards, samples["charades_sta/home/plain-0"]).frames_THWC.shape[1:] == (32, 43, 3)


def test_boxes_that_count_pixels_from_one_are_moved(result):
    samples = {sample.sample_id: sample for sample in result[0].samples("train")}
    first, second = samples["got10k/train/good"].targets[0].track
    assert (first.box, second.box) == ((10, 20, 40, 40), (11, 20, 41, 40))
    first, second = samples["lasot/all/cat-1"].targets[0].track
    assert (first.box, second.box) == ((0, 0, 30, 20), (1, 0, 31, 20))
    assert samples["lasot/all/cat-1"].provenance.origin == 1


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("owned"),))


def test_a_pickle_that_would_run_code_ends_preprocessing_and_nothing_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "refcoco").mkdir()
    (tmp_path / "refcoco/refs(unc).p").write_bytes(pickle.dumps([Evil()]))
    (tmp_path / "refcoco/instances.json").write_text('{"images": [], "annotations": []}')
    source = {"name": "refcoco", "reader": "refcoco", "root": ".", "split": "train", "part": "train"}
    with pytest.raises(TpoError, match=r"refs\(unc\)\.p"):
        run(tmp_path, tmp_path / "out", config(sources=[source]))
    assert not (tmp_path / "owned").exists()
