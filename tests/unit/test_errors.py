import pytest

from tpo_core.errors import RunFailedError, TpoError, in_one_line


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (TpoError("set\n  data.root"), "set data.root"),
        (RunFailedError("it has diverged"), "it has diverged"),
        (OSError(5, "Input/output\nerror"), "OSError: [Errno 5] Input/output error"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
    ],
)
def test_an_error_is_told_in_one_line(error, text):
    assert in_one_line(error) == text
