"""Streaming of annotation files: what comes out, and how a wrong or broken file is told."""

import io
import json
import random

import pytest

from tpo_core.data.readers.files import NOT_UTF8, Mended, read_pickle_list, stream_items, stream_pairs
from tpo_core.errors import TpoError


def write(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    return str(tmp_path), "a.json", "reader"


def test_items_of_a_list_at_the_top_or_under_a_key(tmp_path):
    rows = [{"a": 1, "b": [0.5, "x"]}, 3, None]
    assert list(stream_items(*write(tmp_path, json.dumps(rows)))) == rows
    assert list(stream_items(*write(tmp_path, json.dumps({"info": 1, "rows": rows})), "rows")) == rows
    assert list(stream_items(*write(tmp_path, "[]"))) == []


def test_pairs_of_an_object_at_the_top_or_under_a_key(tmp_path):
    content = {"v1": {"fps": 29.4}, "v2": [1]}
    assert dict(stream_pairs(*write(tmp_path, json.dumps(content)))) == content
    assert dict(stream_pairs(*write(tmp_path, json.dumps({"database": content})), "database")) == content
    assert list(stream_pairs(*write(tmp_path, "{}"))) == []


def test_items_come_before_the_file_is_read_to_its_end(tmp_path):
    rows = stream_items(*write(tmp_path, "[" + "{}," * 100_000 + "broken"))
    assert next(rows) == {}
    with pytest.raises(TpoError, match=r"a\.json is not JSON .*is the download complete"):
        list(rows)


def test_what_one_record_holds_does_not_cost_the_others(tmp_path):
    """Python writes NaN into JSON, and old files hold Latin-1; a strict parser ends at either."""
    text = json.dumps([{"start": 1.5}, {"start": float("nan")}, {"start": float("-inf")}, {"text": "NaN Infinity"}])
    assert list(stream_items(*write(tmp_path, text))) == [
        {"start": 1.5},
        {"start": None},
        {"start": None},
        {"text": "NaN Infinity"},
    ]
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"one": "caf\xc3\xa9", "two": "caf\xe9", "three": "\\"\xe9\\\\"}')
    pairs = dict(stream_pairs(str(tmp_path), "a.json", "reader"))
    assert pairs == {"one": "caf\u00e9", "two": f"caf{NOT_UTF8}", "three": f'"{NOT_UTF8}\\'}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 16])
def test_a_file_is_mended_alike_however_it_is_read(size):
    rng = random.Random(0)
    values = [float("nan"), float("inf"), -float("inf"), -1.5, True, None, '-Infinity "\\', "\u00e9", {"NaN": [-1]}]
    rows = [rng.choice(values) for _ in range(200)]
    file, parts = Mended(io.BytesIO(json.dumps(rows, ensure_ascii=False).encode())), []
    while part := file.read(size):
        parts.append(part)
    strict = json.loads(b"".join(parts), parse_constant=pytest.fail)
    assert strict == [None if isinstance(row, float) and row != -1.5 else row for row in rows]


def test_a_cut_file_is_still_told_after_mending(tmp_path):
    with pytest.raises(TpoError, match="is not JSON"):
        list(stream_items(*write(tmp_path, '[{"a": NaN}, {"b": "c')))


@pytest.mark.parametrize(
    ("stream", "text", "prefix", "expected"),
    [
        (stream_items, "{}", "", "holds no JSON list at its top"),
        (stream_items, '{"rows": {}}', "rows", "holds no JSON list under 'rows'"),
        (stream_pairs, "[1]", "", "holds no JSON object at its top"),
        (stream_pairs, "{}", "database", "holds no JSON object under 'database'"),
        (stream_items, "", "", "is not JSON"),
    ],
)
def test_a_file_of_another_kind_is_told(tmp_path, stream, text, prefix, expected):
    with pytest.raises(TpoError, match=expected) as error:
        list(stream(*write(tmp_path, text), prefix))
    assert "\n" not in str(error.value)


def test_a_missing_file_is_told_at_once(tmp_path):
    with pytest.raises(TpoError, match=r"expected the label file .*a\.json"):
        stream_items(str(tmp_path), "a.json", "reader")


def test_a_damaged_pickle_is_told(tmp_path):
    (tmp_path / "a.p").write_bytes(b"}]K\x01s.")  # a list as a key
    with pytest.raises(TpoError, match="is not a pickle of plain annotations"):
        read_pickle_list(str(tmp_path), "a.p", "reader")


def test_a_pickle_without_a_list_is_told(tmp_path):
    (tmp_path / "a.p").write_bytes(b"(dp0\n.")
    with pytest.raises(TpoError, match="holds no list"):
        read_pickle_list(str(tmp_path), "a.p", "reader")
