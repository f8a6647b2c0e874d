"""What a report is made of: an `Entry` for each result that lies below the folder of an evaluation.

    <output>/<entry>/result.json   the numbers of one benchmark, `Result`
    <output>/<entry>/rows.jsonl    a row a sample, `Row`

Rows are read from the file each time they are gone through: those of a tracking benchmark hold a box for every frame.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tpo_core.errors import TpoError
from tpo_core.metrics.report import flat
from tpo_core.storage import uri as uris

RESULT, ROWS = "result.json", "rows.jsonl"
CONTROL = "SAM2 control"
LABELS = {"videochat2": "VideoChat2", "videochat_tpo": "VideoChat-TPO"}

Kind = TypeVar("Kind", bound=BaseModel)


class Row(BaseModel):
    """One asked sample. `scores` are the numbers of this answer alone, `failure` a reason code where it has none.

    truth and prediction by task: region (4,) xyxy pixels; moment truth (k, 2) seconds and prediction (2,); track a box
    or null for each frame; mask null, or for each stored frame a COCO run length {"size": [h, w], "counts": "..."} or
    null; grounded_choice {"answer", "spans_s"} and {"answer", "span_s"}; anything else text.
    """

    model_config = ConfigDict(frozen=True)

    sample_id: str
    task: str
    request: str
    answer: str
    activated: list[str]
    truth: Any
    prediction: Any
    scores: dict[str, float | None]
    failure: str | None = None


class Rejected(BaseModel):
    """The record of a reason in a scorer's report; of it the count is shown."""

    count: int


class Result(BaseModel):
    """result.json. Numbers by their official names, which may be nested; `asked` and `scored` count samples, and
    `whole` says whether the data set has no others; `notes` are sentences; `command` scores the same files again."""

    model_config = ConfigDict(frozen=True)

    entry: str
    title: str
    metric: str
    implementation: str
    metrics: dict[str, Any]
    published: dict[str, dict[str, Any]]
    asked: int
    scored: int
    whole: bool = True
    rejected: dict[str, int | Rejected]
    activation: dict[str, float | None]
    control: dict[str, Any] | None
    notes: list[str] = []
    model: str
    digest: str
    command: str = ""


@dataclass(frozen=True)
class Entry:
    """One benchmark, or one task of a part, as the report shows it.

    references: what the numbers are compared with, label -> official name -> value. activation: shares "false" and
    "missed" in [0, 1], as far as measured. rejected: counts by reason. rows(): all rows, read anew at each call. whole:
    whether all samples of the data set were asked. notes: sentences below the numbers.
    """

    name: str
    title: str
    metric: str
    metrics: dict[str, float]
    references: dict[str, dict[str, float]]
    asked: int
    scored: int
    rejected: dict[str, int]
    activation: dict[str, float]
    model: str
    digest: str
    command: str
    rows: Callable[[], Iterator[Row]]
    whole: bool = True
    notes: tuple[str, ...] = ()


def read_entry(folder: str) -> Entry:
    """The entry of a folder that holds result.json. TpoError when a file is not what it should be."""
    place = uris.join(folder, RESULT)
    result = parsed(Result, uris.read_bytes(place), place)
    references = {LABELS.get(key, key): numbers(values) for key, values in result.published.items()}
    if result.control is not None:
        references[CONTROL] = numbers(result.control)
    return Entry(
        name=result.entry,
        title=result.title,
        metric=f"{result.metric} ({result.implementation})" if result.implementation else result.metric,
        metrics=numbers(result.metrics),
        references={label: values for label, values in references.items() if values},
        asked=result.asked,
        scored=result.scored,
        rejected={reason: each if isinstance(each, int) else each.count for reason, each in result.rejected.items()},
        activation={name: value for name, value in result.activation.items() if value is not None},
        model=result.model,
        digest=result.digest,
        command=result.command,
        rows=partial(read_rows, uris.join(folder, ROWS)),
        whole=result.whole,
        notes=tuple(result.notes),
    )


def read_rows(uri: str) -> Iterator[Row]:
    """The rows of a JSON-lines file. TpoError when there is no such file, or a line is no row."""
    try:
        file = uris.open_read(uri)
    except FileNotFoundError:
        raise TpoError(f"{uri} is gone, though its result is there: evaluate again") from None
    # A file of a bucket has no lines of its own; a byte that is no text is shown as such and ends nothing.
    with io.TextIOWrapper(file, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield parsed(Row, line, f"{uri}, line {number}")


def parsed(kind: type[Kind], text: bytes | str, place: str) -> Kind:
    """The record that `text` holds as JSON. TpoError, which names the place, when it is another thing."""
    try:
        return kind.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise TpoError(f"{place}: {where}: {first['msg'].lower()}; evaluate again") from error
    except ValueError as error:
        raise TpoError(f"{place} holds no JSON ({error}): evaluate again") from error


def numbers(tree: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a result by path, as floats; null and the strings of strict JSON ("NaN") too. Text has none."""
    found = {}
    for name, value in flat(tree).items():
        if value is None:
            found[name] = math.nan
        elif isinstance(value, int | float) or value in ("NaN", "Infinity", "-Infinity"):
            found[name] = float(value)
    return found
