"""docs/results.md from the numbers of an ablation: tables, claims, how it was measured; prose below a marker stays."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from pipelines.ablation_claims import CLAIMS, Measured, gains, spread, verdict
from pipelines.ablation_rows import ROWS, Row
from tpo_core.execution.position import duration
from tpo_core.storage.uri import exists, read_bytes, write_bytes, write_json

MARKER = "<!-- Written by pipelines/ablate.py down to here. What follows is kept by hand. -->"
NOTES = "## Notes\n"
COLUMNS = {
    "QA": "qa/accuracy",
    "region Acc@0.5": "region/acc@0.5",
    "moment R1@0.5": "moment/r1@0.5",
    "mask J": "mask/j",
    "track mean IoU": "track/miou",
    "false activation": "activation/false",
}
ASKED_OF_ALL = ("qa", "activation")


@dataclass(frozen=True)
class Result:
    """One measured row. metrics: "<part>/<task>/<metric>" -> [0, 1]; seconds: of training and evaluation together."""

    row: str
    seed: int
    metrics: Mapping[str, float]
    seconds: float
    machine: str
    commit: str


@dataclass(frozen=True)
class Setting:
    """What all rows have in common. equal: of ablation_rows.EQUAL; steps: of each phase, of all rows or of the one with
    all kinds; requests: by task, of a part; parts: as measured."""

    command: str
    recipe: str
    base: str
    equal: str
    steps: Mapping[str, int]
    requests: Mapping[str, int] = field(default_factory=dict)
    parts: Sequence[str] = ()


def write_results(uri: str | Path, setting: Setting, results: Sequence[Result], constant: Mapping[str, float]) -> None:
    """Writes the file, in which what stood below MARKER stays, and beside it the numbers of each row and seed."""
    old = read_bytes(uri).decode() if exists(uri) else ""
    notes = old.partition(MARKER)[2].lstrip("\n") or NOTES
    write_bytes(uri, f"{document(setting, results, constant)}\n{MARKER}\n\n{notes}".encode())
    write_json(numbers_beside(uri), [asdict(one) for one in results])


def numbers_beside(uri: str | Path) -> str:
    """Where the numbers of a table go."""
    return f"{str(uri).removesuffix('.md')}.json"


def document(setting: Setting, results: Sequence[Result], constant: Mapping[str, float]) -> str:
    """The whole text above the marker."""
    parts = [
        ["# What task preference optimization adds", "", *_introduction(setting, results), ""],
        *(["## Part `" + part + "`", "", *table(results, part, constant), ""] for part in setting.parts),
        ["## The paper's claims", "", *_claims(results, setting.parts), ""],
        ["## How it was measured", "", *_method(setting, results), ""],
    ]
    return "\n".join(line for lines in parts for line in lines)


def table(results: Sequence[Result], part: str, constant: Mapping[str, float]) -> list[str]:
    """A row of the table for each measured row, in percent: mean and standard deviation over seeds."""
    measured = by_row(results, part)
    lines = [_line(["row", "seeds", *COLUMNS]), _line(["---"] * (len(COLUMNS) + 2))]
    for row in ROWS:
        if row.name in measured:
            seeds = measured[row.name]
            cells = [_cell(row, name, [numbers[name] for numbers in seeds.values() if name in numbers])
                     for name in COLUMNS.values()]  # fmt: skip
            lines.append(_line([row.label, str(len(seeds)), *cells]))
    cells = [_percent(constant.get(f"{part}/{name}")) for name in COLUMNS.values()]
    return [*lines, _line(["best constant answer", "-", *cells])]


def by_row(results: Iterable[Result], part: str) -> Measured:
    """Row -> seed -> metrics of a part, without its name."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for one in results:
        numbers = {
            name.removeprefix(f"{part}/"): value for name, value in one.metrics.items() if name.startswith(f"{part}/")
        }
        found.setdefault(one.row, {})[one.seed] = numbers
    return found


def _cell(row: Row, name: str, values: list[float]) -> str:
    task = name.split("/")[0]
    if not values or not (task in ASKED_OF_ALL or row.taught(task)):
        return "-"
    around = spread(values)
    return _percent(float(np.mean(values))) + ("" if around is None else f" \u00b1 {100 * around:.1f}")


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _introduction(setting: Setting, results: Sequence[Result]) -> list[str]:
    steps = ", ".join(f"{count} of {name}" for name, count in setting.steps.items())
    budget = {
        "steps": f"the same number of optimizer steps ({steps}): a row with fewer kinds of data sees more of each",
        "samples": "as many samples of each kind of data as the row with all of them sees in its steps"
        f" ({steps}): a row with fewer kinds takes fewer steps",
    }[setting.equal]
    return [
        *textwrap.wrap(
            "Rows differ in the data they are taught and the heads that learn from it, and in nothing else: the same"
            f" base (`{setting.base}`), {budget}. They are asked the same. In percent, mean and standard deviation over"
            " seeds (n - 1). A dash: the row is not taught the task. As text: coordinates are numbers in the answer,"
            " which no head makes and which are read back from the text.",
            width=130,
        ),
        "",
        "```",
        setting.command,
        "```",
    ]


def _claims(results: Sequence[Result], parts: Sequence[str]) -> list[str]:
    measured = [by_row(results, part) for part in parts]
    heads = [name for part in parts for name in (f"`{part}`, points", "verdict")]
    lines = [_line(["claim", "the paper has", *heads]), _line(["---"] * (2 + len(heads)))]
    for claim in CLAIMS:
        judged = [cell for rows in measured for cell in _judged(gains(claim, rows))]
        lines.append(_line([claim.text, claim.paper or "not told", *judged]))
    told = [
        "",
        "Seed by seed: a claim holds when every seed agrees, does not when none does, and is open otherwise. The",
        "numbers of the paper are of other models and data: what can be compared is their sign.",
    ]
    return [*lines, *told]


def _judged(found: list[float]) -> tuple[str, str]:
    """Mean gain and its spread in points, and the verdict."""
    around = spread(found)
    gain = f"{100 * np.mean(found):+.1f}" if found else "-"
    return gain + ("" if around is None else f" \u00b1 {100 * around:.1f}"), verdict(found)


def _method(setting: Setting, results: Sequence[Result]) -> list[str]:
    requests = ", ".join(f"{count} {task}" for task, count in setting.requests.items())
    machines = sorted({one.machine for one in results})
    commits = sorted({one.commit for one in results})
    times = [
        f"{row.label} {duration(float(np.mean(seconds)))}"
        for row in ROWS
        if (seconds := [one.seconds for one in results if one.row == row.name])
    ]
    return [
        f"- Requests of each part: {requests}.",
        f"- Machine: {'; '.join(machines)}.",
        f"- Training and evaluation of one seed took: {', '.join(times)}.",
        f"- Code: {', '.join(commits)}. The base is measured once: it has no seed.",
    ]
