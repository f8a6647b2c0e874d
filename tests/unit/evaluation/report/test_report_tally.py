import numpy as np
import pytest

from tests.unit.evaluation.report.made_results import make_row
from tpo_core.evaluation.report.entries import Row
from tpo_core.evaluation.report.tally import DISTANCES, OVERLAPS, tally
from tpo_core.evaluation.report.tracks import as_box, as_track, boxes_T4, centre_errors

TRUTH = [[0.0, 0.0, 10.0, 10.0], None, [0.0, 0.0, 10.0, 10.0]]
HALF = [[0.0, 0.0, 5.0, 10.0], [0.0, 0.0, 1.0, 1.0], None]


def tallied(*rows):
    return tally(Row.model_validate(row) for row in rows)


def at(chart, line, threshold):
    return chart.lines[line].shares_K[int(np.argmin(np.abs(chart.thresholds_K - threshold)))]


def test_a_curve_is_the_share_of_samples_that_reach_each_threshold():
    found = tallied(*(make_row(number, scores={"iou": iou}) for number, iou in enumerate((0.0, 0.5, 0.7, 1.0))))
    (chart,) = found.charts
    (line,) = chart.lines
    assert (line.label, line.n) == ("all", 4)
    assert line.mean == pytest.approx(0.55)
    assert [at(chart, 0, t) for t in (0.05, 0.5, 0.55, 0.7, 0.75, 1.0)] == [0.75, 0.75, 0.5, 0.5, 0.25, 0.25]


def test_a_failure_counts_as_nothing_and_what_was_not_measured_does_not_count():
    found = tallied(
        make_row(0, scores={"iou": 1.0}),
        make_row(1, scores={}, failure="out_of_memory"),
        make_row(2, scores={"iou": None}),
    )
    assert found.charts[0].lines[0].n == 2
    assert at(found.charts[0], 0, 0.5) == 0.5
    assert found.failures == {"out_of_memory": 1}
    assert (len(found.ranks), len(found.unranked), found.rows) == (2, 1, 3)


def test_data_sets_have_lines_of_their_own_the_largest_first():
    rows = [make_row(n, sample_id=f"d{n % 8}/val/{n}", scores={"iou": 1.0}) for n in range(8 * 9 + 1)]
    lines = tallied(*rows).charts[0].lines
    assert [line.label for line in lines] == ["all", "d0", "d1", "d2", "d3", "d4", "d5"]
    assert [line.n for line in lines[:3]] == [73, 10, 9]
    assert len(tallied(*rows[:1]).charts[0].lines) == 1


def test_moments_and_masks_have_their_own_charts():
    moment = tallied(make_row(0, "moment", scores={"iou": 0.6}))
    assert [chart.title for chart in moment.charts] == ["Recall at 1 over tIoU"]
    grounded = tallied(make_row(0, "grounded_choice", scores={"iou": 0.6, "best_IoP": 1.0}))
    assert [chart.title for chart in grounded.charts] == ["Recall at 1 over tIoU"]
    mask = tallied(make_row(0, "mask", scores={"j": 0.6, "f": 0.9}))
    assert [at(chart, 0, 0.8) for chart in mask.charts] == [0.0, 1.0]


def test_a_track_is_measured_by_its_visible_frames():
    found = tallied(make_row(0, "track", truth=TRUTH, prediction=HALF, scores={"iou": 0.25}))
    success, precision = found.charts
    assert [at(success, 0, t) for t in (0.05, 0.5, 0.55)] == [0.5, 0.5, 0.0]
    assert success.lines[0].mean == pytest.approx(0.25)
    assert [at(precision, 0, t) for t in (0.2, 0.25, 0.5)] == [0.0, 0.5, 0.5]
    assert len(OVERLAPS) == len(DISTANCES) == 20


def test_a_track_without_boxes_counts_as_nothing_and_one_of_another_length_by_its_score():
    nothing = tallied(make_row(0, "track", truth=TRUTH, prediction=None, scores={"iou": 0.0}))
    assert [chart.lines[0].shares_K.max() for chart in nothing.charts] == [0.0, 0.0]
    other = tallied(make_row(0, "track", truth=TRUTH, prediction=HALF[:2], scores={"iou": 0.7}))
    assert [chart.title for chart in other.charts] == ["Success over IoU"]
    assert at(other.charts[0], 0, 0.7) == 1.0


def test_other_tasks_have_the_mean_by_data_set():
    rows = [make_row(n, "choice", sample_id=f"d{n % 2}/{n}", scores={"right": float(n < 3)}) for n in range(4)]
    found = tallied(*rows)
    assert found.charts == []
    assert [(line.label, line.n, line.mean) for line in found.shares] == [
        ("all", 4, 0.75),
        ("d0", 2, 1),
        ("d1", 2, 0.5),
    ]


def test_nothing_gives_nothing():
    found = tallied()
    assert (found.rows, found.charts, found.shares, found.ranks) == (0, [], [], [])
    assert tallied(make_row(0, "track", truth=[None], prediction=[None], scores={"iou": None})).charts == []


@pytest.mark.parametrize("value", [None, "box", [1, 2, 3], [1, 2, 3, None], [1, 2, 3, float("inf")], {"x": 1}])
def test_what_is_no_box_is_nowhere(value):
    assert np.isnan(as_box(value)).all()
    assert as_track([value, [0, 0, 1, 1]]).shape == (2, 4)


def test_tracks_are_compared_where_the_truth_is_visible():
    found, true = boxes_T4(Row.model_validate(make_row(0, "track", truth=TRUTH, prediction=HALF)))
    assert found.shape == true.shape == (2, 4)
    assert centre_errors(found, true).tolist() == [pytest.approx(0.25), np.inf]
    assert boxes_T4(Row.model_validate(make_row(0, "track", truth=None))) is None
