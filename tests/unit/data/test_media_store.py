"""Which media go to which file, and what makes a file be made again."""

import os
from dataclasses import replace

import pytest

from tpo_core.config.schema import FramesConfig
from tpo_core.data import media_store
from tpo_core.data.frames import DecodedMedia, DecodeError, DecodeRequest
from tpo_core.data.media_store import MediaStore, ShardJob, media_stamps, plan_shards, write_shard
from tpo_core.data.shards import MEDIA_SCHEMA, open_shard
from tpo_core.errors import TpoError
from tpo_core.storage import uri as uris

FRAMES = FramesConfig(n_frames=8, short_side_px=96)


def requests(count: int, root: str = "/data") -> dict[str, DecodeRequest]:
    return {f"v/{k:05d}.mp4": DecodeRequest(f"{root}/v/{k:05d}.mp4", "video", 96, 8) for k in range(count)}


def plan(asked: dict[str, DecodeRequest], *, mib: int = 256, stamps: dict[str, str] | None = None) -> list[ShardJob]:
    return plan_shards(asked, stamps if stamps is not None else dict.fromkeys(asked, "1-a"), FRAMES, mib)


def names(jobs: list[ShardJob]) -> list[str]:
    return [job.name for job in jobs]


def test_files_hold_every_media_once_and_do_not_depend_on_the_order_of_reading_or_the_root():
    jobs = plan(requests(1000))
    assert sorted(key for job in jobs for key in job.requests) == sorted(requests(1000))
    assert len(jobs) == 16
    assert min(len(job.requests) for job in jobs) > 30
    backwards = dict(reversed(requests(1000, "/elsewhere").items()))
    assert names(plan(backwards)) == names(jobs)


def test_the_number_of_files_is_a_power_of_two_after_the_aimed_size():
    assert [len(plan(requests(count), mib=1)) for count in (0, 1, 9, 3000)] == [0, 1, 2, 128]


def test_one_media_more_or_another_version_of_one_changes_one_file():
    before = names(plan(requests(1000)))
    assert len(set(before) - set(names(plan(requests(1001))))) == 1
    replaced = dict.fromkeys(requests(1000), "1-a") | {"v/00007.mp4": "1-b"}
    assert len(set(before) - set(names(plan(requests(1000), stamps=replaced)))) == 1


@pytest.mark.parametrize("change", [{"n_frames": 9}, {"also_frames": (5,)}, {"sample_fps": 2.0}, {"jpeg_quality": 80}])
def test_other_frames_or_settings_are_another_file(change):
    asked = requests(3)
    changed = asked | {"v/00001.mp4": replace(asked["v/00001.mp4"], **change)}
    assert names(plan(asked)) != names(plan(changed))


def test_a_media_that_is_not_there_is_in_no_file():
    stamps = dict.fromkeys(requests(3), "1-a")
    del stamps["v/00001.mp4"]
    (job,) = plan(requests(3), stamps=stamps)
    assert list(job.requests) == ["v/00000.mp4", "v/00002.mp4"]


@pytest.fixture(params=["disk", "s3"])
def place(request, tmp_path) -> str:
    return str(tmp_path / "place") if request.param == "disk" else request.getfixturevalue("bucket") + "/place"


@pytest.mark.parametrize("count", [3, 40])  # asked for one by one, and listed
def test_stamps_tell_versions_of_files_and_folders_apart(place, count):
    for k in range(count):
        uris.write_bytes(f"{place}/v/{k:05d}.mp4", b"film")
    for frame in ("0.jpg", "1.jpg"):
        uris.write_bytes(f"{place}/clip/{frame}", b"x")
    asked = requests(count, place) | {"clip": DecodeRequest(f"{place}/clip", "frames", 96, 8)}
    before = media_stamps(asked)
    assert before.keys() == asked.keys()
    assert media_stamps(asked) == before
    uris.write_bytes(f"{place}/v/00001.mp4", b"other film")
    uris.write_bytes(f"{place}/clip/2.jpg", b"y")
    uris.delete(f"{place}/v/00002.mp4")
    after = media_stamps(asked)
    assert {key for key in asked if before[key] != after.get(key)} == {"v/00001.mp4", "v/00002.mp4", "clip"}
    assert "v/00002.mp4" not in after


class Counting:
    """A reader that gives one tiny frame and counts what it is asked; v/00003.mp4 is damaged."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def decode(self, request: DecodeRequest) -> DecodedMedia:
        self.asked.append(request.uri.rpartition("/")[2])
        if "00003" in request.uri:
            raise DecodeError(request.uri, "damaged")
        number = int(request.uri[-9:-4])
        return DecodedMedia(None, (b"jpeg%d" % number,), [number], [0.5], 9, 3.0, 3.0, 64, 48, 8, 6, "none")


def make(store: MediaStore, jobs: list[ShardJob]) -> tuple[list[str], list[tuple[int, int, int]]]:
    """Makes what is missing as workers do. Returns the media that were decoded, and what was told."""
    done, reader, told = store.finished(jobs), Counting(), []
    for job in store.with_reuse([job for job in jobs if job.name not in done]):
        write_shard(store.uri, job, reader, lambda *counts: told.append(counts))
    return reader.asked, told


def test_what_is_stored_is_found_again_and_only_what_changed_is_decoded(place, tmp_path):
    store, asked = MediaStore(place, "media"), requests(30)
    if uris.is_local(place):
        (tmp_path / "place").mkdir()
    jobs = plan(asked)
    decoded, told = make(store, jobs)
    assert len(decoded) == 30
    assert [sum(counts) for counts in zip(*told, strict=True)] == [30, 1, sum(len(f"jpeg{k}") for k in range(30)) - 5]
    assert make(store, jobs) == ([], [])
    records = store.finished(jobs)
    failed = {key: each["detail"] for record in records.values() for key, each in record["failed"].items()}
    assert failed == {"v/00003.mp4": "damaged"}

    stamps = dict.fromkeys(requests(31), "1-a") | {"v/00008.mp4": "1-b"}
    changed = plan(requests(31), stamps=stamps)
    decoded, _ = make(store, changed)
    assert {"00030.mp4", "00008.mp4"} <= set(decoded) <= {"00030.mp4", "00008.mp4", "00003.mp4"}
    frames = {}
    for record in store.finished(changed).values():
        uris.copy_here(f"{place}/{record['file']['name']}", tmp_path / "file.arrow")
        for batch in open_shard(tmp_path / "file.arrow", MEDIA_SCHEMA):
            frames |= {row["uri"]: row["frames"] for row in batch.to_pylist()}
    assert frames == {f"v/{k:05d}.mp4": [b"jpeg%d" % k] for k in range(31) if k != 3}


def test_a_file_of_another_size_than_its_record_is_made_again(tmp_path):
    store, jobs = MediaStore(str(tmp_path), "media"), plan(requests(30))
    make(store, jobs)
    path = tmp_path / store.finished(jobs)[jobs[1].name]["file"]["name"]
    path.write_bytes(path.read_bytes()[:-1])
    assert set(names(jobs)) - set(store.finished(jobs)) == {jobs[1].name}
    decoded, _ = make(store, jobs)
    assert [f"v/{name}" for name in decoded] == list(jobs[1].requests)


class TooSlow(Counting):
    """A reader of a busy machine: v/00005.mp4 takes longer than the deadline."""

    def decode(self, request: DecodeRequest) -> DecodedMedia:
        if "00005" in request.uri:
            raise DecodeError(request.uri, "no answer within 60 s", passing=True)
        return super().decode(request)


def test_what_failed_for_a_reason_that_may_pass_is_tried_again_and_alone(tmp_path):
    store, jobs = MediaStore(str(tmp_path), "media"), plan(requests(30))
    for job in jobs:
        write_shard(store.uri, job, TooSlow(), lambda *_: None)
    before = store.finished(jobs)
    assert before.keys() == set(names(jobs))  # for this run, that is how it ended
    (left,) = set(names(jobs)) - set(store.finished(jobs, try_again=True))
    again = store.with_reuse([job for job in jobs if job.name == left])
    reader = Counting()
    write_shard(store.uri, again[0], reader, lambda *_: None)
    assert set(reader.asked) - {"00003.mp4"} == {"00005.mp4"}
    assert store.finished(jobs, try_again=True).keys() == set(names(jobs))
    old = tmp_path / before[left]["file"]["name"]
    assert old.stat().st_size == before[left]["file"]["bytes"]  # a finished set may point at it


def test_what_decoders_of_before_refused_is_tried_again(tmp_path, monkeypatch):
    store, jobs = MediaStore(str(tmp_path), "media"), plan(requests(30))
    make(store, jobs)  # v/00003.mp4 is damaged
    assert store.finished(jobs, try_again=True).keys() == set(names(jobs))
    monkeypatch.setattr(media_store, "DECODERS", media_store.DECODERS + 1)
    (left,) = set(names(jobs)) - set(store.finished(jobs, try_again=True))
    assert "v/00003.mp4" in next(job for job in jobs if job.name == left).requests


def test_rows_of_a_file_that_is_damaged_are_not_copied(tmp_path):
    """Its size is right, so it counts as finished; copied, its rows would get a checksum that holds."""
    store = MediaStore(str(tmp_path), "media")
    make(store, plan(requests(30)))
    for path in tmp_path.glob("*.arrow"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.raises(TpoError, match=r"\.arrow is damaged .*: delete it and run again"):
        make(store, plan(requests(31)))


def test_two_runs_that_make_a_file_differently_leave_each_other_whole(tmp_path):
    class Other(Counting):
        def decode(self, request: DecodeRequest) -> DecodedMedia:
            return replace(super().decode(request), jpegs=(b"by another decoder",))

    store, (job, *_) = MediaStore(str(tmp_path), "media"), plan(requests(3))
    write_shard(store.uri, job, Counting(), lambda *_: None)
    first = store.finished([job])[job.name]["file"]
    write_shard(store.uri, job, Other(), lambda *_: None)
    second = store.finished([job])[job.name]["file"]
    assert first["name"] != second["name"]
    assert uris.sha256_file(tmp_path / first["name"]) == first["sha256"]


def test_only_files_that_were_left_long_ago_are_swept(tmp_path):
    (tmp_path / ".old.arrow.7").write_bytes(b"half")
    (tmp_path / ".new.arrow.8").write_bytes(b"half")
    os.utime(tmp_path / ".old.arrow.7", (1, 1))
    (tmp_path / ".snapshot").mkdir()  # as some file servers have
    os.utime(tmp_path / ".snapshot", (1, 1))
    MediaStore(str(tmp_path), "media").sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new.arrow.8", ".snapshot"]
