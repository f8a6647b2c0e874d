"""What a step's lines say about time and trouble."""

from tpo_core.errors import RunFailedError, TpoError


def ago(seconds: float) -> str:
    """`3 min ago`, in the largest unit that fits."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.0f} {unit} ago"
    return f"{max(seconds, 0):.0f} s ago"


def one_line(error: BaseException) -> str:
    """The message of an error in one line: one that is meant for people as it is, any other after its type.

    An error that crossed processes under Ray has the remote traceback for its message; what was raised there is its
    last line, as in `tpo_core.errors.TpoError: set data.root`.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if isinstance(error, TpoError | RunFailedError):
        return last.removeprefix(f"{TpoError.__module__}.{TpoError.__name__}: ")
    return last if len(lines) > 1 and ": " in last else f"{type(error).__name__}: {last}".removesuffix(": ")
