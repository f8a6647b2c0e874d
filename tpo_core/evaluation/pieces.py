"""Answers that are kept while a suite is asked: one file a batch, so that a killed evaluation asks again only what was
in flight.

    <folder>/<digest>/<batch>.jsonl     a `Record` a line

The digest says whose answers these are: of which model, to which samples, put how. A file is written aside and renamed
(on S3 in one piece), so that it is there in whole or not at all; its name is that of its requests, so that a batch that
is answered twice is the same file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tpo_core.errors import TpoError
from tpo_core.evaluation.asking import Ask
from tpo_core.evaluation.record import Record
from tpo_core.storage.uri import join, list_names, read_bytes, write_bytes

SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Pieces:
    """The answers below one folder (path or URI)."""

    folder: str

    def write(self, records: Sequence[Record]) -> None:
        """Keeps the answers of one batch."""
        name = hashlib.blake2b("\n".join(record.key for record in records).encode(), digest_size=16).hexdigest()
        content = "".join(f"{record.line()}\n" for record in records)
        write_bytes(join(self.folder, f"{name}{SUFFIX}"), content.encode())

    def read(self) -> dict[str, Record]:
        """All answers by the key of their request; where one was asked twice, the one that did not fail. TpoError for a
        file that somebody changed."""
        found: dict[str, Record] = {}
        for name in list_names(self.folder):
            if not name.endswith(SUFFIX):
                continue
            uri = join(self.folder, name)
            try:
                records = [Record.of_line(line) for line in read_bytes(uri).decode().splitlines()]
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise TpoError(
                    f"{uri} holds no answers ({error}): delete it, and the same command asks again"
                ) from error
            for record in records:
                if record.failure is None or record.key not in found:
                    found[record.key] = record
        return found


def batches_of(asks: Iterable[Ask], size: int) -> list[list[Ask]]:
    """Consecutive batches of at most `size` requests."""
    waiting = list(asks)
    return [waiting[start : start + size] for start in range(0, len(waiting), size)]
