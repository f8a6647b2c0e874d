"""The same behaviour on a disk and on S3."""

import errno
import hashlib
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from tpo_core.errors import TpoError
from tpo_core.storage import local, uri


@pytest.fixture(params=["path", "file", "s3"])
def root(request, tmp_path) -> str:
    if request.param == "s3":
        return request.getfixturevalue("bucket") + "/deep/er"
    return str(tmp_path) if request.param == "path" else f"file://{tmp_path}"


def test_bytes_come_back_and_are_replaced(root):
    name = uri.join(root, "a", "b.bin")
    assert not uri.exists(name)
    uri.write_bytes(name, b"\x00one")
    uri.write_bytes(name, b"two")
    assert uri.read_bytes(name) == b"two"
    assert uri.exists(name)
    assert uri.exists(uri.join(root, "a"))


def test_json_keeps_the_order_of_keys(root):
    value = {"b": [1, 2.5, None], "a": {"c": "text"}}
    uri.write_json(uri.join(root, "x.json"), value)
    back = uri.read_json(uri.join(root, "x.json"))
    assert (back, list(back)) == (value, ["b", "a"])
    with pytest.raises(ValueError, match="JSON"):
        uri.write_json(uri.join(root, "y.json"), {"loss": float("nan")})
    assert not uri.exists(uri.join(root, "y.json"))


def test_what_is_not_there_is_not_there(root):
    with pytest.raises(FileNotFoundError):
        uri.read_bytes(uri.join(root, "none"))
    with pytest.raises(FileNotFoundError):
        uri.size_bytes(uri.join(root, "none"))
    assert uri.list_names(uri.join(root, "none")) == []
    uri.delete(uri.join(root, "none"))


def test_nothing_is_below_a_file(root):
    uri.write_bytes(uri.join(root, "file"), b"1")
    with pytest.raises(FileNotFoundError):
        uri.read_bytes(uri.join(root, "file", "below"))
    uri.delete(uri.join(root, "file", "below"))
    assert uri.exists(uri.join(root, "file"))


def test_of_a_link_what_it_points_to_stays(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    uri.delete(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_names_are_direct_children_only(root):
    for name in ("z.txt", "b/inner.txt", "b/c/deep.txt", "a.txt"):
        uri.write_bytes(uri.join(root, name), b"12")
    assert uri.list_names(root) == ["a.txt", "b", "z.txt"]
    assert uri.list_names(uri.join(root, "b")) == ["c", "inner.txt"]


def test_sizes_add_up_below_a_folder_but_not_beside_it(root):
    uri.write_bytes(uri.join(root, "run/a"), b"123")
    uri.write_bytes(uri.join(root, "run/b/c"), b"4567")
    uri.write_bytes(uri.join(root, "run.other"), b"8")
    assert uri.size_bytes(uri.join(root, "run")) == 7
    assert uri.size_bytes(uri.join(root, "run/a")) == 3


def test_delete_takes_a_folder_and_leaves_its_namesake(root):
    for name in ("run/a", "run/b/c", "runs/a"):
        uri.write_bytes(uri.join(root, name), b"1")
    uri.delete(uri.join(root, "run"))
    assert not uri.exists(uri.join(root, "run"))
    assert uri.exists(uri.join(root, "runs/a"))


def test_write_new_lets_only_the_first_in(root):
    name = uri.join(root, "x", "lease")
    assert uri.write_new(name, b"first")
    assert not uri.write_new(name, b"second")
    assert uri.read_bytes(name) == b"first"
    assert uri.list_names(uri.join(root, "x")) == ["lease"]


@pytest.mark.parametrize(
    ("base", "parts", "joined"),
    [
        ("runs", ("a", "b"), "runs/a/b"),
        ("runs/", ("a/b",), "runs/a/b"),
        ("s3://bucket", ("a",), "s3://bucket/a"),
        ("s3://bucket/x/", ("a",), "s3://bucket/x/a"),
        ("file:///my%20data", ("a%20b",), "/my data/a%20b"),
        ("file:///data", (), "file:///data"),
        ("s3://bucket", ("/abs", "a"), "/abs/a"),
        ("runs", ("s3://bucket/x",), "s3://bucket/x"),
        ("/", ("a",), "/a"),
        (Path("runs"), (), "runs"),
    ],
)
def test_join(base, parts, joined):
    assert uri.join(base, *parts) == joined


def test_an_unknown_scheme_is_named():
    with pytest.raises(TpoError, match="unknown storage gs://; use a path, file:// or s3://"):
        uri.exists("gs://bucket/x")


def test_file_uris_are_unquoted(tmp_path):
    uri.write_bytes(f"file://{tmp_path}/a%20b", b"x")
    assert (tmp_path / "a b").read_bytes() == b"x"


def test_sha256_of_a_file(tmp_path):
    (tmp_path / "x").write_bytes(b"abc" * 100_000)
    assert uri.sha256_file(tmp_path / "x") == hashlib.sha256(b"abc" * 100_000).hexdigest()


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path, monkeypatch, call, code):
    uri.write_bytes(tmp_path / "x", b"old")

    def full(*_):
        raise OSError(code, "no space")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(TpoError, match=r"^disk full while writing .*x \(\d+ bytes free on its disk\)"):
        uri.write_bytes(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"old"
    assert uri.list_names(tmp_path) == ["x"]


def test_other_disk_errors_are_not_renamed(tmp_path):
    with pytest.raises(PermissionError), local.disk_full_told(tmp_path):
        raise PermissionError(errno.EACCES, "no")


def test_a_full_disk_is_told_whatever_type_a_library_gives_it(tmp_path):
    class SerializeError(Exception):
        pass

    with pytest.raises(TpoError, match=r"^disk full while writing"), local.disk_full_told(tmp_path):
        raise SerializeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(SerializeError), local.disk_full_told(tmp_path):
        raise SerializeError("I/O error: Permission denied (os error 13)")


def test_a_full_disk_told_further_down_keeps_its_line(tmp_path):
    line = "disk full while writing x: No space left on device"
    with pytest.raises(TpoError, match=f"^{line}$"), local.disk_full_told(tmp_path):
        raise TpoError(line)


def test_free_space_is_told_for_a_folder_not_made_yet(tmp_path):
    with pytest.raises(TpoError, match="bytes free"), local.disk_full_told(tmp_path / "not" / "yet"):
        raise OSError(errno.ENOSPC, "no space")


def test_scratch_is_where_the_user_says(monkeypatch, tmp_path):
    monkeypatch.setenv("TPO_SCRATCH", str(tmp_path))
    assert uri.scratch_dir() == tmp_path
    monkeypatch.delenv("TPO_SCRATCH")
    assert uri.scratch_dir().name == "tpo"


def test_a_listing_tells_sizes_and_a_tag_that_changes_with_the_content(root):
    uri.write_bytes(f"{root}/a.bin", b"12345")
    uri.write_bytes(f"{root}/folder/b.bin", b"1")
    before = uri.entries(root)
    assert {name: each.size_bytes for name, each in before.items()} == {"a.bin": 5}
    assert uri.entry(f"{root}/a.bin") == before["a.bin"]
    uri.write_bytes(f"{root}/a.bin", b"54321")
    assert uri.entries(root)["a.bin"].size_bytes == 5
    assert uri.entries(root)["a.bin"].tag != before["a.bin"].tag
    assert uri.entry(f"{root}/c.bin") is None
    assert uri.entry(f"{root}/a.bin/c.bin") is None
    assert uri.entries(f"{root}/nothing") == {}


def test_a_file_that_goes_while_a_folder_is_listed_is_left_out(tmp_path, monkeypatch):
    (tmp_path / "a.bin").write_bytes(b"1")

    class Gone:
        name = ".b.bin.aside"

        def is_file(self):
            return True

        def stat(self):
            raise FileNotFoundError(self.name)

    with os.scandir(tmp_path) as found:
        listed = [*found, Gone()]
    monkeypatch.setattr(os, "scandir", lambda path: nullcontext(listed))
    assert list(uri.entries(tmp_path)) == ["a.bin"]


def test_a_file_moves_to_its_place_and_is_copied_back(root, tmp_path):
    content = bytes(range(256)) * 1000
    (tmp_path / "made").write_bytes(content)
    uri.put_file(tmp_path / "made", f"{root}/folder/x.bin")
    assert not (tmp_path / "made").exists()
    assert uri.list_names(f"{root}/folder") == ["x.bin"]
    uri.copy_here(f"{root}/folder/x.bin", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content
    with pytest.raises(FileNotFoundError):
        uri.copy_here(f"{root}/none", tmp_path / "none")


def test_the_stamp_of_a_folder_follows_every_file_below_it(root):
    for name in ("a.json", "videos/1.mp4", ".hidden/x", "runs/out.bin"):
        uri.write_bytes(f"{root}/{name}", b"12345")
    before = uri.tree_stamp(root, without=f"{root}/runs")
    uri.write_bytes(f"{root}/.hidden/x", b"1")
    uri.write_bytes(f"{root}/runs/out.bin", b"1")
    assert uri.tree_stamp(root, without=f"{root}/runs") == before
    assert uri.tree_stamp(root) != before
    uri.write_bytes(f"{root}/videos/1.mp4", b"54321")
    changed = uri.tree_stamp(root, without=f"{root}/runs")
    uri.write_bytes(f"{root}/videos/2.mp4", b"")
    assert len({before, changed, uri.tree_stamp(root, without=f"{root}/runs")}) == 3
    assert uri.tree_stamp(f"{root}/nothing") == uri.tree_stamp(f"{root}/none")


def test_a_stamp_knows_its_own_output_however_it_is_spelt(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "a").write_text("1")
    before = uri.tree_stamp(f"file://{tmp_path}", without=f"{tmp_path}/runs/")
    (tmp_path / "runs/out").write_text("1")
    assert uri.tree_stamp(f"file://{tmp_path}", without=f"{tmp_path}/runs/") == before
    assert uri.tree_stamp(f"{tmp_path}/", without=f"file://{tmp_path}/runs") == before


def test_a_link_that_leads_back_is_followed_once(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/x").write_text("1")
    (tmp_path / "a/b/up").symlink_to(tmp_path / "a")
    assert [name for name, _ in local.tree(str(tmp_path))] == ["a/b/x"]


def test_what_cannot_be_a_file_is_not_there(tmp_path):
    """Label files name such things; they must not end the job that looks for them."""
    uri.write_bytes(tmp_path / "a.jpg", b"1")
    os.symlink("loop", tmp_path / "loop")
    assert uri.entry(tmp_path / "a.jpg") is not None
    for name in (".", "a.jpg/b.jpg", "x" * 400, "loop"):
        assert uri.entry(tmp_path / name) is None
