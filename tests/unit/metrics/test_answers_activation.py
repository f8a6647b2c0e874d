import pytest

from tpo_core.metrics import activation, answers


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("The red car.", "red car", True),
        ("  RED   car", "a red car!", True),
        ("red or blue", "red", False),
        ("", "", False),
        ("the", "a", False),
        ("theatre", "atre", False),
    ],
)
def test_matches(answer, truth, right):
    assert answers.matches(answer, truth) is right


def test_accuracy_counts_every_question():
    assert answers.score(["red", "", "two"], ["red", "blue", "two"])["accuracy"] == pytest.approx(2 / 3)


def test_rates_of_false_and_missed_activation():
    asked = [
        ([], None),
        (["region"], None),
        ([], None),
        ([], None),
        (["region"], "region"),
        ([], "region"),
        (["temporal"], "region"),
        (["region", "temporal"], "temporal"),
    ]
    assert activation.rates(asked) == {"false": 0.25, "quiet": 0.75, "missed": 0.75, "called": 0.25}


def test_a_kind_of_request_that_is_not_there_has_no_rate():
    assert activation.rates([([], None)]) == {"false": 0.0, "quiet": 1.0}
