"""Where a chain stands, and what is to go by earlier runs."""

import pytest

from tpo_core.execution.position import Position, duration

NAMES = ["data", "one", "two", "measure"]


def position(earlier_s, to_run=NAMES, now_s=0.0):
    times = iter([0.0])
    return Position(NAMES, to_run, earlier_s, clock=lambda: next(times, now_s))


def test_every_duration_known_makes_an_estimate():
    stands = position({"data": 60, "one": 100, "two": 200, "measure": 40}, now_s=725)
    assert stands.before("one") == "[##........] 2/4  12:05 so far, about 5:40 to go"
    assert stands.within("one") == "[##........] 2/4  12:05 so far, then about 4:00 to go"
    assert stands.after("one") == "[#####.....] 2/4  12:05 so far, about 4:00 to go"


def test_what_never_ran_here_makes_it_a_floor():
    assert position({"measure": 40}).before("two") == "[#####.....] 3/4  0:00 so far, more than 0:40 to go"


def test_nothing_known_is_nothing_told():
    assert position({}).before("data") == "[..........] 1/4  0:00 so far"
    assert position({"data": 60}).after("data") == "[##........] 1/4  0:00 so far"


def test_what_is_skipped_takes_no_time():
    stands = position({"one": 100, "two": 200, "measure": 40}, to_run=["one", "measure"])
    assert stands.before("one") == "[##........] 2/4  0:00 so far, about 2:20 to go"


def test_what_never_ran_takes_what_others_of_its_kind_take_for_as_much():
    stands = position({"one": 100})
    stands.loads |= {"one": ("samples", 50), "two": ("samples", 200), "measure": ("parts", 1)}
    assert stands.within("one") == "[##........] 2/4  0:00 so far, then more than 6:40 to go"
    stands.took_s["two"] = 410  # what it took itself counts more
    stands.loads["measure"] = "samples", 125
    assert stands.within("two") == "[#####.....] 3/4  0:00 so far, then about 4:15 to go"
    assert stands.before("two") == "[#####.....] 3/4  0:00 so far, about 11:05 to go"


def test_the_end_is_full():
    assert position({"measure": 40}, now_s=3725).after("measure") == "[##########] 4/4  1:02:05 so far"


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (725, "12:05"), (11045, "3:04:05")])
def test_durations(seconds, text):
    assert duration(seconds) == text
