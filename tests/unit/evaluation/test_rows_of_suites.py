"""The row of a sample tells heads that were called as they should not be, as the rows of a part do."""

import pytest

from tests.unit.evaluation.benches import FORMATS, Scripted, bench_of, entry_of
from tests.unit.evaluation.test_bench_grounding import HALVES, mevis
from tpo_core.data import rle
from tpo_core.evaluation.record import Record


def test_heads_that_are_called_as_they_should_not_be_are_told(tmp_path):
    entry = entry_of("mevis", "mask", "mevis", split="valid_u")
    bench = bench_of(tmp_path, entry, mevis(tmp_path / "m"))
    there = {frame: rle.encode(HALVES["first"]) for frame in range(3)}
    bench.run(Scripted(lambda asked: Record(asked.ask.key, "", ("mask", "region"), masks=there)))
    assert {row["failure"] for row in bench.rows()} == {"other_activation"}


@pytest.mark.parametrize(
    ("answered", "grounded", "windows", "reason"),
    [
        (("region",), ("temporal",), ((1.0, 5.0, 0.9),), "false_activation"),
        ((), ("temporal", "mask"), ((1.0, 5.0, 0.9),), "other_activation"),
        ((), (), (), "missed_activation"),
        ((), ("temporal",), (), "no_prediction"),
        ((), ("temporal",), ((1.0, 5.0, 0.9),), None),
    ],
)
def test_both_answers_to_a_grounded_question_call_the_heads_that_they_should(
    tmp_path, answered, grounded, windows, reason
):
    entry = entry_of("next_gqa", "grounded_choice", "nextgqa", prompt="best_option", truth="gsub_test.json")
    bench = bench_of(tmp_path, entry, FORMATS / "next_gqa")

    def say(asked):
        if asked.ask.form == "ground":
            return Record(asked.ask.key, "Then.", grounded, windows=windows)
        return Record(asked.ask.key, "C) lay", answered)

    bench.run(Scripted(say))
    assert bench.rows()[0]["failure"] == reason
