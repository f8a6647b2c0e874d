"""What a trial is worth."""

import pytest

from tests.unit.tune.made_sweep import OBJECTIVE, measured
from tpo_core.tune.objective import FAILED, Objective, front


def test_unit_weights_score_one():
    assert OBJECTIVE.score(measured(0.5, 0.25, 0.9)) == 1.0
    assert OBJECTIVE.score(measured(1.0, 0.25, 0.9)) == pytest.approx(1.5)


def test_whatever_keeps_qa_is_above_all_that_does_not():
    poor, splendid = measured(0.0, 0.0, 0.80), measured(1.0, 1.0, 0.79)
    assert OBJECTIVE.keeps_qa(poor)
    assert not OBJECTIVE.keeps_qa(splendid)
    assert OBJECTIVE.value(poor) == 0.0
    assert OBJECTIVE.value(splendid) == pytest.approx(-0.01)
    assert OBJECTIVE.value(measured(1.0, 1.0, 0.5)) < OBJECTIVE.value(splendid)
    assert OBJECTIVE.value({}) == FAILED < OBJECTIVE.value(measured(0.0, 0.0, 0.0))


def test_a_metric_that_unit_weights_do_not_move_divides_by_a_percent_and_not_by_nothing():
    objective = Objective(metrics=("mask/j",), unit={"mask/j": 0.0}, qa="qa/accuracy", qa_floor=0.0)
    assert objective.score({"mask/j": 0.02}) == pytest.approx(2.0)


def test_one_metric_does_not_pay_for_all_others():
    """The unit run leaves a at nothing; thirty times a percent must not outweigh what b loses."""
    objective = Objective(metrics=("a", "b"), unit={"a": 0.0, "b": 0.5}, qa="q", qa_floor=0.0)
    assert objective.score({"a": 0.30, "b": 0.1}) < objective.score({"a": 0.05, "b": 0.7})
    assert objective.score({"a": 0.02, "b": 0.5}) > objective.score({"a": 0.0, "b": 0.7}), "it still earns something"


def test_where_the_unit_run_is_ordinary_nothing_is_capped():
    objective = Objective(metrics=("a",), unit={"a": 0.2}, qa="q", qa_floor=0.0)
    assert objective.score({"a": 0.99}) == pytest.approx(0.99 / 0.2)


def test_what_is_no_number_is_worth_as_much_as_nothing():
    broken = measured(float("nan"), 0.3, 0.9)
    assert not OBJECTIVE.is_complete(broken)
    assert OBJECTIVE.values(broken) == OBJECTIVE.values({})


def test_what_trials_report():
    assert OBJECTIVE.values(measured(0.5, 0.25, 0.7)) == pytest.approx({"objective": -0.1, "score": 1.0, "qa": 0.7})
    assert OBJECTIVE.values({}) == {"objective": FAILED, "score": 0.0, "qa": 0.0}


def test_the_front_is_what_no_other_beats_in_both():
    points = [(0.9, 1.0), (0.8, 1.2), (0.7, 1.1), (0.95, 0.5), (0.9, 1.0)]
    assert front(points) == [1, 0, 4, 3]
    assert front([]) == []
