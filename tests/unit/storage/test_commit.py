"""Nothing counts before _SUCCESS, and _SUCCESS comes last."""

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tpo_core.errors import TpoError
from tpo_core.storage import local, s3, uri
from tpo_core.storage.commit import commit, fetch, forget_copies, is_committed

FILES = {"a.txt": b"one", "sub/b.bin": b"two"}


@pytest.fixture
def staging(tmp_path):
    root = tmp_path / "work" / "x.partial"
    for name, data in FILES.items():
        uri.write_bytes(root / name, data)
    return root


@pytest.fixture(params=["disk", "s3"])
def target(request, tmp_path) -> str:
    return str(tmp_path / "out" / "x") if request.param == "disk" else request.getfixturevalue("bucket") + "/out/x"


def test_commit_moves_everything_and_marks_it(staging, target):
    commit(staging, target)
    assert is_committed(target)
    assert {name: uri.read_bytes(uri.join(target, name)) for name in FILES} == FILES
    assert not staging.exists()


def test_a_folder_without_the_mark_is_replaced(staging, target):
    uri.write_bytes(uri.join(target, "half.txt"), b"half")
    assert not is_committed(target)
    commit(staging, target)
    assert uri.list_names(target) == ["_SUCCESS", "a.txt", "sub"]


def test_a_committed_folder_is_never_overwritten(staging, target):
    uri.write_bytes(uri.join(target, "_SUCCESS"), b"")
    with pytest.raises(TpoError, match="is committed already"):
        commit(staging, target)
    assert (staging / "a.txt").exists()


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_nothing_committed(staging, tmp_path, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(TpoError, match=r"^disk full while writing .*x\.partial.*\d+ bytes free"):
            commit(staging, tmp_path / "out" / "x")
    assert not is_committed(tmp_path / "out" / "x")
    assert not is_committed(staging)
    commit(staging, tmp_path / "out" / "x")
    assert is_committed(tmp_path / "out" / "x")


def test_a_disk_that_fills_up_at_the_last_rename_leaves_nothing_committed(staging, tmp_path, monkeypatch):
    real = os.replace

    def full(source, target):
        if str(source).endswith(".partial"):
            raise OSError(errno.ENOSPC, "no space")
        real(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(TpoError, match="disk full"):
        commit(staging, tmp_path / "out" / "x")
    assert not is_committed(staging)
    assert (staging / "sub" / "b.bin").read_bytes() == b"two"


def test_every_file_is_synced_before_the_mark_is_written(staging, tmp_path, monkeypatch):
    synced = []
    real_sync, real_write = local.sync, local.write_bytes
    monkeypatch.setattr(local, "sync", lambda path: (synced.append(path.name), real_sync(path)))
    monkeypatch.setattr(local, "write_bytes", lambda *args: (synced.append("MARK"), real_write(*args)))
    commit(staging, tmp_path / "out" / "x")
    assert {"a.txt", "b.bin", "sub"} <= set(synced[: synced.index("MARK")])


def test_on_s3_the_mark_is_uploaded_last(staging, bucket, monkeypatch):
    sent = []
    client = s3.client()
    real = client.upload_file
    monkeypatch.setattr(client, "upload_file", lambda path, *args: (sent.append(args[-1]), real(path, *args)))
    commit(staging, f"{bucket}/out/x")
    assert sent == ["out/x/a.txt", "out/x/sub/b.bin", "out/x/_SUCCESS"]


def test_an_upload_that_breaks_leaves_nothing_committed(staging, bucket, monkeypatch):
    client = s3.client()
    real = client.upload_file

    def breaks(path, *args):
        if path.endswith("b.bin"):
            raise ConnectionResetError("gone")
        real(path, *args)

    with monkeypatch.context() as patch:
        patch.setattr(client, "upload_file", breaks)
        with pytest.raises(ConnectionResetError):
            commit(staging, f"{bucket}/out/x")
    assert not is_committed(f"{bucket}/out/x")
    assert not is_committed(staging)
    commit(staging, f"{bucket}/out/x")
    assert is_committed(f"{bucket}/out/x")


def test_fetch_gives_a_local_folder_itself(staging):
    assert fetch(staging) == staging
    assert fetch(f"file://{staging}") == staging


def test_fetch_copies_from_s3_once(staging, bucket, monkeypatch):
    commit(staging, f"{bucket}/out/x")
    copy = fetch(f"{bucket}/out/x")
    assert {name: (copy / name).read_bytes() for name in FILES} == FILES
    monkeypatch.setattr(s3, "download_tree", None)
    assert fetch(f"{bucket}/out/x") == copy


def test_fetch_refuses_what_is_not_committed(bucket):
    uri.write_bytes(f"{bucket}/out/x/a.txt", b"half")
    with pytest.raises(FileNotFoundError, match="not committed"):
        fetch(f"{bucket}/out/x")


def test_an_interrupted_fetch_is_made_again(staging, bucket, monkeypatch):
    commit(staging, f"{bucket}/out/x")

    def breaks(_, root):
        uri.write_bytes(root / "a.txt", b"ha")
        raise ConnectionResetError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(s3, "download_tree", breaks)
        with pytest.raises(ConnectionResetError):
            fetch(f"{bucket}/out/x")
    assert (fetch(f"{bucket}/out/x") / "a.txt").read_bytes() == b"one"


def test_a_folder_that_was_made_again_is_fetched_again(staging, bucket, tmp_path):
    commit(staging, f"{bucket}/out/x")
    first = fetch(f"{bucket}/out/x")
    uri.delete(f"{bucket}/out/x")
    (tmp_path / "again").mkdir()
    (tmp_path / "again/a.txt").write_bytes(b"two")
    commit(tmp_path / "again", f"{bucket}/out/x")
    assert (fetch(f"{bucket}/out/x") / "a.txt").read_bytes() == b"two"
    assert (first / "a.txt").read_bytes() == b"one"  # a process may be reading it


def test_workers_of_a_node_that_fetch_at_once_share_one_download(staging, bucket, monkeypatch):
    commit(staging, f"{bucket}/out/x")
    real, downloads = s3.download_tree, []
    monkeypatch.setattr(s3, "download_tree", lambda *args: (downloads.append(1), real(*args)))
    with ThreadPoolExecutor(4) as pool:  # the lock is that of an open file, so threads are as good as processes
        copies = set(pool.map(lambda _: fetch(f"{bucket}/out/x"), range(8)))
    assert (len(copies), len(downloads)) == (1, 1)


def test_copies_of_a_folder_are_forgotten_and_those_of_others_kept(bucket, tmp_path):
    copies = {}
    for name in ("model", "model-2"):
        for content in ("old", "new"):
            uri.delete(f"{bucket}/{name}")
            (tmp_path / "staged").mkdir()
            (tmp_path / "staged" / "weights").write_text(content * len(name))
            commit(tmp_path / "staged", f"{bucket}/{name}")
            copies[name, content] = fetch(f"{bucket}/{name}")
    forget_copies(f"{bucket}/model")
    assert {key for key, copy in copies.items() if copy.exists()} == {("model-2", "old"), ("model-2", "new")}
    forget_copies(f"{bucket}/never-fetched")
