"""What the writers of native files share."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tpo_core.data.sample import Sample
from tpo_core.evaluation.record import Record


@dataclass(frozen=True)
class Answered:
    """A sample with the answers to the requests about it; `ground` is that to the second one, where there is one."""

    sample: Sample
    answer: Record
    ground: Record | None = None


@dataclass(frozen=True)
class Files:
    """A file or folder that a metric reads, and options of the metric that belong to it."""

    path: Path
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """predictions, truth: write into an empty local folder. key: what the metric calls an item in `per_item`.
    reply: whether a text is an answer, by the metric's own rule; None where answers are no text."""

    predictions: Callable[[Sequence[Answered], Path], Files]
    truth: Callable[[Sequence[Sample], Path], Files]
    key: Callable[[Sample], str]
    reply: Callable[[Sample, str], bool] | None = None


def native_id(sample: Sample) -> str:
    """The id of its data set."""
    return sample.provenance.native_id


def raw(sample: Sample) -> dict[str, Any]:
    """The native values that the reader kept."""
    return json.loads(sample.provenance.raw)


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """JSON lines; a float that is not finite is written as Python does, which the metrics read and reject."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_value(path: Path, value: Any) -> Path:
    """One JSON value; as for lines, of a float that is not finite."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return path
