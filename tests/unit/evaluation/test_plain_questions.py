"""Questions with a short answer among the requests of a suite."""

from types import SimpleNamespace

import pytest

from tests.unit.evaluation.benches import entry_of
from tpo_core.evaluation.asking import wanted
from tpo_core.evaluation.native import BENCHMARKS, Answered
from tpo_core.evaluation.record import Record
from tpo_core.evaluation.rows import failure_of

QUESTIONS = entry_of("questions", "qa", "short_answers", reader="videochat2_it", implementation="words")


@pytest.mark.parametrize(
    ("record", "code"),
    [
        (Record("a", text="red"), None),
        (Record("a", text=" \n"), "empty_reply"),
        (Record("a", failure="decode: cut off"), "decode"),
    ],
)
def test_an_answer_is_missing_where_nothing_was_said(record, code):
    assert failure_of(QUESTIONS, BENCHMARKS["short_answers"], Answered(None, record)) == code


@pytest.mark.parametrize(("task", "asked"), [("chat", True), ("caption", False), ("box", False)])
def test_only_questions_are_asked(task, asked):
    sample = SimpleNamespace(task=task, provenance=SimpleNamespace(flags=(), raw="{}"))
    assert wanted(QUESTIONS, sample) == asked
