"""Subtitles of a video: cues of a SubRip file (.srt), and the lines that are shown at given times."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tpo_core.errors import TpoError

_TIME = r"(\d+):(\d\d):(\d\d)[,.](\d{1,3})"
_SPAN = re.compile(rf"{_TIME}\s*-->\s*{_TIME}")
_TAG = re.compile(r"<[^<>]*>|\{\\[^{}]*\}")


@dataclass(frozen=True)
class Cue:
    """One subtitle; seconds of the file."""

    start_s: float
    end_s: float
    text: str


def parse_srt(content: bytes, name: str) -> list[Cue]:
    """The cues of a file in the order of their starts, without mark-up; those without text are left out.

    TpoError for a file without any line of times; bytes that are not UTF-8 are taken for Latin-1, as old files have it.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    cues, timed = [], False
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip().split("\n")
        at = next((number for number, line in enumerate(lines) if _SPAN.search(line)), None)
        if at is None:
            continue
        timed = True
        found = _SPAN.search(lines[at])
        assert found is not None
        said = " ".join(html.unescape(_TAG.sub("", " ".join(lines[at + 1 :]))).split())
        if said:
            cues.append(Cue(_seconds(*found.groups()[:4]), _seconds(*found.groups()[4:]), said))
    if not timed and text.strip():
        raise TpoError(f"{name} is no SubRip file: it has no line HH:MM:SS,mmm --> HH:MM:SS,mmm")
    return sorted(cues, key=lambda cue: cue.start_s)


def _seconds(hours: str, minutes: str, seconds: str, millis: str) -> float:
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(millis.ljust(3, "0")) / 1000


def lines_at(cues: Sequence[Cue], times_s: Sequence[float]) -> list[str]:
    """The texts that are shown at any of these times, each cue once, in order."""
    return [cue.text for cue in cues if any(cue.start_s <= time <= cue.end_s for time in times_s)]
