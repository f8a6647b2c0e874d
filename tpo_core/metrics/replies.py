"""Finds the moment that a reply names, as the codes do that are compared on it. All of them take the first pair."""

import re

_CUES = ("start", "end", "happen")
_SENTENCE_END = re.compile(r"[!?\n]")
_TIMESUITE_PAIR = re.compile(r"(\d+\.*\d*)\s*-\s*(\d+\.*\d*)")
_TIMESUITE_NUMBER = re.compile(r"\b(\d+\.\d+\b|\b\d+)\b")
_LMMS_EXAMPLE = "a specific example is : 20.8 - 30.0 seconds"
_LMMS_PAIR = re.compile("(\\d+(?:\\.\\d+)?)\\s*[\u2013-]\\s*(\\d+(?:\\.\\d+)?)")  # dash or en dash
_LMMS_PAIR_WITH_UNIT = re.compile("(\\d+(?:\\.\\d+)?)\\s*s?\\s*[\u2013-]\\s*(\\d+(?:\\.\\d+)?)")
_LMMS_NUMBER = re.compile(r"\b(\d+(?:\.\d+)?)\b")
_PERCENT = re.compile(r"(\d{2}) (to|and) (\d{2})")

Moment = tuple[float, float]


def timesuite(reply: str) -> Moment | None:
    """(earlier, later) in seconds of the first `a - b` anywhere, or else of the first numbers of two sentences that say
    start, end or happen; None if there are none.

    ValueError for a number like 1..2 before a dash, at which that code stops.
    """
    text = reply.lower()
    pairs = [(float(first), float(second)) for first, second in _TIMESUITE_PAIR.findall(text)]
    return _ordered(pairs[0] if pairs else _first_numbers(_told(text), _TIMESUITE_NUMBER))


def lmms_eval(reply: str) -> Moment | None:
    """The script of lmms-eval: sentences that say start, end or happen only, an en dash too, and every "to" is a dash,
    also that in "tomato". The example of its prompt is dropped."""
    told = _told(reply.lower().replace(_LMMS_EXAMPLE, "").replace("to", "-"))
    pair = _first_pair(told, _LMMS_PAIR) or _first_numbers(told, _LMMS_NUMBER)
    return _ordered(pair or _first_pair(told, _LMMS_PAIR_WITH_UNIT))


def vtimellm(reply: str) -> Moment | None:
    """The first `12 to 34` or `12 and 34` of two digits each, as fractions of the video; None without one."""
    found = _PERCENT.search(reply)
    return (float(found[1]) / 100, float(found[3]) / 100) if found else None


def _told(text: str) -> list[str]:
    return [sentence for sentence in _SENTENCE_END.split(text) if any(cue in sentence for cue in _CUES)]


def _first_pair(sentences: list[str], pattern: re.Pattern[str]) -> Moment | None:
    found = next((match for sentence in sentences if (match := pattern.search(sentence))), None)
    return (float(found[1]), float(found[2])) if found else None


def _first_numbers(sentences: list[str], pattern: re.Pattern[str]) -> Moment | None:
    numbers = [float(found[1]) for sentence in sentences if (found := pattern.search(sentence))]
    return (numbers[0], numbers[1]) if len(numbers) > 1 else None


def _ordered(pair: Moment | None) -> Moment | None:
    return (min(pair), max(pair)) if pair else None
