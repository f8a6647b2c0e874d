"""What all readers share: options, splits, missing files, and the check of every sample."""

import json
from pathlib import Path

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.readers.base import below, fill
from tpo_core.errors import TpoError


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", READERS)
def test_a_missing_root_is_one_line_that_names_it(name, tmp_path):
    reader = READERS[name]
    with pytest.raises(TpoError) as error:
        list(reader.read(str(tmp_path / "nowhere"), reader.default_split, {}))
    assert str(tmp_path / "nowhere") in one_line(error)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("charades_sta", "charades_sta_dev.txt"),
        ("qvhighlights", "highlight_dev_release.jsonl"),
        ("mevis", "dev/meta_expressions.json"),
        ("got10k", "dev"),
        ("videochat2_it", "dev.json"),
        ("jsonl", "dev.jsonl"),
    ],
)
def test_an_unknown_split_names_the_file_that_was_expected(name, expected, tmp_path):
    with pytest.raises(TpoError) as error:
        list(READERS[name].read(str(tmp_path), "dev", {}))
    assert str(Path(tmp_path, expected)) in one_line(error)


def test_a_file_of_another_split_is_pointed_at(tmp_path):
    (tmp_path / "charades_sta_test.txt").touch()
    with pytest.raises(TpoError, match=r"there is charades_sta_test\.txt"):
        list(READERS["charades_sta"].read(str(tmp_path), "val", {}))


@pytest.mark.parametrize("name", READERS)
def test_an_unknown_option_is_refused_at_once(name, tmp_path):
    with pytest.raises(TpoError, match="no option 'label'; did you mean 'labels'"):
        READERS[name].read(str(tmp_path), "train", {"label": "x"})


def test_a_bad_option_value_names_the_good_ones(tmp_path):
    with pytest.raises(TpoError, match="is one of frames, mp4; not 'avi'"):
        READERS["mevis"].read(str(tmp_path), "train", {"media": "avi"})


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("charades_sta", {"charades_sta_train.txt": "", "Charades_v1_train.csv": "id,length\n"}),
        ("qvhighlights", {"highlight_train_release.jsonl": "\n"}),
        ("mevis", {"train/meta_expressions.json": '{"videos": {}}'}),
        ("got10k", {"train/list.txt": ""}),
        ("videochat2_it", {"train.json": "[]"}),
        ("mot15", {"readme.txt": ""}),
        ("jsonl", {"train.jsonl": ""}),
    ],
)
def test_an_empty_dataset_gives_nothing(name, files, tmp_path):
    for path, text in files.items():
        Path(tmp_path, path).parent.mkdir(exist_ok=True)
        Path(tmp_path, path).write_text(text)
    reader = READERS[name]
    assert list(reader.read(str(tmp_path), reader.default_split, {})) == []


def test_file_uris_are_read(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps([{"QA": [{"q": "1 + 1?", "a": "2"}]}]))
    (sample,) = READERS["videochat2_it"].read(f"file://{tmp_path}", "train", {})
    assert (sample.task, sample.media) == ("chat", ())


def test_a_broken_json_file_is_a_user_error(tmp_path):
    (tmp_path / "train.json").write_text("[{")
    with pytest.raises(TpoError, match="is not JSON"):
        list(READERS["videochat2_it"].read(str(tmp_path), "train", {}))


def test_text_in_another_encoding_is_a_user_error(tmp_path):
    (tmp_path / "train.jsonl").write_bytes("caf\u00e9".encode("latin-1"))
    with pytest.raises(TpoError, match="not UTF-8"):
        list(READERS["jsonl"].read(str(tmp_path), "train", {}))


def test_what_validation_refuses_becomes_a_reject_that_says_why(tmp_path):
    (tmp_path / "charades_sta_train.txt").write_text("V 40.0 50.0##too late.\n")
    (tmp_path / "Charades_v1_train.csv").write_text("id,length\nV,30.5\n")
    (reject,) = READERS["charades_sta"].read(str(tmp_path), "train", {})
    assert isinstance(reject, Reject)
    assert (reject.uri, reject.reason) == ("charades_sta_train.txt:1", "moment_past_end")
    assert "30.5" in reject.detail


def test_paths():
    assert below("", "/a/", "b") == "a/b"
    assert fill("{split}/{name}.mp4", name="x{y}", split="val") == "val/x{y}.mp4"
