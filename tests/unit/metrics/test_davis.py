"""DAVIS: which frames and objects count, and what becomes of degenerate predictions."""

import numpy as np
import pytest

from tests.unit.metrics.pngs import NONE, ONE, H, W, counts, image, save_all
from tpo_core.errors import TpoError
from tpo_core.metrics import masks
from tpo_core.metrics.registry import score


@pytest.fixture
def davis(tmp_path):
    """Truth frames, and predictions that default to them."""

    def run(truth, prediction=None, implementation="semi-supervised", **options):
        save_all(tmp_path / "gt" / "bear", truth)
        (tmp_path / "mine").mkdir(exist_ok=True)
        save_all(tmp_path / "mine" / "bear", truth if prediction is None else prediction)
        return score("davis", tmp_path / "gt", tmp_path / "mine", implementation, **options)

    return run


def test_davis_leaves_out_the_first_and_the_last_frame(davis):
    report = davis([ONE] * 5, [NONE, ONE, ONE, NONE, NONE])
    assert report.result["J-Mean"] == pytest.approx(2 / 3)
    assert report.result["J-Recall"] == pytest.approx(2 / 3)
    assert davis([ONE] * 5, [NONE, ONE, ONE, NONE, NONE], "unsupervised").result["J-Mean"] == pytest.approx(2 / 5)


def test_objects_that_come_late_are_not_scored(davis):
    both = image((1, 2, 2), (2, 12, 20))
    report = davis([ONE, both, both, both])
    assert list(report.per_item) == ["bear_1"]
    assert davis([both, ONE, ONE, both], [both, both, ONE, both]).per_item["bear_2"]["J-Mean"] == 0.5


def test_void_is_background_for_semi_supervised_and_does_not_count_for_unsupervised(davis):
    truth = image((1, 2, 2))
    truth[2:10, 10:18] = 255
    wide = image((1, 2, 2), (1, 2, 10))
    assert davis([truth] * 4, [wide] * 4).result["J-Mean"] == 0.5
    assert davis([truth] * 4, [wide] * 4, "unsupervised").result["J-Mean"] == 1.0


def test_proposals_are_matched_to_objects(davis):
    truth = image((1, 2, 2), (2, 12, 20))
    proposals = image((7, 12, 20), (3, 2, 2), (5, 14, 2))
    report = davis([truth] * 3, [proposals] * 3, "unsupervised")
    assert report.result["J&F-Mean"] == 1.0
    assert report.per_item.keys() == {"bear_1", "bear_2"}


def test_an_object_without_a_proposal_is_a_miss(davis):
    truth = image((1, 2, 2), (2, 12, 20))
    report = davis([truth] * 3, [image((1, 12, 20))] * 3, "unsupervised")
    assert [item["J-Mean"] for item in report.per_item.values()] == [0.0, 1.0]
    strict = davis([truth] * 3, [image((1, 12, 20))] * 3, "unsupervised", strict_official=True)
    assert [item["J-Mean"] for item in strict.per_item.values()] == [1.0, 0.0], "numbered by the proposal"
    assert strict.result == report.result


@pytest.mark.parametrize(
    ("implementation", "prediction", "reason", "j"),
    [
        ("semi-supervised", image((1, 2, 2), (2, 12, 20)), "out_of_range", 1.0),
        ("semi-supervised", image((1, 2, 2), (255, 12, 20)), "out_of_range", 1.0),
        ("unsupervised", image((1, 2, 2), (21, 12, 20)), "out_of_range", 1.0),
        ("semi-supervised", np.zeros((H, W + 1), np.uint8), "malformed", 0.0),
        ("semi-supervised", np.zeros((H, W, 3), np.uint8), "malformed", 0.0),
    ],
)
def test_wrong_predictions_of_davis(davis, implementation, prediction, reason, j):
    report = davis([ONE] * 3, [prediction] * 3, implementation)
    assert counts(report) == {reason: 3 if implementation == "unsupervised" else 1}, "once a scored frame"
    assert report.result["J-Mean"] == j
    with pytest.raises(TpoError, match="the code of DAVIS stops"):
        davis([ONE] * 3, [prediction] * 3, implementation, strict_official=True)


def test_what_is_out_of_range_is_told_of_each_frame(davis):
    both = image((1, 2, 2), (2, 12, 20))
    report = davis([ONE] * 6, [both, both, both, ONE, both, both])
    assert counts(report) == {"out_of_range": 3}
    assert report.rejected["out_of_range"]["examples"][0] == "bear/00001.png: object 2 of at most 1"


@pytest.mark.parametrize("n_objects", [20, 21, 25])
def test_more_objects_than_proposals(davis, n_objects):
    """The official code fills the proposals up with empty ones, so that the objects that got none are misses."""
    truth = np.zeros((40, 40), np.uint8)
    for k in range(n_objects):
        truth[k // 5 * 8 : k // 5 * 8 + 6, k % 5 * 8 : k % 5 * 8 + 6] = k + 1
    few = np.where(truth > 20, 0, truth)
    for strict in (False, True):
        report = davis([truth] * 3, [few] * 3, "unsupervised", strict_official=strict)
        assert report.result["J-Mean"] == pytest.approx(20 / n_objects)
        assert (report.n, report.N, report.rejected) == (n_objects, n_objects, {})
    late = davis(
        [np.where(truth > 0, n_objects + 1 - truth.astype(int), 0).astype(np.uint8)] * 3, [few] * 3, "unsupervised"
    )
    assert late.result["J-Mean"] == pytest.approx(20 / n_objects), "whichever they are"


def test_a_21st_proposal_is_told_and_does_not_count(davis):
    truth = np.zeros((40, 40), np.uint8)
    for k in range(21):
        truth[k // 5 * 8 : k // 5 * 8 + 6, k % 5 * 8 : k % 5 * 8 + 6] = k + 1
    report = davis([truth] * 3, [truth] * 3, "unsupervised")
    assert report.result["J-Mean"] == pytest.approx(20 / 21)
    assert counts(report) == {"out_of_range": 3}
    with pytest.raises(TpoError, match="object 21 of at most 20: out_of_range, at which the code of DAVIS stops"):
        davis([truth] * 3, [truth] * 3, "unsupervised", strict_official=True)


def test_missing_frames_and_sequences_of_davis(davis, tmp_path):
    davis([ONE] * 4)
    (tmp_path / "mine" / "bear" / "00001.png").unlink()
    save_all(tmp_path / "gt" / "cow", [ONE] * 4)
    save_all(tmp_path / "mine" / "dog", [ONE])
    report = score("davis", tmp_path / "gt", tmp_path / "mine")
    assert counts(report) == {"missing": 2, "unknown": 1}
    assert {name: item["J-Mean"] for name, item in report.per_item.items()} == {"bear_1": 0.5, "cow_1": 0.0}
    assert report.result["J-Mean"] == 0.25
    with pytest.raises(TpoError, match="missing"):
        score("davis", tmp_path / "gt", tmp_path / "mine", strict_official=True)


def test_a_sequence_with_nothing_to_score_is_left_out(davis, tmp_path):
    save_all(tmp_path / "gt" / "cow", [ONE] * 2)
    save_all(tmp_path / "mine" / "cow", [ONE] * 2)
    report = davis([ONE] * 3)
    assert counts(report) == {"bad_truth": 1}
    assert (report.n, report.N) == (1, 2)


@pytest.mark.parametrize(
    ("implementation", "annotations"),
    [("semi-supervised", "Annotations"), ("unsupervised", "Annotations_unsupervised")],
)
def test_the_folder_of_davis_itself(tmp_path, implementation, annotations):
    root = tmp_path / "DAVIS"
    save_all(root / annotations / "480p" / "bear", [ONE] * 3)
    (root / "ImageSets" / "2017").mkdir(parents=True)
    (root / "ImageSets" / "2017" / "val.txt").write_text("bear\n")
    save_all(tmp_path / "mine" / "bear", [ONE] * 3)
    assert score("davis", root, tmp_path / "mine", implementation).result["J&F-Mean"] == 1.0
    with pytest.raises(TpoError, match=r"train.txt: there is no such file"):
        score("davis", root, tmp_path / "mine", implementation, subset="train")


def test_decay_beyond_256_frames():
    falling = np.linspace(1, 0, 1000)
    assert masks.statistics(falling)[2] == pytest.approx(0.75, abs=1e-3)
    assert np.isnan(masks.statistics(falling, official_bins=True)[2])
