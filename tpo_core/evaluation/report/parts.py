"""The parts of a chain as entries of a report: one for each task of `<output>/<part>/metrics.json`.

What they are compared with is the constant baseline that lies beside the metrics, and whatever the caller adds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from tpo_core.config.schema import MEASURED_TASKS
from tpo_core.evaluation import truth
from tpo_core.evaluation.report.entries import Entry, Row, numbers, read_rows
from tpo_core.metrics import activation
from tpo_core.storage import uri as uris

METRICS, PREDICTIONS = "metrics.json", "predictions.jsonl"
CONSTANT = "best constant answer"


def read_part(folder: str, part: str, references: Mapping[str, Mapping[str, float]]) -> list[Entry]:
    """An entry a task that was asked. references: label -> "<part>/<task>/<metric>" -> value."""
    result = uris.read_json(uris.join(folder, METRICS))
    compared = {CONSTANT: numbers(result["baseline"]), **references}
    rows = uris.join(folder, PREDICTIONS)
    asked = sorted(result["counts"].items(), key=lambda item: MEASURED_TASKS.index(item[0]))
    return [_entry(part, task, count, result, compared, rows) for task, count in asked]


def _entry(
    part: str, task: str, count: int, result: Mapping[str, Any], compared: Mapping[str, Mapping[str, float]], rows: str
) -> Entry:
    name = f"{part}/{task}"
    mine = {label: _below(name, values) for label, values in compared.items()}
    heads = [(row.activated, truth.HEAD_OF.get(task)) for row in task_rows(rows, task)]
    rates = activation.rates(heads)
    return Entry(
        name=name,
        title=f"{part}: {task}",
        metric=task,
        metrics=_below(name, numbers(result["metrics"])),
        references={label: values for label, values in mine.items() if values},
        asked=count,
        scored=len(heads),
        rejected={},
        activation={key: rates[key] for key in ("false", "missed") if key in rates},
        model=result["asked"]["model"],
        digest=result["asked"]["shards"],
        command="",
        rows=partial(task_rows, rows, task),
    )


def task_rows(uri: str, task: str) -> Iterator[Row]:
    """The rows of one task, each with the reason of its failure: a head that was not called as it should be."""
    for row in read_rows(uri):
        if row.task == task:
            yield row.model_copy(update={"failure": truth.wrong_activation(row.task, row.activated)})


def _below(name: str, values: Mapping[str, float]) -> dict[str, float]:
    return {key.removeprefix(f"{name}/"): value for key, value in values.items() if key.startswith(f"{name}/")}
