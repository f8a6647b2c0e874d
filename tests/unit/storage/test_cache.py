"""Files are checked before their first use, and copies of remote ones stay within a limit."""

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tpo_core.errors import TpoError
from tpo_core.storage import cache, uri

REMEDY = "delete it, then run again"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(autouse=True)
def scratch(tmp_path, monkeypatch):
    monkeypatch.setenv("TPO_SCRATCH", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


def test_a_damaged_file_is_named(tmp_path):
    path = tmp_path / "a.arrow"
    path.write_bytes(b"content")
    cache.verify(path, 7, sha(b"content"), REMEDY)
    path.write_bytes(b"c0ntent")
    os.utime(path, ns=(1, 1))  # as another time of change tells
    with pytest.raises(TpoError, match=r"a\.arrow is damaged \(its checksum .*: delete it, then run again$"):
        cache.verify(path, 7, sha(b"content"), REMEDY)
    path.write_bytes(b"cont")
    with pytest.raises(TpoError, match=r"a\.arrow is damaged \(4 bytes, 7 were written\)"):
        cache.verify(path, 7, sha(b"content"), REMEDY)
    with pytest.raises(TpoError, match=r"b\.arrow is missing"):
        cache.verify(tmp_path / "b.arrow", 7, sha(b"content"), REMEDY)


def test_the_checksum_of_a_file_is_computed_once(tmp_path, monkeypatch):
    path = tmp_path / "a.arrow"
    path.write_bytes(b"content")
    cache.verify(path, 7, sha(b"content"), REMEDY)
    monkeypatch.setattr(uri, "sha256_file", lambda path: pytest.fail("computed again"))
    cache.verify(path, 7, sha(b"content"), REMEDY)


def held(uri: str, size_bytes: int, sha256: str) -> Path:
    with cache.cached(uri, size_bytes, sha256, REMEDY) as path:
        assert sha(path.read_bytes()) == sha256
        return path


@pytest.fixture
def remote(bucket, scratch, monkeypatch):
    """(uri, size, sha256) of four objects of 300 KiB; the fixture of the bucket sets a scratch folder, too."""
    monkeypatch.setenv("TPO_SCRATCH", str(scratch))
    objects = [bytes([number]) * 300_000 for number in range(4)]
    for number, data in enumerate(objects):
        uri.write_bytes(f"{bucket}/{number}", data)
    return [(f"{bucket}/{number}", len(data), sha(data)) for number, data in enumerate(objects)]


def test_a_copy_is_made_once_and_the_longest_unused_goes_first(remote, monkeypatch):
    monkeypatch.setenv("TPO_CACHE_GIB", str(1_000_000 / 2**30))  # room for three
    first, second, third = (held(*each) for each in remote[:3])
    for age, path in enumerate((first, second, third)):
        os.utime(path, ns=(age, age))
    assert held(*remote[0]) == first  # used again, so the second is the oldest now
    fourth = held(*remote[3])
    assert [path.exists() for path in (first, second, third, fourth)] == [True, False, True, True]
    with monkeypatch.context() as patch:
        patch.setattr(uri, "copy_here", lambda *_: pytest.fail("fetched again"))
        assert held(*remote[0]).read_bytes() == bytes(300_000)
    assert held(*remote[1]).read_bytes() == bytes([1]) * 300_000


def test_a_copy_that_is_being_opened_is_not_made_room_of(remote, monkeypatch):
    monkeypatch.setenv("TPO_CACHE_GIB", str(300_000 / 2**30))  # room for one
    with cache.cached(*remote[0], REMEDY) as first:
        second = held(*remote[1])
        assert first.exists()
    third = held(*remote[2])
    assert [path.exists() for path in (first, second, third)] == [False, False, True]


def test_what_a_killed_download_left_counts_and_goes_with_the_next_of_its_file(remote, scratch, monkeypatch):
    monkeypatch.setenv("TPO_CACHE_GIB", str(700_000 / 2**30))  # room for two
    first = held(*remote[0])
    left = scratch / "shards" / f".{remote[1][2]}.12345"
    left.write_bytes(bytes(250_000))
    second = held(*remote[2])
    assert [path.exists() for path in (first, left, second)] == [False, True, True]
    held(*remote[1])
    assert not left.exists()


def test_what_killed_downloads_of_other_files_left_makes_room_too(remote, scratch, monkeypatch):
    monkeypatch.setenv("TPO_CACHE_GIB", str(700_000 / 2**30))  # room for two
    left = scratch / "shards" / f".{remote[1][2]}.12345"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(500_000))
    first = held(*remote[0])
    assert (left.exists(), first.exists()) == (False, True)


def test_what_is_not_what_was_written_is_refused_and_leaves_nothing(remote, scratch):
    place, size, _ = remote[0]
    with pytest.raises(TpoError, match=f"{place} is damaged"):
        held(place, size, sha(b"else"))
    with pytest.raises(TpoError, match=f"{place}gone is missing"):
        held(f"{place}gone", size, sha(b"else"))
    assert [path for path in (scratch / "shards").iterdir() if path.suffix != ".lock"] == []


def test_a_limit_that_is_no_number_is_told(monkeypatch):
    monkeypatch.setenv("TPO_CACHE_GIB", "plenty")
    with pytest.raises(TpoError, match="TPO_CACHE_GIB='plenty' is no number"):
        cache.limit_bytes()
    monkeypatch.setenv("TPO_CACHE_GIB", "inf")
    assert cache.limit_bytes() > 10**18


def test_processes_that_make_room_for_each_other_all_get_their_file(remote, monkeypatch):
    monkeypatch.setenv("TPO_CACHE_GIB", str(700_000 / 2**30))  # room for two of four
    with ThreadPoolExecutor(4) as pool:  # the locks are those of open files, so threads are as good as processes
        paths = list(pool.map(lambda turn: held(*remote[turn % 4]).name, range(80)))
    assert [path.removesuffix(".arrow") for path in paths] == [remote[turn % 4][2] for turn in range(80)]
