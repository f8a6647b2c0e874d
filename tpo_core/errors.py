"""The one exception a user is meant to read.

`TpoError` carries a single line that says what is wrong and what to do about it; entry points print that line and
exit with status 2. Everything else (a broken invariant, a bug) is left to raise with its traceback.
"""


class TpoError(Exception):
    """A mistake of the user or of their data, told in one line with the remedy."""
