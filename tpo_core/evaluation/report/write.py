"""write_report(...): the page and the table of an evaluation, beside its results.

<output>/report.html   one file to read, print or send: numbers, curves, failures, best, median and worst answers
<output>/report.md     the table alone
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tpo_core.errors import TpoError
from tpo_core.evaluation.report.entries import RESULT, Entry, read_entry
from tpo_core.evaluation.report.footage import FootageOf
from tpo_core.evaluation.report.page import printable, render
from tpo_core.evaluation.report.parts import METRICS, read_part
from tpo_core.evaluation.report.table import flat_numbers, markdown
from tpo_core.storage import uri as uris

PAGE, TABLE = "report.html", "report.md"


@dataclass(frozen=True)
class Written:
    """Where page and table lie, and the numbers of all entries under flat names, as a tracker takes them."""

    page: str
    table: str
    numbers: dict[str, float]


def write_report(
    output: str | Path,
    footage_of: FootageOf | None = None,
    *,
    title: str = "Evaluation",
    references: Mapping[str, Mapping[str, float]] | None = None,
    folders: Sequence[str] | None = None,
    to: str | Path | None = None,
) -> Written:
    """Writes the report on all results below `output` (a path or URI): result.json and rows.jsonl of benchmarks,
    metrics.json and predictions.jsonl of the parts of a chain.

    footage_of: gives a sample with its frames by the name of its entry and its id, KeyError for one that it does not
    have; without it the cards have words alone. references: further numbers to compare parts with, label ->
    "<part>/<task>/<metric>" -> value. folders: names of those below `output` that are reported on, in this order; all
    unless given. to: where the report goes, `output` unless given. TpoError when there is no result, or one is damaged.
    """
    names = uris.list_names(output) if folders is None else folders
    entries = read_entries(str(output), names, references or {})
    if not entries:
        raise TpoError(f"no results below {output}: run pipelines/evaluate.py first")
    folder = output if to is None else to
    page, table = uris.join(folder, PAGE), uris.join(folder, TABLE)
    uris.write_bytes(page, render(title, entries, footage_of).encode())
    uris.write_bytes(table, printable(markdown(title, entries)).encode())
    return Written(page, table, flat_numbers(entries))


def read_entries(output: str, folders: Sequence[str], references: Mapping[str, Mapping[str, float]]) -> list[Entry]:
    """The entries of those of the folders below `output` that hold a result, in their order."""
    entries: list[Entry] = []
    for name in folders:
        folder = uris.join(output, name)
        if uris.exists(uris.join(folder, RESULT)):
            entries.append(read_entry(folder))
        elif uris.exists(uris.join(folder, METRICS)):
            entries += read_part(folder, name, references)
    return entries
