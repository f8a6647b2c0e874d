"""What each sample gives to the metrics of a part, so that two models can be compared pair by pair."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tpo_core.evaluation.measure import TASK_METRICS
from tpo_core.evaluation.truth import HEAD_OF
from tpo_core.metrics import activation

TOLERANCE = 1e-6  # of a mean taken in another order


def values_by_sample(
    part: str, rows: Iterable[Mapping[str, Any]], metrics: Mapping[str, float]
) -> dict[str, dict[str, float]]:
    """{metric: {"<task>/<sample_id>": value}} of the rows of predictions.jsonl, for the metrics that are means of such
    values; a metric that is none has no entry.

    The value of a sample is the metric over that sample alone.
    """
    found: dict[str, dict[str, float]] = defaultdict(dict)
    for row in rows:
        task = row["task"]
        alone = TASK_METRICS[task]({name: np.array([value]) for name, value in row["scores"].items()})
        values = {f"{part}/{task}/{name}": value for name, value in alone.items()}
        rates = activation.rates([(row["activated"], HEAD_OF.get(task))])
        values |= {f"{part}/activation/{name}": value for name, value in rates.items()}
        for name, value in values.items():
            found[name][f"{task}/{row['sample_id']}"] = float(value)
    return {
        name: values
        for name, values in found.items()
        if name in metrics and math.isclose(np.mean(list(values.values())), metrics[name], abs_tol=TOLERANCE)
    }
