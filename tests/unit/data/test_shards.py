"""Shard sets: what is written comes back, and only a finished set of this schema opens."""

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from tests.media_files import write_media
from tpo_core.data.sample import SCHEMA_VERSION, Media, Provenance, Rle, Sample, Target, TrackEntry, Turn, kind_of
from tpo_core.data.shards import ShardSet, write_manifest, write_media_index, write_media_shard, write_samples
from tpo_core.errors import TpoError
from tpo_core.storage.uri import sha256_file


def make_sample(number: int, task: str = "span") -> Sample:
    track = tuple(TrackEntry(frame=k, visible=True, rle=Rle(2, 2, b"04")) for k in range(3))
    target = Target(kind="span", span_s=(0.5, 1.5)) if task == "span" else Target(kind="mask", track=track)
    turns = (Turn("user", f"question {number}?", (0,)), Turn("assistant", "an answer", (), (0,)))
    provenance = Provenance(source_file="a.txt", row=number, native_id=str(number), reader="jsonl")
    media = (Media(uri=f"videos/{number % 5}.mp4", kind="video", fps=10.0),)
    return Sample(f"set/train/{number}", "set", "train", task, media, turns, provenance, targets=(target,))


def media_row(number: int, n_frames: int = 3) -> dict:
    jpegs = []
    for k in range(n_frames):
        buffer = io.BytesIO()
        Image.new("RGB", (20, 10), (number, 10 * k, 0)).save(buffer, "PNG")
        jpegs.append(buffer.getvalue())
    return {
        "uri": f"videos/{number}.mp4",
        "kind": "video",
        "width": 40,
        "height": 20,
        "stored_width": 20,
        "stored_height": 10,
        "n_frames": 30,
        "fps": None if number == 1 else 10.0,
        "duration_s": 3.0,
        "frame_index": [10 * k for k in range(n_frames)],
        "frame_times_s": [1.0 * k for k in range(n_frames)],
        "frames": jpegs,
        "decoder": "decord",
    }


@pytest.fixture
def written(tmp_path):
    files = write_media(tmp_path, map(media_row, range(40)))
    samples = [make_sample(k, "mask" if k % 3 == 0 else "span") for k in range(20)]
    files.update(write_samples(tmp_path, "train", samples))
    write_manifest(tmp_path, {"files": files, "counts": {"train": {"mask": {"set": 7}, "temporal": {"set": 13}}}})
    return tmp_path, samples


def test_samples_come_back_as_they_were_written(written):
    root, samples = written
    table = ShardSet.open(root).samples("train")
    assert list(table) == samples
    assert table[19] == samples[19]
    with pytest.raises(IndexError):
        table[20]


def test_samples_are_split_over_files_and_found_across_them(tmp_path, monkeypatch):
    monkeypatch.setattr("tpo_core.data.shards.SAMPLES_PER_FILE", 8)
    samples = [make_sample(k) for k in range(20)]
    files = write_samples(tmp_path, "val", samples)
    assert [record["rows"] for record in files.values()] == [8, 8, 4]
    write_manifest(tmp_path, {"files": files, "counts": {"val": {"temporal": {"set": 20}}}})
    assert list(ShardSet.open(tmp_path).samples("val")) == samples


def test_the_kind_index_lists_every_sample_of_a_kind(written):
    root, samples = written
    shards = ShardSet.open(root)
    index = shards.samples("train").kind_index
    assert (
        {kind: len(members) for kind, members in index.items()} == shards.counts("train") == {"mask": 7, "temporal": 13}
    )
    assert all(kind_of(samples[i]) == kind for kind, members in index.items() for i in members)


def test_counts_and_members_of_some_data_sets_agree(tmp_path, monkeypatch):
    monkeypatch.setattr("tpo_core.data.shards.SAMPLES_PER_FILE", 4)
    samples = [replace(make_sample(k, "mask" if k % 3 == 0 else "span"), dataset="ab"[k % 2]) for k in range(10)]
    files = write_samples(tmp_path, "train", samples)
    counts = {"train": {"mask": {"a": 2, "b": 2}, "temporal": {"a": 3, "b": 3}}}
    write_manifest(tmp_path, {"files": files, "counts": counts})
    shards = ShardSet.open(tmp_path)
    members = {kind: index.tolist() for kind, index in shards.samples("train").members(["b"]).items()}
    assert members == {"mask": [3, 9], "temporal": [1, 5, 7]}
    assert shards.counts("train", ["b"]) == {"mask": 2, "temporal": 3}
    assert shards.samples("train").members([]).keys() == {"mask", "temporal"}
    with pytest.raises(TpoError, match=r"has nothing of data set 'c'; known: a, b"):
        shards.counts("train", ["c"])


def test_samples_of_the_same_media_have_the_same_media_number(tmp_path, monkeypatch):
    monkeypatch.setattr("tpo_core.data.shards.SAMPLES_PER_FILE", 4)
    samples = [make_sample(k) for k in range(10)] + [replace(make_sample(k), media=()) for k in (10, 11)]
    files = write_samples(tmp_path, "train", samples)
    write_manifest(tmp_path, {"files": files, "counts": {"train": {"temporal": {"set": 12}}}})
    numbers = ShardSet.open(tmp_path).samples("train").media_numbers.tolist()
    assert numbers[:5] == numbers[5:10]
    assert len(set(numbers)) == 5 + 2, "samples without media share nothing"


def test_a_media_row_gives_its_frames(written):
    shards = ShardSet.open(written[0])
    row = shards.media("videos/33.mp4")
    assert row.frames_THWC().shape == (3, 10, 20, 3)
    assert row.frames_THWC().dtype == np.uint8
    assert row.frames_THWC()[2, 0, 0].tolist() == [33, 20, 0]
    assert row.frames_THWC(np.array([2, 0])).tolist() == row.frames_THWC()[[2, 0]].tolist()
    assert row.frames_THWC(np.array([], np.int64)).shape == (0, 10, 20, 3)
    assert row.frame_index.tolist() == [0, 10, 20]
    assert row.times_s.tolist() == [0.0, 1.0, 2.0]
    assert (row.width, row.height, row.n_frames, row.duration_s, row.fps) == (40, 20, 30, 3.0, 10.0)
    assert shards.media("videos/1.mp4").fps is None
    with pytest.raises(KeyError):
        shards.media("videos/99.mp4")


def test_only_a_finished_set_opens(tmp_path):
    with pytest.raises(TpoError, match="no finished shard set"):
        ShardSet.open(tmp_path)


def test_another_schema_version_is_refused(written):
    path = written[0] / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(TpoError, match=f"schema version {SCHEMA_VERSION + 1}"):
        ShardSet.open(written[0])


def test_an_unknown_part_names_the_known_ones(written):
    with pytest.raises(TpoError, match=r"no part 'test'; it has train"):
        ShardSet.open(written[0]).samples("test")


def test_the_digest_follows_the_content(written, tmp_path_factory):
    root, samples = written
    digest = ShardSet.open(root).digest
    assert ShardSet.open(str(root)).digest == digest
    manifest = ShardSet.open(root).manifest
    manifest["files"].update(write_samples(root, "train", samples[:-1]))
    write_manifest(root, manifest)
    assert ShardSet.open(root).digest != digest


def test_a_failure_while_writing_leaves_no_shard(tmp_path):
    def rows():
        yield media_row(0)
        raise RuntimeError("planted")

    with pytest.raises(RuntimeError, match="planted"):
        write_media_shard(tmp_path / "media/00000.arrow", rows())
    assert not (tmp_path / "media/00000.arrow").exists()


@pytest.mark.parametrize("name", ["media/00000.arrow", "samples/train-00000.arrow", "samples/media.arrow"])
@pytest.mark.parametrize("damage", ["flipped", "cut", "gone", "another schema"])
def test_a_file_that_is_not_what_was_written_is_named(written, tmp_path, monkeypatch, name, damage):
    monkeypatch.setenv("TPO_SCRATCH", str(tmp_path / "scratch"))
    root, _ = written
    path, manifest = root / name, ShardSet.open(written[0]).manifest
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        path.unlink()
    elif damage == "another schema":
        with pa.ipc.new_file(path, pa.schema([("x", pa.int8())])) as writer:
            writer.write_table(pa.table({"x": pa.array([1], pa.int8())}))
        manifest["files"][name] = {"rows": 1, "bytes": path.stat().st_size, "sha256": sha256_file(path)}
        write_manifest(root, manifest)
    else:
        path.write_bytes(content if damage == "flipped" else content[:-1])
    with pytest.raises(TpoError, match=rf"{name} (is damaged|is missing|has another schema)") as caught:
        use_all(ShardSet.open(root))
    assert "\n" not in str(caught.value)
    if damage != "another schema":  # a finished set is skipped, so that running again is not enough
        assert str(caught.value).endswith(
            f"delete it and {root}, then run preprocessing again (media that are whole stay)"
        )


def use_all(shards: ShardSet) -> None:
    for sample in shards.samples("train"):
        shards.media(sample.media[0].uri)


def test_media_are_found_in_any_file_and_equal_hashes_are_told_apart(tmp_path, monkeypatch):
    monkeypatch.setattr("tpo_core.data.shards._key_hash", lambda key: len(key))
    full = [{"features": None, "features_dim": None, "media_duration_s": 3.0} | media_row(k) for k in range(60)]
    files, places = {}, []
    for number in range(3):
        rows = full[number * 20 : (number + 1) * 20]
        files[f"media/{number}.arrow"] = write_media_shard(tmp_path / f"media/{number}.arrow", rows)
        places += [(row["uri"], number, at) for at, row in enumerate(rows)]
    files |= write_media_index(tmp_path, places)
    write_manifest(tmp_path, {"files": files, "counts": {}})
    shards = ShardSet.open(tmp_path)
    assert [shards.media(row["uri"]).uri for row in full] == [row["uri"] for row in full]
    with pytest.raises(KeyError):
        shards.media("videos/xx.mp4")


def test_features_come_back_as_they_were(tmp_path):
    vectors = np.arange(6, dtype=np.float16).reshape(3, 2)
    rows = [media_row(0) | {"features": vectors.tobytes(), "features_dim": 2}, media_row(1)]
    write_manifest(tmp_path, {"files": write_media(tmp_path, rows), "counts": {}})
    shards = ShardSet.open(tmp_path)
    assert (shards.media("videos/0.mp4").features_SD == vectors).all()
    assert shards.media("videos/1.mp4").features_SD is None


def masked(number: int, size_bytes: int) -> Sample:
    track = (TrackEntry(0, True, rle=Rle(9, 9, b"0" * size_bytes)),)
    return replace(make_sample(number, "mask"), targets=(Target("track", track=track),))


def test_large_masks_are_spread_over_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tpo_core.data.shards.SAMPLE_BYTES_PER_FILE", 4000)
    files = write_samples(tmp_path, "train", [masked(number, 400) for number in range(7)])
    assert [record["rows"] for record in files.values()] == [3, 3, 1]


def test_long_tracks_are_spread_over_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tpo_core.data.shards.SAMPLE_BYTES_PER_FILE", 100_000)
    track = tuple(TrackEntry(frame, True, box=(0.0, 0.0, 9.0, 9.0)) for frame in range(60))
    samples = [replace(make_sample(k, "mask"), targets=(Target("track", track=track),)) for k in range(5)]
    files = write_samples(tmp_path, "train", samples)
    assert [record["rows"] for record in files.values()] == [2, 2, 1]


@pytest.mark.slow
def test_a_column_of_more_than_two_gib_comes_back(tmp_path):
    """One film whose frames take 2.1 GiB, as a column of 32-bit offsets could not hold."""
    frame = bytes(70 << 20)
    row = media_row(0) | {"frames": [frame] * 31, "frame_index": list(range(31)), "frame_times_s": [0.0] * 31}
    write_manifest(tmp_path, {"files": write_media(tmp_path, [row, media_row(1)]), "counts": {}})
    shards = ShardSet.open(tmp_path)
    jpegs = shards.media("videos/0.mp4").jpegs
    assert len(jpegs) == 31
    assert jpegs.nbytes > 2 << 30
    assert len(jpegs[30].as_buffer()) == len(frame)
    assert shards.media("videos/1.mp4").frames_THWC()[0, 0, 0].tolist() == [1, 0, 0]
