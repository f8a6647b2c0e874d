import numpy as np
import pytest

from tests.unit.evaluation.report.made_results import make_footage, make_row
from tpo_core.evaluation.report.cards import MOST_CHARS, as_spans, cut, make_card, time_line
from tpo_core.evaluation.report.entries import Row


def card(task="region", footage_of=None, **more):
    return make_card("entry", Row.model_validate(make_row(0, task, **more)), footage_of)


def test_a_card_has_words_scores_and_the_reason_of_a_failure():
    found = card("qa", truth="red", answer="blue", scores={"right": 0.0, "x": None}, failure="empty_reply")
    assert (found.answer, found.truth, found.failure) == ("blue", "red", "empty_reply")
    assert found.scores == "right 0.00  x n/a"
    assert (found.frames, found.missing, found.lanes) == ([], "", [])


def test_of_many_scores_the_first_are_shown():
    assert card(scores={name: 1.0 for name in "abcdefgh"}).scores.split() == [
        "a",
        "1.00",
        "b",
        "1.00",
        "c",
        "1.00",
        "d",
        "1.00",
    ]


def test_what_is_drawn_is_not_told_and_what_has_parts_is_told_by_its_answer():
    assert card("region").truth == ""
    assert card("qa", truth=None).truth == ""
    assert card("choice", truth=3).truth == "3"
    assert card("grounded_choice", truth={"answer": "B", "spans_s": [[0, 1]]}, prediction=None).truth == "B"


def test_frames_are_asked_for_by_entry_and_sample():
    asked = []
    found = card(footage_of=lambda entry, sample_id: asked.append((entry, sample_id)) or make_footage())
    assert asked == [("entry", "tiny/val/region-0")]
    assert len(found.frames) == 1


def test_a_sample_that_is_not_at_hand_is_told():
    def nothing(entry, sample_id):
        raise KeyError(sample_id)

    found = card(footage_of=nothing)
    assert found.frames == []
    assert "no such sample" in found.missing


def test_moments_lie_on_a_line_as_long_as_the_media():
    row = Row.model_validate(make_row(0, "moment", truth=[[2.0, 4.0], [6.0, 9.0]], prediction=[1.0, 2.0]))
    (true, found), duration_s = time_line(row, make_footage("moment"))
    assert duration_s == 8.0
    assert [(bar.left, bar.width) for bar in true.bars] == [(25.0, 25.0), (75.0, 25.0)]  # cut at the end
    assert [(bar.left, bar.width) for bar in found.bars] == [(12.5, 12.5)]
    assert (true.told, found.told) == ("2.00 to 4.00 s, 6.00 to 9.00 s", "1.00 to 2.00 s")


def test_without_media_the_line_ends_with_the_last_moment():
    row = Row.model_validate(make_row(0, "moment", truth=[[10.0, 20.0]], prediction=None))
    (true, found), duration_s = time_line(row, None)
    assert duration_s == 20.0
    assert (true.told, found.told) == ("10.0 to 20.0 s", "none")
    nothing = Row.model_validate(make_row(0, "moment", truth=None, prediction=None))
    assert time_line(nothing, None) == ([], 0.0)
    assert time_line(Row.model_validate(make_row()), make_footage()) == ([], 0.0)


def test_the_moments_of_a_grounded_choice_are_shown():
    truth, prediction = {"answer": "B", "spans_s": [[0.0, 4.0]]}, {"answer": "A", "span_s": None}
    row = Row.model_validate(make_row(0, "grounded_choice", truth=truth, prediction=prediction))
    (true, found), _ = time_line(row, make_footage("moment"))
    assert (len(true.bars), len(found.bars)) == (1, 0)


@pytest.mark.parametrize("value", [None, [], "words", [[1]], 3, [[1, 2], [3]], [[float("nan"), 1]], [[5, 1]]])
def test_what_is_no_moment_is_left_out(value):
    assert as_spans(value).shape == (0, 2)


def test_moments_come_alone_in_lists_or_with_a_score():
    assert as_spans([1, 2]).tolist() == [[1, 2]]
    assert as_spans([[1, 2, 0.9], [3, 4, 0.1]]).tolist() == [[1, 2], [3, 4]]
    assert len(as_spans(np.tile([0.0, 1.0], (500, 1)).tolist())) == 20


def test_a_very_long_text_is_cut_and_says_so():
    text = cut("x" * 1_000_000)
    assert len(text) < MOST_CHARS + 40
    assert text.endswith("... (999,400 more characters)")
    assert cut("y" * MOST_CHARS) == "y" * MOST_CHARS
