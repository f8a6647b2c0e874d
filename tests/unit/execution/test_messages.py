"""One line for time and trouble."""

import pytest

from tpo_core.errors import RunFailedError, TpoError
from tpo_core.execution.messages import ago, one_line

REMOTE = "ray::work() (pid=7)\n  File a.py, line 3\n    raise\n"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-3, "0 s ago"), (12.4, "12 s ago"), (180, "3 min ago"), (7200, "2 h ago"), (200_000, "2 d ago")],
)
def test_ages_are_told_in_the_largest_unit(seconds, text):
    assert ago(seconds) == text


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TpoError("set data.root"), "set data.root"),
        (TpoError(f"{REMOTE}tpo_core.errors.TpoError: set data.root"), "set data.root"),
        (RunFailedError("training has diverged"), "training has diverged"),
        (KeyError("lora"), "KeyError: 'lora'"),
        (RuntimeError(f"{REMOTE}KeyError: 'lora'"), "KeyError: 'lora'"),
        (RuntimeError("shapes differ\nfirst\nsecond"), "RuntimeError: second"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_trouble_is_one_line(error, text):
    assert one_line(error) == text
