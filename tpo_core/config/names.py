"""Names a user may have mistyped, and the known name they probably meant."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?` for the closest known name, else the list of known ones."""
    names = [str(each) for each in known]
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(names) or 'none'}"


def require_known(what: str, names: list[str], known: Iterable[str]) -> list[str]:
    """Return `names`, all of which must be known and different; ValueError in one line otherwise."""
    known = list(known)
    for name in names:
        if name not in known:
            raise ValueError(f"unknown {what} {name!r}; {nearest(name, known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"a {what} is named twice in {names}")
    return names
