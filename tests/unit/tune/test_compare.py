"""Two searches at equal cost."""

import pytest
from PIL import Image

from tests.unit.tune.made_sweep import made, measured, outcome
from tpo_core.tune.compare import climb, compare, cost_of, table, trials_of_equal_cost
from tpo_core.tune.plots import draw_climbs


def whole(trial, region, ended_s, qa=0.9):
    """The two rounds of a trial that comes to the end."""
    return [made(trial, 10, measured(0.1, 0.25, qa), began_s=ended_s - 20),
            made(trial, 40, measured(region, 0.25, qa), began_s=ended_s - 10)]  # fmt: skip


RANDOM = outcome(rounds=[*whole("a", 0.4, 100), *whole("b", 0.6, 200), *whole("c", 0.5, 300)])
ASHA = outcome(
    rounds=[
        *whole("a", 0.3, 100),
        *(made(f"s{number}", 10, measured(0.1, 0.2, 0.9), began_s=120 + number) for number in range(4)),
        *whole("b", 0.9, 200, qa=0.5),
        *whole("c", 0.7, 300),
    ]
)


def test_what_is_best_so_far_grows_with_the_steps_of_all_trials():
    assert climb(RANDOM) == [(40, pytest.approx(0.9)), (80, pytest.approx(1.1)), (120, pytest.approx(1.1))]
    assert cost_of(RANDOM) == 120


def test_a_trial_that_loses_qa_is_paid_for_and_reaches_nothing():
    assert [cost for cost, _ in climb(ASHA)] == [40, 160]
    one = compare(7, RANDOM, ASHA)
    assert (one.seed, one.cost, one.best, one.other_cost) == (7, 120, pytest.approx(1.1), 160)
    assert (one.other_best, one.reached) == (pytest.approx(0.8), None), "what comes beyond the budget does not count"
    longer = outcome(rounds=[*RANDOM.rounds, *whole("d", 0.2, 400)])
    assert (compare(7, longer, ASHA).other_best, compare(7, longer, ASHA).reached) == (pytest.approx(1.2), 160)
    assert compare(7, ASHA, RANDOM).reached is None


def test_workers_are_paid_for_while_they_measure():
    one = compare(7, RANDOM, ASHA)
    assert one.worker_s == sum(each.training_s * each.workers + each.measuring_s for each in RANDOM.rounds)
    assert one.other_worker_s == sum(each.training_s * each.workers + each.measuring_s for each in ASHA.rounds)


def test_nothing_is_reached_where_there_is_no_best():
    nobody = outcome(rounds=[made("a", 10, measured(0.5, 0.5, 0.9))])
    one = compare(1, nobody, RANDOM)
    assert (one.cost, one.best, one.reached, one.other_best) == (10, None, None, None)


@pytest.mark.parametrize(("factor", "trials"), [(4, 27), (2, 19)])
def test_halving_begins_more_trials_for_the_same_steps(factor, trials):
    rungs = (30, 120)
    begun = trials_of_equal_cost(12, rungs, factor)
    assert begun == trials
    assert begun * (30 + 90 / factor) <= 12 * 120 < (begun + 1) * (30 + 90 / factor)
    assert trials_of_equal_cost(12, (120,), 4) == 12


def test_the_table_says_how_much_of_the_budget_it_took():
    easy = outcome(rounds=whole("a", 0.3, 100) + whole("b", 0.2, 200))
    lines = table([compare(1, easy, RANDOM), compare(2, ASHA, RANDOM)], ("random", "asha"))
    spent = [f"{sum(run.worker_seconds().values()):.0f}" for run in (easy, RANDOM)]
    assert lines[2] == f"| 1 | 80 | {spent[0]} | 0.800 | 120 | {spent[1]} | 1.100 | 40 (50 % of 80) |"
    assert lines[3].endswith("| never |")


def test_the_picture_has_a_panel_a_seed_even_where_nobody_came_to_the_end(tmp_path):
    nobody = outcome(rounds=[made("a", 10, measured(0.5, 0.5, 0.9))])
    rows = [compare(seed, first, ASHA) for seed, first in enumerate((RANDOM, nobody, RANDOM))]
    sizes = []
    for count in (1, 3):
        draw_climbs(rows[:count], ("random", "asha"), tmp_path / f"{count}.png")
        with Image.open(tmp_path / f"{count}.png") as image:
            sizes.append(image.size)
    assert sizes[1][0] > 2 * sizes[0][0]
    assert sizes[1][1] == sizes[0][1]
    assert rows[0].path == climb(RANDOM)
    assert rows[1].path == []
    assert rows[0].other_path == climb(ASHA)
