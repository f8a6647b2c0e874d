import pytest

from tpo_core.data.subtitles import Cue, lines_at, parse_srt
from tpo_core.errors import TpoError

SRT = b"""\xef\xbb\xbf1\r
00:00:01,500 --> 00:00:03,000\r
<i>Good</i> &amp; bad\r
\r
2
00:00:00.5 --> 00:00:01.0 X1:10
{\\an8}First
line

3
00:00:04,000 --> 00:00:05,000

"""


def test_cues_are_in_order_and_without_mark_up():
    assert parse_srt(SRT, "a.srt") == [Cue(0.5, 1.0, "First line"), Cue(1.5, 3.0, "Good & bad")]


def test_lines_at_times_come_once_and_in_order():
    cues = [Cue(0.0, 2.0, "a"), Cue(1.0, 3.0, "b"), Cue(9.0, 10.0, "c")]
    assert lines_at(cues, [1.5, 1.8, 0.2]) == ["a", "b"]
    assert lines_at(cues, []) == []


def test_old_encodings_are_read():
    assert parse_srt("1\n00:00:00,000 --> 00:00:01,000\ncaf\u00e9".encode("latin-1"), "a.srt")[0].text == "caf\u00e9"


def test_a_file_without_times_is_named():
    with pytest.raises(TpoError, match=r"^a\.srt is no SubRip file"):
        parse_srt(b"WEBVTT\n\nhello", "a.srt")
    assert parse_srt(b"", "a.srt") == []
