"""What the quick-start base is taught of numbers."""

import re

import numpy as np

from pipelines.quickstart_lessons import number


def test_numbers_to_be_repeated_are_in_the_forms_that_answers_take():
    pairs = number(np.random.default_rng(0), 60)
    assert len(pairs) == 60
    said = [(asked.removeprefix("Say: "), told) for asked, told in pairs if asked.startswith("Say: ")]
    assert said
    assert all(asked == told for asked, told in said)
    box, moment = r"\[\d\d, \d\d, \d\d, \d\d\]", r"\d\.\d\d to \d\.\d\d"
    forms = rf"Answer: (({box}|none) ?){{1,3}} \.|The given query happens in {moment} seconds\."
    assert [told for _, told in said if not re.fullmatch(forms, told)] == []


def test_counting_goes_on_by_ones_and_stays_below_a_hundred():
    pairs = [(a, b) for a, b in number(np.random.default_rng(1), 400) if a.startswith("Go on: ")]
    assert pairs
    for asked, told in pairs:
        counted = [int(word) for word in f"{asked.removeprefix('Go on: ')} {told}".split()]
        assert counted == list(range(counted[0], counted[0] + 6))
        assert counted[-1] < 100


def test_a_lesson_is_a_function_of_its_random_state():
    assert number(np.random.default_rng(3), 9) == number(np.random.default_rng(3), 9)
