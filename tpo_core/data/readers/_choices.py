"""What readers of question-answer data share: records from several kinds of file, letters, and the sample of a choice.

The question and its options are kept apart: how they are put together is a matter of each benchmark's prompt.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tpo_core.data.readers.base import LabelFile, Reject, at
from tpo_core.data.readers.files import read_lines, require, stream_items
from tpo_core.data.sample import UNLABELLED, Media, Sample, Target, Turn
from tpo_core.errors import TpoError
from tpo_core.storage.uri import read_bytes

_LETTER = re.compile(r"\s*\(?([A-Z])[.):]\s*")
_ROWS_AT_A_TIME = 256


def stream_rows(root: str, path: str, reader: str, prefix: str = "") -> Iterator[Any]:
    """The records of a .jsonl or .parquet file, or of the list (under `prefix`) of any other, taken for JSON.

    A line that is not JSON comes as its text, so that only it is rejected. TpoError for a missing or damaged file.
    """
    if path.endswith(".jsonl"):
        lines = read_lines(root, path, reader)
        return (_parsed(line) for line in lines if line.strip())
    if path.endswith(".parquet"):
        return _parquet_rows(require(root, path, reader), reader)
    return stream_items(root, path, reader, prefix)


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return line


def _parquet_rows(uri: str, reader: str) -> Iterator[Any]:
    # The index of a Parquet file is at its end, so the file is fetched as a whole; records are made when asked for.
    content = pa.BufferReader(read_bytes(uri))
    try:
        for batch in pq.ParquetFile(content).iter_batches(_ROWS_AT_A_TIME):
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        raise TpoError(f"{reader}: {uri} is not Parquet ({text}); is the download complete?") from error


def without_letters(options: Sequence[str]) -> tuple[str, ...]:
    """["A. a cat", "B. a dog"] as ("a cat", "a dog"). Only where every option begins with its own letter: "A. Lincoln"
    alone is a name."""
    found = [_LETTER.match(option) for option in options]
    if all(match and match[1] == letter for match, letter in zip(found, string.ascii_uppercase, strict=False)):
        return tuple(option[match.end() :].strip() for option, match in zip(options, found, strict=True) if match)
    return tuple(options)


def letter_of(index: int) -> str:
    """0 as "A"."""
    return string.ascii_uppercase[index]


def letter_index(letter: str) -> int:
    """ "A" as 0. ValueError for anything but one capital letter."""
    if len(letter.strip()) != 1:
        raise ValueError(f"the answer {letter!r} is no letter")
    return string.ascii_uppercase.index(letter.strip())


def text_index(answer: str, options: Sequence[str], *, last: bool = False) -> int | None:
    """Which option the answer's text equals, the first or the last of equal ones; None when it is none of them."""
    places = [place for place, option in enumerate(options) if option == answer]
    return (places[-1] if last else places[0]) if places else None


def choice(
    labels: LabelFile,
    native_id: str,
    row: int,
    media: Sequence[Media],
    question: str,
    options: Sequence[str],
    answer: int | None,
    *,
    raw: Mapping[str, Any],
    targets: Sequence[Target] = (),
    task: str = "mcq",
) -> Sample | Reject:
    """A question on all `media` with its options; the answer's text is the assistant's turn, which refers to `targets`.

    An `answer` that is None or no place in the options is the reject "answer_not_an_option".
    """
    if answer is None or not 0 <= answer < len(options):
        given = "the answer is" if answer is None else f"option {answer + 1} is"
        return Reject(at(labels.source, row), "answer_not_an_option", f"{native_id}: {given} none of {len(options)}")
    turns = (
        Turn("user", question, tuple(range(len(media)))),
        Turn("assistant", options[answer], (), tuple(range(len(targets)))),
    )
    return labels.sample(
        task,
        native_id,
        row,
        media,
        turns,
        targets,
        raw=raw,
        options=tuple(options),
        answer_index=answer,
        answer_text=options[answer],
    )


def unanswered(
    labels: LabelFile,
    native_id: str,
    row: int,
    media: Sequence[Media],
    question: str,
    options: Sequence[str],
    *,
    raw: Mapping[str, Any],
) -> Sample:
    """A question of a split whose answers are withheld."""
    turns = (Turn("user", question, tuple(range(len(media)))),)
    return labels.sample("mcq", native_id, row, media, turns, raw=raw, flags=(UNLABELLED,), options=tuple(options))
