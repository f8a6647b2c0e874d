import json

import pytest

from tpo_core.errors import TpoError
from tpo_core.metrics.registry import score


def scored(folder, truths, replies):
    for name, rows in (("truth", truths), ("predictions", replies)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return score("short_answers", folder / "truth.jsonl", folder / "predictions.jsonl")


def rows(**answers):
    return [{"id": key, "answer": answer} for key, answer in answers.items()]


def test_an_answer_is_right_word_by_word(tmp_path):
    report = scored(tmp_path, rows(a="the red car", b="two", c="left"), rows(a="Red car.", b="two or three", c="left"))
    assert report.result == {"accuracy": pytest.approx(200 / 3)}
    assert report.per_item == {"a": {"right": True}, "b": {"right": False}, "c": {"right": True}}
    assert report.rejected == {}


def test_what_is_no_answer_is_wrong_and_told(tmp_path):
    truths = rows(a="red", b="red", c="red", d="red", e="The.")
    report = scored(tmp_path, truths, [*rows(a=" ", b=5, d="red"), *rows(d="blue", x="red")])
    assert report.result == {"accuracy": 25.0}
    assert (report.n, report.N) == (4, 5)
    assert {reason: one["examples"] for reason, one in report.rejected.items()} == {
        "missing": ["c", "e"], "empty": ["a"], "malformed": ["b"], "duplicate": ["d"], "unknown": ["x"],
        "bad_truth": ["e"],
    }  # fmt: skip


def test_a_truth_without_an_answer_is_a_wrong_file(tmp_path):
    with pytest.raises(TpoError, match=r"truth.jsonl: row 0 .*answer"):
        scored(tmp_path, [{"id": "a"}], [])
