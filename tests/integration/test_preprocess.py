"""Preprocessing: each media once, only what is missing, nothing bad without a reason; and the same on a local Ray.

What Ray does not change is tested with the decoding done in this process: starting Ray's workers takes seconds a run.
"""

import json
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import ray
from PIL import Image

from tpo_core.config.schema import DataConfig
from tpo_core.data import preprocess as subject
from tpo_core.data.example import load_example
from tpo_core.data.frame_reader import FrameReader
from tpo_core.data.frames import DecodeRequest
from tpo_core.data.intake import RejectLog
from tpo_core.data.media_store import ShardJob
from tpo_core.data.shards import ShardSet
from tpo_core.errors import TpoError
from tpo_core.storage import uri as uris

N_VIDEOS = 20
DECODE_ON_RAY = subject._decode
SECONDS = 2.0


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def write_video(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(int(10 * SECONDS)):
            picture = np.full((48, 64, 3), (10 * number, 10 * seed, 128), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())


def span_row(name: str, video: str, span=(0.5, 1.5)) -> dict:
    return {
        "sample_id": f"own/{name}",
        "dataset": "own",
        "split": "train",
        "task": "span",
        "media": [{"uri": video, "kind": "video"}],
        "turns": [
            {"role": "user", "text": "When?", "media_refs": [0]},
            {"role": "assistant", "text": "Then <time_begin><temp>.", "target_refs": [0]},
        ],
        "targets": [{"kind": "span", "span_s": list(span)}],
        "provenance": {"source_file": "train.jsonl", "row": 0, "native_id": name, "reader": "jsonl"},
    }


def box_row(name: str, media: dict, box=(4, 4, 20, 20), frame: int | None = 13) -> dict:
    row = span_row(name, "")
    row["turns"][1]["text"] = "There <box_begin><boxes>."
    return {
        **row,
        "task": "box",
        "media": [media],
        "targets": [{"kind": "box", "box": list(box), **({} if frame is None else {"frame": frame})}],
    }


def video(name: str) -> dict:
    return {"uri": name, "kind": "video"}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """(root, output, result, lines) of one run over 20 videos, each named by two samples of part train and some by one
    of part val, and an image."""
    root = tmp_path_factory.mktemp("native")
    for number in range(N_VIDEOS):
        write_video(root / f"own/videos/{number:02d}.mp4", number)
    Image.new("RGB", (80, 60), (200, 100, 0)).save(root / "own/picture.png")
    names = [f"videos/{number:02d}.mp4" for number in range(N_VIDEOS)]
    rows = [span_row(f"span{name}", name) for name in names] + [box_row(f"box{name}", video(name)) for name in names]
    rows.append(box_row("picture", {"uri": "picture.png", "kind": "image", "width": 80, "height": 60}, frame=None))
    write_rows(root, "train", rows)
    write_rows(root, "val", [span_row(f"val{name}", name) for name in names[:5]])
    output = tmp_path_factory.mktemp("built") / "out"
    return root, output, *run(root, output)


@pytest.fixture
def root(built, tmp_path):
    """A copy of the native data set that a test may change."""
    return shutil.copytree(built[0], tmp_path / "native")


@pytest.fixture
def output(built, tmp_path):
    """A copy of the finished shard set that a test may change."""
    return shutil.copytree(built[1], tmp_path / "finished")


def write_rows(root: Path, split: str, rows: list[dict]) -> None:
    (root / f"own/{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def add_rows(root: Path, *rows: dict) -> None:
    with (root / "own/train.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def config(**changes) -> DataConfig:
    sources = [
        {"name": f"own-{part}", "reader": "jsonl", "root": "own", "split": part, "part": part}
        for part in ("train", "val")
    ]
    frames = {"n_frames": 4, "short_side_px": 32}
    return DataConfig.model_validate({"root": "unused", "frames": frames, "sources": sources, **changes})


def decode_here(store, jobs, data, cpus, group, log, echo):
    with FrameReader(deadline_s=data.frames.decode_deadline_s) as reader:
        for job in jobs:
            subject.write_shard(store, job, reader, lambda *counts: None)


def run(root, output: Path, data: DataConfig | None = None, decode=decode_here, store=None) -> tuple[dict, list[str]]:
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subject, "_decode", decode)
        return subject.preprocess(data or config(), str(root), output, echo=lines.append, cpus=2, store=store), lines


def rejected(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "rejected.jsonl").read_text().splitlines()]


def identity(output: Path) -> dict[str, tuple[int, int]]:
    return {p.name: (p.stat().st_ino, p.stat().st_mtime_ns) for p in sorted((output / "media").glob("*.arrow"))}


def test_every_media_is_decoded_once_however_many_samples_name_it(built):
    _, output, result, lines = built
    assert result["samples"] == {"train": {"temporal": 20, "region": 21}, "val": {"temporal": 5}}
    assert (result["media"], result["decoded"], result["rejected"]) == (21, 21, {})
    shards = ShardSet.open(output)
    assert shards.digest == result["digest"]
    assert sum(file["rows"] for name, file in shards.manifest["files"].items() if name.startswith("media/")) == 21
    assert all(uris.sha256_file(output / name) == file["sha256"] for name, file in shards.manifest["files"].items())
    assert lines[-1].startswith("wrote 46 samples on 21 media")

    sample = next(s for s in shards.samples("train") if s.sample_id == "own/boxvideos/03.mp4")
    assert sample.media[0].uri == "own/videos/03.mp4"
    assert (sample.media[0].width, sample.media[0].height, sample.media[0].n_frames) == (64, 48, 20)
    assert sample.media[0].duration_s == pytest.approx(SECONDS)
    example = load_example(shards, sample)
    assert example.frame_index.tolist() == [13]  # stored beside the four midpoints; a box is shown with its frame alone
    assert example.times_s == pytest.approx([1.3])
    assert example.frames_THWC.shape == (1, 32, 43, 3)
    assert example.frames_THWC[0].mean((0, 1)) == pytest.approx((130, 30, 128), abs=8)
    assert (example.width, example.height) == (64, 48)
    picture = load_example(shards, next(s for s in shards.samples("train") if s.sample_id == "own/picture"))
    assert picture.frames_THWC.shape == (1, 32, 43, 3)


def test_a_second_run_decodes_nothing(built, root, output):
    result, before = built[2], identity(output)
    again, _ = run(root, output)
    assert again == {**result, "decoded": 0, "shard_files_kept": result["shard_files"]}
    assert identity(output) == before


@pytest.mark.ray
def test_on_ray_a_killed_run_loses_only_the_files_in_flight_and_the_result_is_the_same(built, cluster, tmp_path):
    root, _, expected, _ = built
    output = tmp_path / "out"
    blocked = output / "media" / sorted(identity(built[1]))[1]
    blocked.mkdir(parents=True)  # the worker that comes to this file dies on it
    with pytest.raises(ray.exceptions.RayError):
        run(root, output, decode=DECODE_ON_RAY)
    assert not (output / "manifest.json").exists()
    blocked.rmdir()
    recorded = {json.loads(path.read_text())["file"]["name"] for path in (output / "media").glob("*.json")}
    done = {name: file for name, file in identity(output).items() if name in recorded}
    result, _ = run(root, output, decode=DECODE_ON_RAY)
    # A worker that outlived the failed run may have finished its file after the look at the folder.
    assert len(done) <= result["shard_files_kept"] < result["shard_files"]
    assert {name: file for name, file in identity(output).items() if name in done} == done
    assert result["digest"] == expected["digest"]


def test_new_annotations_decode_nothing_and_a_damaged_file_only_itself(root, output):
    before = identity(output)
    write_rows(root, "val", [span_row("changed", f"videos/{k:02d}.mp4", (0.1, 0.9)) for k in range(1)])
    result, _ = run(root, output)
    assert (result["decoded"], result["samples"]["val"]) == (0, {"temporal": 1})
    assert identity(output) == before
    damaged = output / "media" / min(before)
    damaged.write_bytes(damaged.read_bytes()[:-1])
    result, _ = run(root, output)
    assert result["shard_files_kept"] == result["shard_files"] - 1
    after = identity(output)
    assert {name for name in before if before[name] != after[name]} == {damaged.name}


def test_one_video_more_and_one_replaced_are_all_that_is_decoded(root, output):
    write_video(root / "own/videos/20.mp4", 20)
    add_rows(root, span_row("more", "videos/20.mp4"))
    write_video(root / "own/videos/03.mp4", 23)
    result, _ = run(root, output)
    assert (result["decoded"], result["media"]) == (2, 22)
    row = ShardSet.open(output).media("own/videos/03.mp4")
    assert row.frames_THWC()[0].mean((0, 1))[1] == pytest.approx(230, abs=8)


def test_sets_that_share_a_store_decode_what_both_name_once(root, tmp_path):
    store = subject.MediaStore(str(tmp_path / "media"), "../../media")
    one, _ = run(root, tmp_path / "sets/one", store=store)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "media").iterdir()}
    other, _ = run(root, tmp_path / "sets/other", config(reject_budget=0.5), store=store)
    assert (one["decoded"], other["decoded"]) == (21, 0)
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "media").iterdir()} == before
    shards = ShardSet.open(tmp_path / "sets/other")
    assert load_example(shards, shards.samples("val")[0]).frames_THWC.shape == (5, 32, 43, 3)


def test_bad_media_and_bad_annotations_are_rows_with_a_reason(root, tmp_path):
    broken = root / "own/videos/07.mp4"
    broken.write_bytes(broken.read_bytes()[:400])
    add_rows(
        root,
        box_row("outside", video("videos/01.mp4"), (100, 0, 140, 20)),
        box_row("no-frame", video("videos/01.mp4"), frame=20),
        span_row("late", "videos/02.mp4", (5.0, 6.0)),
        span_row("long", "videos/02.mp4", (1.0, 6.0)),
        span_row("long", "videos/03.mp4"),
        span_row("gone", "videos/none.mp4"),
        box_row("resized", {**video("videos/04.mp4"), "width": 640, "height": 480}),
    )
    output = tmp_path / "out"
    result, _ = run(root, output, config(reject_budget=0.5))
    rows = {row["sample_id"]: row for row in rejected(output)}
    reasons = {sample_id: row["reason"] for sample_id, row in rows.items()}
    assert reasons == {
        "own/spanvideos/07.mp4": "decode_failed",
        "own/boxvideos/07.mp4": "decode_failed",
        "own/outside": "box_outside_image",
        "own/no-frame": "frame_out_of_range",
        "own/late": "moment_past_end",
        "own/long": "duplicate_sample_id",
        "own/gone": "media_missing",
        "own/resized": "size_mismatch",
    }
    assert rows["own/gone"]["uri"] == "own/videos/none.mp4"
    assert rows["own/gone"]["detail"] == "no such file"
    assert result["rejected"] == {
        "decode_failed": 2,
        "media_missing": 1,
        "duplicate_sample_id": 1,
        "box_outside_image": 1,
        "frame_out_of_range": 1,
        "moment_past_end": 1,
        "size_mismatch": 1,
    }
    kept = {sample.sample_id: sample for sample in ShardSet.open(output).samples("train")}
    assert kept["own/long"].targets[0].span_s == pytest.approx((1.0, SECONDS))
    assert "end_clipped" in kept["own/long"].provenance.flags


def test_too_many_rejects_stop_the_job_and_say_why(root, output):
    add_rows(root, *(span_row(f"late{k}", "videos/01.mp4", (5.0, 6.0)) for k in range(3)))
    with pytest.raises(TpoError, match=r"3 of 49 samples are rejected.*moment_past_end 3.*rejected\.jsonl"):
        run(root, output, config(reject_budget=0.05))
    assert len(rejected(output)) == 3
    with pytest.raises(TpoError, match="no finished shard set"):
        ShardSet.open(output)


def test_rejects_on_reading_stop_the_job_before_anything_is_decoded(root, tmp_path):
    add_rows(root, *(span_row(f"reversed{k}", "videos/01.mp4", (1.5, 0.5)) for k in range(10)))
    with pytest.raises(TpoError, match=r"10 of 56 samples are rejected.*moment_reversed 10"):
        run(root, tmp_path / "out")
    assert list((tmp_path / "out/media").iterdir()) == []


def test_an_empty_source_is_named(root, tmp_path):
    write_rows(root, "val", [])
    with pytest.raises(TpoError, match=r"source 'own-val' has no samples: reader jsonl, root \S+/own, split 'val'"):
        run(root, tmp_path / "out")


def test_an_unknown_reader_is_named_with_the_nearest(root, tmp_path):
    sources = [{"name": "own", "reader": "jsnl", "root": "own", "split": "train", "part": "train"}]
    with pytest.raises(TpoError, match="no reader 'jsnl'; did you mean 'jsonl'"):
        run(root, tmp_path / "out", config(sources=sources))


@pytest.mark.ray
def test_a_store_that_a_node_does_not_see_is_told(cluster, tmp_path):
    request = DecodeRequest(uri="none.mp4", kind="video", short_side_px=16, n_frames=1)
    job = ShardJob({"none.mp4": request}, {"none.mp4": "0"})
    with pytest.raises(TpoError, match="a Ray node does not see /nowhere: choose a work_uri that all nodes share"):
        DECODE_ON_RAY("/nowhere", [job], config(), 1, None, RejectLog(tmp_path / "rejects", 0.0), print)


def test_progress_tells_rate_bytes_rejects_and_the_time_left():
    line = subject.progress_line(30, 90, 2.0, 5 << 20, 7, 1)
    assert line == "decoded 30 of 90 media, 2.0/s, 5 MiB, rejected 7 samples and 1 media, 30 s left"
    assert subject.progress_line(0, 90, 0.0, 0, 0, 0).endswith("no worker is decoding yet")
    assert subject.progress_line(3, 90, 0.0, 0, 0, 0).endswith("stalled")


def test_a_run_killed_in_the_driver_keeps_the_finished_files(built, tmp_path):
    root, _, expected, _ = built
    output = tmp_path / "out"

    def killed(store, jobs, *rest):
        decode_here(store, jobs[:2], *rest)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(root, output, decode=killed)
    with pytest.raises(TpoError, match="no finished shard set"):
        ShardSet.open(output)
    before = identity(output)
    result, _ = run(root, output)
    assert (result["shard_files_kept"], result["digest"]) == (2, expected["digest"])
    after = identity(output)
    assert len(before) == 2
    assert {name: after[name] for name in before} == before
