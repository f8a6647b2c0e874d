"""What is asked of the decoder for the samples that name a media."""

import json

from tpo_core.config.schema import DataConfig, FramesConfig
from tpo_core.data.intake import RejectLog, Wish, media_key, read_sources
from tpo_core.data.preprocess import plan_shards
from tpo_core.data.sample import Clip, Media

FRAMES = FramesConfig(n_frames=8, short_side_px=96)


def wishes(count: int) -> dict[str, Wish]:
    return {f"v/{k:05d}.mp4": Wish(Media(f"{k}.mp4", "video")) for k in range(count)}


def test_keys_are_below_the_data_root_and_tell_clips_apart():
    assert media_key("own", Media("videos/a.mp4", "video")) == "own/videos/a.mp4"
    assert media_key(".", Media("videos/a.mp4", "video")) == "videos/a.mp4"
    assert media_key("s3://bucket/set", Media("a.mp4", "video")) == "s3://bucket/set/a.mp4"
    assert media_key("own", Media("a.mp4", "video", clip_s=Clip(60.0, 210.5))) == "own/a.mp4#t=60.0,210.5"


def test_a_request_reads_the_file_of_a_clip_and_asks_for_the_frames_that_targets_need():
    wish = Wish(Media("a.mp4", "video", fps=25.0, clip_s=Clip(60.0, 210.0)), prefer={8, 4}, also={3})
    request = wish.request("own/a.mp4#t=60.0,210.0", "s3://bucket", FRAMES)
    assert (request.uri, request.clip_s, request.n_frames) == ("s3://bucket/own/a.mp4", (60.0, 210.0), 8)
    assert (request.prefer_frames, request.also_frames) == ((4, 8), (3,))
    assert request.fps is None  # a video tells its own
    assert (request.short_side_px, request.jpeg_quality) == (96, FRAMES.jpeg_quality)


def test_shard_files_hold_every_media_once_and_do_not_depend_on_the_order_of_reading():
    jobs = plan_shards(wishes(1000), "/data", FRAMES, 256)
    assert [key for job in jobs for key in job.requests] == sorted(wishes(1000))
    assert len(jobs) == 16
    backwards = dict(reversed(wishes(1000).items()))
    assert [job.digest() for job in plan_shards(backwards, "/elsewhere", FRAMES, 256)] == [job.digest() for job in jobs]


def test_the_number_of_shard_files_follows_the_aimed_size():
    assert [len(plan_shards(wishes(count), None, FRAMES, 1)) for count in (0, 1, 9, 3000)] == [0, 1, 2, 99]


def test_other_frames_or_targets_change_what_a_shard_file_is_asked():
    (before,) = plan_shards(wishes(3), None, FRAMES, 256)
    (other_frames,) = plan_shards(wishes(3), None, FRAMES.model_copy(update={"n_frames": 9}), 256)
    named = wishes(3)
    named["v/00001.mp4"].also.add(5)
    (other_targets,) = plan_shards(named, None, FRAMES, 256)
    assert len({before.digest(), other_frames.digest(), other_targets.digest()}) == 3


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
