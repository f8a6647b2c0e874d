"""The exceptions a user is meant to read.

Both carry a single line that says what is wrong and what to do about it; entry points print that line, and no
traceback. Everything else (a broken invariant, a bug) is left to raise with its traceback, and ends with status 1.
"""


class TpoError(Exception):
    """A mistake of the user or of their data, told in one line with the remedy; status 2."""


class StorageTroubleError(TpoError):
    """A storage that did not answer, however often it was asked; it may be well again later."""


class RunFailedError(Exception):
    """A run that failed though nobody asked for something wrong, told in one line with the remedy; status 1."""


def in_one_line(error: BaseException) -> str:
    """The message of an error in one line: what is meant for people as it is, anything else after its type."""
    text = " ".join(str(error).split())
    if isinstance(error, TpoError | RunFailedError):
        return text
    return f"{type(error).__name__}: {text}".removesuffix(": ")
