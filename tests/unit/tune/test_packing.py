"""A sweep that does not fit is refused, with the number that would."""

import pytest

from tpo_core.errors import TpoError
from tpo_core.tune.packing import fits, require_room

LAPTOP = [{"CPU": 2.0}]
HALF = {"CPU": 0.5}


def test_what_fits_is_let_through():
    require_room(LAPTOP, trials=1, workers=2, each=HALF)
    require_room([{"CPU": 8.0, "GPU": 4.0}] * 2, trials=4, workers=2, each={"CPU": 1.0, "GPU": 1.0})


@pytest.mark.parametrize(
    ("trials", "workers", "message"),
    [
        (3, 1, None),
        (4, 1, r"4 trials x 1 workers \(0\.5 CPU each.* has 2 CPU on its node: set sweep\.concurrent_trials=3"),
        (2, 2, r"set sweep\.concurrent_trials=1"),
        (1, 4, r"set sweep\.workers to fewer"),
    ],
)
def test_the_processes_of_trials_need_room_beside_their_workers(trials, workers, message):
    if message is None:
        require_room(LAPTOP, trials, workers, HALF)
        return
    with pytest.raises(TpoError, match=message) as caught:
        require_room(LAPTOP, trials, workers, HALF)
    assert "\n" not in str(caught.value)


def test_a_worker_needs_all_it_asks_for_on_one_node():
    each = {"CPU": 1.0, "GPU": 1.0}
    assert fits([{"CPU": 3.0, "GPU": 1.0}, {"CPU": 3.0, "GPU": 1.0}], 1, 2, each)
    assert not fits([{"CPU": 4.0}, {"CPU": 1.0, "GPU": 2.0}], 1, 2, each)


def test_a_population_that_is_alive_all_the_while_needs_room_for_its_processes():
    assert fits(LAPTOP, 2, 1, HALF, alive=10)
    with pytest.raises(TpoError, match=r"0\.1 CPU for each of 16 trials.* set sweep\.concurrent_trials=1"):
        require_room([{"CPU": 2.2}], 2, 1, HALF, alive=16)
