"""What is asked of the decoder for the samples that name a media."""

import json
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from tpo_core.config.schema import DataConfig, FramesConfig
from tpo_core.data.frames import ranges
from tpo_core.data.intake import RejectLog, Wish, finished, media_key, read_sources
from tpo_core.data.sample import ANSWER_MARKER, Clip, Media, Provenance, Sample, Target, Turn
from tpo_core.errors import TpoError

FRAMES = FramesConfig(n_frames=8, short_side_px=96)


def test_keys_are_below_the_data_root_and_tell_clips_apart():
    assert media_key("own", Media("videos/a.mp4", "video")) == "own/videos/a.mp4"
    assert media_key(".", Media("videos/a.mp4", "video")) == "videos/a.mp4"
    assert media_key("s3://bucket/set", Media("a.mp4", "video")) == "s3://bucket/set/a.mp4"
    assert media_key("own", Media("a.mp4", "video", clip_s=Clip(60.0, 210.5))) == "own/a.mp4#t=60.0,210.5"


def test_two_readings_of_one_folder_of_frames_are_two_media_of_the_same_place():
    """Two data sets may name other files of one folder, or their rate; neither may lose its samples."""
    every, third = Media("clip", "frames"), Media("clip", "frames", frame_names=("0.jpg", "3.jpg"), fps=30.0)
    media = (every, third, replace(third, fps=25.0))
    assert len({media_key("sets", each) for each in media}) == 3
    for each in media:
        assert Wish(each).request(media_key("sets", each), "s3://bucket", FRAMES).uri == "s3://bucket/sets/clip"
    assert media_key("sets", third) == media_key("sets", replace(third, width=640, height=360))


def test_a_file_whose_name_looks_like_a_clip_is_read_under_its_own_name():
    for name in ("a#t=1.mp4", "a#t=1,2.mp4", "a#t=1,2"):
        media = Media(name, "video", clip_s=Clip(0.0, 4.0))
        for each in (media, replace(media, clip_s=None)):
            assert Wish(each).request(media_key("own", each), "/data", FRAMES).uri == f"/data/own/{name}"


@pytest.mark.parametrize("root", ["set", "/data/set", "s3://bucket/set"])
def test_every_spelling_of_a_path_is_one_media(root):
    """A store of objects knows no "." and no "..": s3://bucket/./a.mp4 is another object than s3://bucket/a.mp4."""
    for name in ("./clips/a.mp4", "clips//a.mp4", "other/../clips/a.mp4"):
        assert media_key(root, Media(name, "video")) == f"{root}/clips/a.mp4"


@pytest.mark.parametrize(
    ("frames", "expected"),
    [
        ([], ()),
        ([5], (range(5, 6),)),
        (range(0, 500, 4), (range(0, 497, 4),)),
        ([9, 0, 1, 2, 1], (range(3), range(9, 10))),
        ([0, 40, 44, 48, 1000], (range(0, 41, 40), range(44, 49, 4), range(1000, 1001))),
    ],
)
def test_labelled_frames_are_kept_as_ranges(frames, expected):
    assert ranges(frames) == expected
    assert [number for each in ranges(frames) for number in each] == sorted(set(frames))


def test_a_request_reads_the_file_of_a_clip_and_asks_for_the_frames_that_targets_need():
    wish = Wish(Media("a.mp4", "video", fps=25.0, clip_s=Clip(60.0, 210.0)), prefer=ranges({8, 4}), also=frozenset({3}))
    request = wish.request("own/a.mp4#t=60.0,210.0", "s3://bucket", FRAMES)
    assert (request.uri, request.clip_s, request.n_frames) == ("s3://bucket/own/a.mp4", (60.0, 210.0), 8)
    assert (request.prefer_frames, request.also_frames) == ((range(4, 9, 4),), (3,))
    assert request.fps is None  # a video tells its own
    assert (request.short_side_px, request.jpeg_quality) == (96, FRAMES.jpeg_quality)


def test_a_limit_takes_the_first_samples_and_asks_only_for_their_media(tmp_path):
    def row(number: int) -> dict:
        return {
            "sample_id": f"own/{number}",
            "dataset": "own",
            "split": "train",
            "task": "chat",
            "media": [{"uri": f"{number}.mp4", "kind": "video"}],
            "turns": [{"role": "assistant", "text": "Fine."}],
            "provenance": {"source_file": "train.jsonl", "row": number, "native_id": "0", "reader": "jsonl"},
        }

    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row(number)) + "\n" for number in range(9)))
    source = {"name": "own", "reader": "jsonl", "root": ".", "split": "train", "part": "train", "limit": 3}
    data = DataConfig.model_validate({"root": str(tmp_path), "sources": [source]})
    kept: dict[str, list[str]] = {}
    lines: list[str] = []
    log = RejectLog(tmp_path / "rejected.jsonl", data.reject_budget)
    found = read_sources(
        data, data.root, log, lambda part, samples: kept.update({part: [s.sample_id for s in samples]}), lines.append
    )
    assert kept == {"train": ["own/0", "own/1", "own/2"]}
    assert sorted(found) == ["0.mp4", "1.mp4", "2.mp4"]
    assert lines == ["read own: 3 samples for train, 0 rejected"]


def filled(media: Media, target: Target, **facts) -> tuple[str | None, Sample | None]:
    """The reason, or the sample, that one sample on a decoded media ends as."""
    sample = Sample(
        "own/1", "own", "train", "span" if target.span_s else "box", (media,),
        (Turn("assistant", ANSWER_MARKER["temporal" if target.span_s else "region"], (), (0,)),),
        Provenance("train.jsonl", 0, "1", "jsonl"), targets=(target,),
    )  # fmt: skip
    decoded = {"width": 64, "height": 48, "n_frames": 100, "fps": 25.0, "media_duration_s": 4.0, **facts}
    log = RejectLog(Path("unused"), 1.0)
    final = finished(sample, {media.uri: decoded}, {}, log)
    return (str(log.rows[0]["reason"]) if log.rows else None), final


def test_times_that_were_made_at_another_rate_are_refused():
    span = Target("span", span_s=(1.0, 2.0))
    assert filled(Media("a.mp4", "video", fps=30.0), span)[0] == "fps_mismatch"
    assert filled(Media("a.mp4", "video", fps=25.1), span)[0] is None
    assert filled(Media("a.mp4", "video", fps=30.0), Target("box", box=(1, 1, 9, 9), frame=3))[0] is None
    _, final = filled(Media("a.mp4", "video"), span)
    assert (final.media[0].fps, final.media[0].duration_s, final.media[0].n_frames) == (25.0, 4.0, 100)


def test_a_size_that_differs_matters_where_something_has_a_place_in_the_picture():
    assert filled(Media("a.mp4", "video", width=128, height=96), Target("box", box=(1, 1, 9, 9)))[0] == "size_mismatch"
    _, final = filled(Media("a.mp4", "video", width=128, height=96), Target("span", span_s=(1.0, 2.0)))
    assert (final.media[0].width, final.media[0].height) == (64, 48)


def test_a_clip_ends_where_its_film_does():
    media = Media("a.mp4", "video", clip_s=Clip(1.0, 9.0))
    reason, final = filled(media, Target("span", span_s=(1.0, 5.0)))
    assert reason is None
    assert final.media[0].clip_s == Clip(1.0, 4.0)
    assert final.targets[0].span_s == (1.0, 3.0)
    assert filled(media, Target("span", span_s=(3.5, 5.0)))[0] == "moment_past_end"


def test_files_of_one_name_keep_their_samples_apart(tmp_path):
    """VideoChat2-IT is some thirty files, all called train.json."""
    for folder in ("video/caption/webvid", "image/caption/coco"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "train.json").write_text(json.dumps([{"QA": [{"q": "What?", "a": folder}]}]))
    by_path = [
        {"root": ".", "options": {"file": f"{folder}/train.json"}}
        for folder in ("video/caption/webvid", "image/caption/coco")
    ]
    by_name = [
        {"root": "video/caption/webvid", "options": {"dataset": "webvid"}},
        {"root": "image/caption/coco", "options": {"dataset": "coco"}},
    ]
    for sources in (by_path, by_name):
        rows, samples = read(tmp_path, sources)
        assert (rows, len({sample.sample_id for sample in samples})) == ([], 2)
    rows, samples = read(tmp_path, [{**source, "options": {}} for source in by_name])
    assert (len(samples), [row["reason"] for row in rows]) == (1, ["duplicate_sample_id"])
    assert "source '0' gave" in rows[0]["detail"]
    assert "option dataset" in rows[0]["detail"]


@pytest.mark.parametrize(("step", "limit", "rows"), [(1, None, range(7)), (3, None, [0, 3, 6]), (2, 2, [0, 2])])
def test_samples_may_be_taken_at_a_distance(tmp_path, step, limit, rows):
    (tmp_path / "train.json").write_text(json.dumps([{"QA": [{"q": "What?", "a": str(k)}]} for k in range(7)]))
    _, samples = read(tmp_path, [{"root": ".", "step": step, "limit": limit}])
    assert [sample.provenance.row for sample in samples] == list(rows)


def read(root, sources):
    named = [
        {"name": str(number), "reader": "videochat2_it", "split": "train", "part": "train", **source}
        for number, source in enumerate(sources)
    ]
    log, kept = RejectLog(root / "rejected.jsonl", 1.0), []
    with suppress(TpoError):  # a source of which nothing is left
        read_sources(
            DataConfig(root=str(root), sources=named), str(root), log, lambda _, each: kept.extend(each), print
        )
    return log.rows, kept
