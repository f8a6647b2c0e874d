"""What each sample gives to a metric adds up to the metric."""

import json

import numpy as np
import pytest

from tests.unit.evaluation.conftest import answer_with, make_example, right_answer
from tpo_core.evaluation.by_sample import values_by_sample
from tpo_core.evaluation.measure import score, summarize

TASKS = ("region", "moment", "mask", "track", "qa", "caption")


@pytest.fixture
def scored():
    """Of each task one sample that is answered and one that is not."""
    found = []
    for task in TASKS:
        for number, answer in enumerate((right_answer, lambda example: answer_with(text="no"))):
            example = make_example(task, number=number)
            found.append(score(task, example, answer(example)))
    return found


def test_values_by_sample_have_the_metrics_as_their_means(scored):
    metrics = summarize("test", scored)
    rows = [json.loads(json.dumps(one.row())) for one in scored]  # as they lie in predictions.jsonl
    values = values_by_sample("test", rows, metrics)
    assert values.keys() == metrics.keys()
    for name, by_sample in values.items():
        assert np.mean(list(by_sample.values())) == pytest.approx(metrics[name]), name
    assert len(values["test/region/acc@0.5"]) == 2
    assert set(values["test/activation/quiet"]) == {
        f"{one.task}/{one.example.sample.sample_id}" for one in scored if one.task in ("qa", "caption")
    }


def test_a_number_that_the_rows_do_not_explain_is_left_out(scored):
    rows = [one.row() for one in scored]
    metrics = summarize("test", scored) | {"test/region/miou": 0.123, "test/other/number": 1.0}
    values = values_by_sample("test", rows, metrics)
    assert "test/region/miou" not in values
    assert "test/other/number" not in values
    assert "test/region/acc@0.5" in values
