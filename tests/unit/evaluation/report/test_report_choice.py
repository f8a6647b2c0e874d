import math

import pytest

from tests.unit.evaluation.report.made_results import make_row
from tpo_core.evaluation.report.choice import choose, rank, some
from tpo_core.evaluation.report.entries import Row


def ranked(count):
    """Rows whose number is their place from the worst."""
    return [(number / count, f"id-{number}", number) for number in range(count)]


@pytest.mark.parametrize(
    ("scores", "failure", "expected"),
    [
        ({"iou": 0.5}, None, 0.5),
        ({"j": 0.2, "f": 0.6}, None, 0.4),
        ({"best_IoP": 0.9, "iou": 0.1}, None, 0.1),
        ({"right": 1.0}, None, 1.0),
        ({}, None, None),
        ({"iou": None}, None, None),
        ({"iou": math.nan}, "unparsed_reply", None),
        ({}, "out_of_memory", 0.0),
    ],
)
def test_a_row_is_ranked_by_its_main_number(scores, failure, expected):
    found = rank(Row.model_validate(make_row(scores=scores, failure=failure)))
    assert found == (None if expected is None else pytest.approx(expected))


def test_three_of_the_best_the_middle_and_the_worst():
    assert choose(ranked(101)) == {"best": [100, 99, 98], "median": [51, 50, 49], "worst": [2, 1, 0]}


@pytest.mark.parametrize("count", range(12))
def test_no_row_is_shown_twice_and_few_rows_are_all_shown(count):
    groups = choose(ranked(count))
    shown = [number for numbers in groups.values() for number in numbers]
    assert len(shown) == len(set(shown)) == min(count, 9)
    assert shown == sorted(shown, reverse=True)
    assert all(len(numbers) <= 3 for numbers in groups.values())


def test_one_row_is_the_best():
    assert choose(ranked(1)) == {"best": [0], "median": [], "worst": []}


def test_equal_ranks_are_not_the_neighbours_of_the_file():
    equal = [(1.0, f"video/{number}", number) for number in range(1000)]
    best = choose(equal)["best"]
    assert best == choose(list(reversed(equal)))["best"]
    assert max(best) - min(best) > 10


def test_what_has_no_rank_is_shown_by_a_few():
    assert len(some([(f"id-{number}", number) for number in range(50)])) == 3
    assert some([("a", 7)]) == [7]
    assert some([]) == []
