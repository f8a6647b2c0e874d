"""The winner, what it cost, and the pictures."""

import json

import pytest

from tests.unit.tune.made_sweep import OBJECTIVE, made, measured, outcome, rounds
from tpo_core.tune.plots import draw_parallel, draw_pareto
from tpo_core.tune.results import Launch, Outcome, table


def test_a_trial_that_loses_too_much_qa_never_wins_however_good():
    won = outcome().winner()
    assert won.trial == "b"
    assert OBJECTIVE.score(rounds()[1].metrics) > OBJECTIVE.score(won.metrics)


def test_a_trial_that_was_stopped_or_failed_never_wins():
    few = [one for one in rounds() if one.trial in "cd"]
    assert outcome(rounds=few).winner() is None
    assert outcome(rounds=few).finalists() == []
    assert outcome(rounds=few).to_json()["winner"] is None


def test_early_values_are_compared_with_late_ones_of_the_same_trials():
    assert outcome().early_tells_late() == {10: (pytest.approx(-0.5), 3)}  # a falls from first to last
    assert outcome(rounds=rounds()[:5]).early_tells_late() == {}  # two have both


def test_alike_values_tell_no_order():
    alike = [one for trial in "xyz" for one in (made(trial, 10, measured(0.5, 0.5, 0.9)),
                                                made(trial, 40, measured(0.5, 0.5, 0.9)))]  # fmt: skip
    assert outcome(rounds=alike).early_tells_late() == {}


def test_references_tell_early_from_late_too():
    """Of the trials one came to the end."""
    few = [one for one in rounds() if one.trial in "bc"]
    early = [made("unit", 10, measured(0.3, 0.25, 0.85)), made("gradnorm", 10, measured(0.2, 0.25, 0.85))]
    ends = {
        "unit": made("unit", 40, measured(0.5, 0.25, 0.85)),
        "gradnorm": made("gradnorm", 40, measured(0.4, 0.2, 0.9)),
    }
    assert outcome(rounds=few, references=ends, early=early).early_tells_late() == {10: (pytest.approx(1.0), 3)}
    assert outcome(rounds=few, references=ends).early_tells_late() == {}


def test_seconds_of_workers_by_rung():
    """Two train for five seconds of ten, one measures for two; what is left is waiting."""
    assert outcome().worker_seconds() == {10: 5 * (2 * 5.0 + 2.0), 40: 3 * (2 * 5.0 + 2.0)}


@pytest.mark.parametrize(
    "metrics", [measured(float("nan"), 0.3, 0.9), measured(0.9, 0.5, float("nan")), {"mask/j": 1.0}]
)
def test_a_trial_without_a_number_never_wins(metrics):
    """It comes first, which is where max() would leave it."""
    broken = [made("aa", 10, metrics), made("aa", 40, metrics)]
    found = outcome(rounds=[*broken, *rounds()])
    assert found.winner().trial == "b"
    assert "| aa |" in "".join(line for line in table(found) if "not all was measured" in line)


def test_references_that_are_as_good_as_the_winner_are_told():
    references = {
        "unit": made("unit", 40, measured(0.5, 0.25, 0.85)),
        "gradnorm": made("gradnorm", 40, measured(0.6, 0.3, 0.85)),
        "uncertainty": made("uncertainty", 40, measured(0.8, 0.3, 0.85)),
        "base": made("base", 0, measured(0.9, 0.9, 0.1)),
    }
    assert outcome(references=references).unbeaten() == ["uncertainty", "gradnorm"]
    assert outcome().unbeaten() == []
    assert outcome(rounds=[], references=references).unbeaten() == [], "there is nothing that could be worse"


def test_idle_slots_are_those_of_this_launch():
    """Nine rounds of ten seconds began in it, and the base before."""
    assert outcome().idle_share() == pytest.approx(1 - 90 / 200)
    later = Launch(began_s=150.0, ended_s=250.0, slots=2)
    assert outcome(launch=later).idle_share() == 1.0
    assert outcome().start_up_share() == pytest.approx(0.3)


def test_everything_is_json():
    found = json.loads(json.dumps(outcome().to_json(), allow_nan=False))
    assert (found["winner"], found["trials"], found["stopped_early"]) == ("b", 5, 2)
    assert found["weights"] == {"region": 2.0, "mask": 0.5}
    assert found["rank_correlation"] == {"10": {"spearman": pytest.approx(-0.5), "trials": 3}}
    assert len(found["rounds"]) == 8
    again = Outcome.from_json(found)
    assert again.to_json() == outcome().to_json()
    assert again.objective == OBJECTIVE
    del found["early"], found["unbeaten"]
    assert Outcome.from_json(found).to_json() == outcome().to_json(), "of a release that did not have them"


def test_the_table_tells_who_won_and_why_others_did_not():
    lines = table(outcome())
    assert lines[0] == "| | mask | region | steps | score | region/miou | mask/j | qa/accuracy | |"
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["b", "e", "a", "c", "d", "base", "unit"]
    notes = {line.split("|")[1].strip(): line.split("|")[-2].strip() for line in lines[2:]}
    assert notes == {
        "b": "winner",
        "a": "QA too low",
        "d": "step 3: total nan",
        **dict.fromkeys(("e", "c", "base", "unit"), ""),
    }
    assert "| b | 0.5 | 2 | 40 | 1.200 | 60.0 | 30.0 | 90.0 | winner |" in lines


@pytest.mark.parametrize("draw", [draw_parallel, draw_pareto])
@pytest.mark.parametrize("count", [8, 5, 1])
def test_pictures_of_few_and_many(tmp_path, draw, count):
    """With eight rounds all is there, with five one trial ended, with one none did."""
    draw(outcome(rounds=rounds()[:count]), tmp_path / "made" / "picture.png")
    assert (tmp_path / "made" / "picture.png").read_bytes().startswith(b"\x89PNG")
