"""The table of a report: our numbers beside those that they are compared with, for the page, markdown and MLflow."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tpo_core.evaluation.report.entries import Entry

MISSING, NOT_A_NUMBER = "-", "n/a"
MOST_HEADLINES = 7  # of an entry in the table over all: NExT-GQA has as many published ones
OF_A_PART = "* of a part of the data set (--limit, where): samples that could not be read are not in N"
NAMES = {"false": "false activation", "missed": "missed activation"}


@dataclass(frozen=True)
class Compared:
    """A number of a reference, and ours minus it, as text."""

    value: str
    difference: str


@dataclass(frozen=True)
class TableLine:
    """One metric of an entry, as text with the same number of decimals along the line."""

    metric: str
    value: str
    compared: list[Compared]
    has_reference: bool


def labels_of(entries: Sequence[Entry]) -> list[str]:
    """The references of all entries in the order in which they come up first."""
    return list(dict.fromkeys(label for entry in entries for label in entry.references))


def lines_of(entry: Entry, labels: Sequence[str]) -> list[TableLine]:
    """A line for each metric: what a reference has, in its order, then the rest; one empty line for none at all."""
    names = dict.fromkeys([*(name for values in entry.references.values() for name in values), *entry.metrics])
    return [_line(entry, labels, name) for name in names] or [_line(entry, labels, "")]


def headlines(lines: Sequence[TableLine]) -> list[TableLine]:
    """What the table over all entries shows of one: the first few metrics that can be compared, and where nothing of
    these was measured here the first few others too. The section of the entry holds all."""
    compared = [line for line in lines if line.has_reference][:MOST_HEADLINES]
    if any(line.value != MISSING for line in compared):
        return compared
    return [line for line in lines if not line.has_reference][:MOST_HEADLINES] + compared


def _line(entry: Entry, labels: Sequence[str], metric: str) -> TableLine:
    ours = entry.metrics.get(metric)
    theirs = [entry.references.get(label, {}).get(metric) for label in labels]
    digits = _digits([ours, *theirs])
    compared = [Compared(shown(value, digits), _difference(ours, value, digits)) for value in theirs]
    return TableLine(metric, shown(ours, digits), compared, any(value is not None for value in theirs))


def _digits(values: Sequence[float | None]) -> int:
    """Three decimals for shares, one for percent."""
    finite = [abs(value) for value in values if value is not None and math.isfinite(value)]
    return 3 if max(finite, default=0.0) <= 1.0 else 1


def shown(value: float | None, digits: int) -> str:
    """A number as text; MISSING for one that was not measured, NOT_A_NUMBER for one that is none."""
    if value is None:
        return MISSING
    return f"{value:.{digits}f}" if math.isfinite(value) else NOT_A_NUMBER


def _difference(ours: float | None, theirs: float | None, digits: int) -> str:
    if ours is None or theirs is None or not math.isfinite(ours - theirs):
        return ""
    text = f"{ours - theirs:+.{digits}f}"
    return f"{0:.{digits}f}" if float(text) == 0 else text


def percent(share: float | None) -> str:
    """A share in [0, 1] as percent with one decimal."""
    return MISSING if share is None else NOT_A_NUMBER if not math.isfinite(share) else f"{100 * share:.1f} %"


def count(entry: Entry) -> str:
    """n/N: samples that the numbers are means over, of those that were asked."""
    return count_text(entry.scored, entry.asked, entry.whole)


def count_text(scored: int, asked: int, whole: bool) -> str:
    """n/N, marked where a part of the data set was asked, since N then counts nothing that could not be read."""
    return f"{scored:,}/{asked:,}{'' if whole else ' *'}"


def markdown(title: str, entries: Sequence[Entry]) -> str:
    """The table as markdown, with a line below it for each note, and for each entry that had something rejected."""
    labels = labels_of(entries)
    head = ["benchmark", "metric", "this model", *(cell for label in labels for cell in (label, "diff")), "n/N"]
    table = [[*head, *NAMES.values()]]
    for entry in entries:
        rest = [count(entry), *(percent(entry.activation.get(name)) for name in NAMES)]
        for number, line in enumerate(headlines(lines_of(entry, labels))):
            compared = [cell for one in line.compared for cell in (one.value, one.difference)]
            first = number == 0
            table.append([entry.title if first else "", line.metric, line.value, *compared,
                          *(rest if first else [""] * len(rest))])  # fmt: skip
    align = ["---", "---", *["---:"] * (len(table[0]) - 2)]
    rows = [[_plain(cell) for cell in row] for row in table]
    text = [f"# {_plain(title)}", "", *(f"| {' | '.join(row)} |" for row in [rows[0], align, *rows[1:]])]
    if not all(entry.whole for entry in entries):
        text += ["", _plain(OF_A_PART)]
    for entry in entries:
        text += [line for note in entry.notes for line in ("", f"{_plain(entry.title)}: {_plain(note)}")]
    rejected = [entry for entry in entries if entry.rejected]
    if rejected:
        text += ["", "Rejected, by reason (docs/metrics.md):", ""]
        text += [f"- {_plain(entry.title)}: {_plain(_reasons(entry))}" for entry in rejected]
    return "\n".join(text) + "\n"


def _reasons(entry: Entry) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in entry.rejected.items())


def _plain(text: str) -> str:
    """Text that markdown takes for nothing but text."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", " ".join(text.split()))


def flat_numbers(entries: Sequence[Entry]) -> dict[str, float]:
    """`<entry>/<metric>`, `<entry>/asked`, `<entry>/activation/false`, ... as MLflow takes them; finite ones alone."""
    found: dict[str, float] = {}
    for entry in entries:
        found |= {f"{entry.name}/{metric}": value for metric, value in entry.metrics.items()}
        found |= {f"{entry.name}/activation/{name}": value for name, value in entry.activation.items()}
        found |= {f"{entry.name}/asked": float(entry.asked), f"{entry.name}/scored": float(entry.scored)}
    return {name: value for name, value in found.items() if math.isfinite(value)}
