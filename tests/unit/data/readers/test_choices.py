"""What readers of choices share: record files, letters, and the sample of a question."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tpo_core.data.readers._choices import letter_index, stream_rows, text_index, without_letters
from tpo_core.errors import TpoError


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["A. a cat", "B. a dog."], ("a cat", "a dog.")),
        (["(A) a cat", "(B) a dog"], ("a cat", "a dog")),
        (["A) 1", "B:2"], ("1", "2")),
        (["A. Lincoln", "G. Washington"], ("A. Lincoln", "G. Washington")),
        (["a cat", "B. a dog"], ("a cat", "B. a dog")),
        (["B. a dog", "A. a cat"], ("B. a dog", "A. a cat")),
        (["A cat", "B movie"], ("A cat", "B movie")),
    ],
)
def test_letters_are_stripped_where_every_option_has_its_own(options, expected):
    assert without_letters(options) == expected


def test_letters_and_texts_name_an_option():
    assert [letter_index(letter) for letter in ("A", " D ")] == [0, 3]
    assert text_index("1", ["1", "2", "1"]) == 0
    assert text_index("1", ["1", "2", "1"], last=True) == 2
    assert text_index("3", ["1", "2", "1"], last=True) is None


@pytest.mark.parametrize("letter", ["", "AB", "a", "?"])
def test_what_is_no_letter_is_refused(letter):
    with pytest.raises(ValueError, match=r".+"):
        letter_index(letter)


ROWS = [{"question": f"q{i}", "options": ["A. x", "B. y"]} for i in range(600)]


def write(root, suffix):
    path = root / f"rows.{suffix}"
    if suffix == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), path)
    else:
        path.write_text(json.dumps(ROWS) if suffix == "json" else "\n".join(map(json.dumps, ROWS)) + "\n\n")
    return path


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
def test_records_are_the_same_from_every_kind_of_file(tmp_path, suffix):
    assert list(stream_rows(str(tmp_path), write(tmp_path, suffix).name, "reader")) == ROWS


@pytest.mark.parametrize("suffix", ["json", "jsonl", "parquet"])
def test_a_missing_file_is_told(tmp_path, suffix):
    with pytest.raises(TpoError, match="expected the label file"):
        list(stream_rows(str(tmp_path), f"rows.{suffix}", "reader"))


@pytest.mark.parametrize("suffix", ["json", "parquet"])
def test_a_cut_off_file_is_told(tmp_path, suffix):
    path = write(tmp_path, suffix)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(TpoError, match="is the download complete") as error:
        list(stream_rows(str(tmp_path), path.name, "reader"))
    assert "\n" not in str(error.value)


def test_a_broken_line_comes_as_text(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n{"a": \n{"a": 2}\n')
    assert list(stream_rows(str(tmp_path), "rows.jsonl", "reader")) == [{"a": 1}, '{"a": ', {"a": 2}]
