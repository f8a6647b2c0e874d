"""The page of a report: one HTML file without a script, which needs nothing from anywhere else.

Every text that comes from data goes through the escaping of Jinja, and the page itself forbids scripts and requests, so
that a question cannot become a part of the page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tpo_core.evaluation.report import table
from tpo_core.evaluation.report.cards import Card, make_card
from tpo_core.evaluation.report.choice import choose, some
from tpo_core.evaluation.report.entries import Entry, Row
from tpo_core.evaluation.report.footage import FootageOf
from tpo_core.evaluation.report.table import TableLine
from tpo_core.evaluation.report.tally import Chart, Line, Tally, tally
from tpo_core.metrics.report import REASONS

PLOT_WH = (300.0, 170.0)  # of a chart without its labels, in units of its view box
UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
UNRANKED = "some answers"
MEANINGS = {
    **REASONS,
    "missed_activation": "requests whose answer does not call the right head",
    "other_activation": "requests whose answer calls another head too",
    "false_activation": "plain questions whose answer calls a head",
    "no_prediction": "calls of the right head that gave nothing",
    "empty_reply": "replies without a word",
    "unparsed_reply": "replies in which the rule of the metric finds no choice",
}


@dataclass(frozen=True)
class Failure:
    """A reason, how often it came up, its share of all samples in percent, and what it means (may be empty)."""

    reason: str
    count: int
    percent: float
    meaning: str


@dataclass(frozen=True)
class Section:
    """All that the page shows of one entry. `lines` are its headlines, `more` all its numbers where these are more."""

    entry: Entry
    count: str
    activation: dict[str, str]
    lines: list[TableLine]
    more: list[TableLine]
    charts: list[Chart]
    shares: list[Line]
    failures: list[Failure]
    gallery: dict[str, list[Card]]


def render(title: str, entries: Sequence[Entry], footage_of: FootageOf | None) -> str:
    """The page as text."""
    labels = table.labels_of(entries)
    sections = [make_section(entry, labels, footage_of) for entry in entries]
    once = {name: values[0] for name in ("model", "digest") if len(values := shared(entries, name)) == 1}
    return environment().get_template("page.html").render(title=title, labels=labels, sections=sections, once=once)


def shared(entries: Sequence[Entry], name: str) -> list[str]:
    """The different values of an attribute."""
    return list(dict.fromkeys(getattr(entry, name) for entry in entries))


def make_section(entry: Entry, labels: Sequence[str], footage_of: FootageOf | None) -> Section:
    """Goes through the rows twice: once to count all, once for the few that are shown."""
    found = tally(entry.rows())
    lines = table.lines_of(entry, labels)
    headlines = table.headlines(lines)
    return Section(
        entry=entry,
        count=table.count(entry),
        activation={name: table.percent(entry.activation.get(name)) for name in table.NAMES},
        lines=headlines,
        more=lines if len(lines) > len(headlines) else [],
        charts=found.charts,
        shares=found.shares if len(found.shares) > 1 else [],
        failures=failures(entry, found),
        gallery=gallery(entry, found, footage_of),
    )


def failures(entry: Entry, found: Tally) -> list[Failure]:
    """What the scorer rejected and what the rows say went wrong, the most frequent first."""
    counts = dict(entry.rejected)
    for reason, count in found.failures.items():  # a reason that both tell is one and the same
        counts[reason] = max(count, counts.get(reason, 0))
    total = max(entry.asked, found.rows, 1)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [Failure(reason, count, 100 * count / total, MEANINGS.get(reason, "")) for reason, count in ordered if count]


def gallery(entry: Entry, found: Tally, footage_of: FootageOf | None) -> dict[str, list[Card]]:
    """Cards by group; a group without one is left out."""
    groups = choose(found.ranks) if found.ranks else {UNRANKED: some(found.unranked)}
    wanted = {number for numbers in groups.values() for number in numbers}
    last = max(wanted, default=-1)
    rows: dict[int, Row] = {
        number: row for number, row in enumerate(islice(entry.rows(), last + 1)) if number in wanted
    }
    return {
        name: [make_card(entry.name, rows[number], footage_of) for number in numbers]
        for name, numbers in groups.items()
        if numbers
    }


def environment() -> Environment:
    """Jinja as the page needs it: everything escaped, a name that is not there an error."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["points"] = points
    made.globals["names"] = table.NAMES
    made.globals["of_a_part"] = table.OF_A_PART
    made.globals["plot_wh"] = PLOT_WH
    return made


def printable(value: Any) -> Any:
    """Text without control characters and halves of surrogate pairs, which HTML and UTF-8 cannot hold."""
    return UNPRINTABLE.sub("\ufffd", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def points(line: Line, chart: Chart) -> str:
    """The curve as points of an SVG polyline."""
    width, height = PLOT_WH
    x_K = chart.thresholds_K / chart.thresholds_K[-1] * width
    y_K = (1 - line.shares_K) * height
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(x_K, y_K, strict=True))
