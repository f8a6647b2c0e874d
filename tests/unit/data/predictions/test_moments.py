import json

import numpy as np
import pytest

from tpo_core.data.predictions import moments
from tpo_core.data.predictions.moments import Moments
from tpo_core.data.readers import READERS
from tpo_core.errors import TpoError

CHARADES = ["V1 0.0 6.9##sits down.", "V1 9 8##reversed", "V2 2.0 5.0##person #1 waves."]


def samples_of(reader, root, split, **options):
    return [item for item in READERS[reader].read(str(root), split, options) if hasattr(item, "sample_id")]


@pytest.fixture
def qvhighlights(tmp_path):
    row = {"query": " a boat ", "duration": 150, "relevant_windows": [[0, 4]]}
    rows = [{**row, "qid": qid, "vid": f"_a_{qid}.0_150.0"} for qid in (7, 9)]
    del rows[1]["relevant_windows"]
    (tmp_path / "highlight_val_release.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return samples_of("qvhighlights", tmp_path, "val")


@pytest.fixture
def charades(tmp_path):
    (tmp_path / "charades_sta_test.txt").write_text("\n".join(CHARADES))
    return samples_of("charades_sta", tmp_path, "test", durations="decoder")


@pytest.fixture
def nlq(tmp_path):
    queries = [{"query": q, "clip_start_sec": 1.0, "clip_end_sec": 2.0} for q in ("Where?", None, "When?")]
    note = {"annotation_uid": "ann_0", "language_queries": queries}
    clip = {"clip_uid": "clip-0", "video_start_sec": 300.0, "video_end_sec": 780.0, "annotations": [note]}
    (tmp_path / "nlq_val.json").write_text(json.dumps({"videos": [{"video_uid": "v", "clips": [clip]}]}))
    return samples_of("nlq", tmp_path, "val")


@pytest.fixture
def didemo(tmp_path):
    rows = [{"annotation_id": 40 + k, "video": "a.mov", "description": "x", "times": [[k, k]] * 4} for k in range(2)]
    (tmp_path / "val_data.json").write_text(json.dumps(rows))
    return samples_of("didemo", tmp_path, "val")


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_qvhighlights_comes_back_as_it_went(qvhighlights, tmp_path):
    uri, third = str(tmp_path / "out/pred.jsonl"), 1 / 3
    predictions = {
        sample.sample_id: Moments(((2.0, 4.0 + third, 0.9), (0.0, 2.0, third)), (0.1, third, -2.5))
        for sample in qvhighlights
    }
    moments.write_qvhighlights(qvhighlights, predictions, uri)
    assert moments.read_qvhighlights(qvhighlights, uri) == predictions
    first, unlabelled = lines(tmp_path / "out/pred.jsonl")
    assert (first["qid"], first["vid"], first["query"]) == (7, "_a_7.0_150.0", " a boat ")
    assert first["pred_relevant_windows"][1] == [0.0, 2.0, third]
    assert first["pred_saliency_scores"] == [0.1, third, -2.5]
    assert unlabelled["qid"] == 9


def test_saliency_is_for_all_or_for_none(qvhighlights, tmp_path):
    uri, window = str(tmp_path / "p.jsonl"), ((0.0, 2.0, 0.5),)
    first, second = (sample.sample_id for sample in qvhighlights)
    with pytest.raises(TpoError, match="the scorer looks at the first line only"):
        moments.write_qvhighlights(qvhighlights, {first: Moments(window, (0.1,)), second: Moments(window)}, uri)
    moments.write_qvhighlights(qvhighlights, {first: Moments(window)}, uri)
    assert "pred_saliency_scores" not in lines(tmp_path / "p.jsonl")[0]
    assert moments.read_qvhighlights(qvhighlights, uri) == {first: Moments(window)}


def test_charades_is_numbered_by_line(charades, tmp_path):
    uri = str(tmp_path / "pred.jsonl")
    predictions = {sample.sample_id: Moments(((*sample.targets[0].span_s, 1.0),)) for sample in charades}
    moments.write_charades_sta(charades, predictions, uri)
    rows = lines(tmp_path / "pred.jsonl")
    assert [(row["qid"], row["vid"], row["query"]) for row in rows] == [
        (0, "V1", "sits down."),
        (2, "V2", "person #1 waves."),
    ]
    assert moments.read_charades_sta(charades, uri) == predictions


def test_tacos_in_the_lines_of_cgdetr(tmp_path):
    row = {"qid": 12, "query": "He cuts. ", "duration": 20.0, "vid": "s17-d69", "relevant_windows": [[10.0, 12.0]]}
    (tmp_path / "test.jsonl").write_text(json.dumps(row))
    samples = samples_of("tacos", tmp_path, "test", form="cgdetr")
    predictions = {samples[0].sample_id: Moments(((1.5, 2.5, 0.25),))}
    moments.write_tacos(samples, predictions, str(tmp_path / "pred.jsonl"))
    (line,) = lines(tmp_path / "pred.jsonl")
    assert (line["qid"], line["vid"], line["query"]) == (12, "s17-d69", "He cuts. ")
    assert moments.read_tacos(samples, str(tmp_path / "pred.jsonl")) == predictions


def test_nlq_is_keyed_by_clip_annotation_and_place(nlq, tmp_path):
    uri = str(tmp_path / "pred.json")
    predictions = {sample.sample_id: ((1.25, 2.0 / 3 + 1), (0.0, 4.0)) for sample in nlq}
    moments.write_nlq(nlq, predictions, uri)
    content = json.loads((tmp_path / "pred.json").read_text())
    assert (content["version"], content["challenge"]) == ("1.0", "ego4d_nlq_challenge")
    assert [row["query_idx"] for row in content["results"]] == [0, 2]
    assert content["results"][1] == {
        "clip_uid": "clip-0",
        "annotation_uid": "ann_0",
        "query_idx": 2,
        "predicted_times": [[1.25, 2.0 / 3 + 1], [0.0, 4.0]],
    }
    assert moments.read_nlq(nlq, uri) == predictions


def test_didemo_ranks_all_runs_of_chunks_by_position(didemo, tmp_path):
    uri = str(tmp_path / "ranked.json")
    first, second = (sample.sample_id for sample in didemo)
    moments.write_didemo(didemo, {second: [(5.0, 15.0), (0.0, 5.0)], first: [(11.0, 14.0), (10.5, 15.0)]}, uri)
    ranked = json.loads((tmp_path / "ranked.json").read_text())
    assert ranked[0][0] == [2, 2]
    assert ranked[1][:2] == [[1, 2], [0, 0]]
    assert [len({tuple(segment) for segment in row}) for row in ranked] == [21, 21]
    back = moments.read_didemo(didemo, uri)
    assert back[second][:2] == ((5.0, 15.0), (0.0, 5.0))
    moments.write_didemo(didemo, back, uri)
    assert (json.loads((tmp_path / "ranked.json").read_text()), moments.read_didemo(didemo, uri)) == (ranked, back)


def test_runs_that_are_not_named_follow_by_their_overlap(didemo, tmp_path):
    uri = str(tmp_path / "ranked.json")
    moments.write_didemo(didemo, {sample.sample_id: [(25.0, 30.0)] for sample in didemo}, uri)
    first = json.loads((tmp_path / "ranked.json").read_text())[0]
    assert first[:3] == [[5, 5], [4, 5], [3, 5]]
    assert first[-1] == [0, 0]


def test_any_order_of_runs_survives(didemo, tmp_path):
    uri, shuffle = str(tmp_path / "ranked.json"), np.random.default_rng(0)
    order = {
        sample.sample_id: tuple(
            (first * 5.0, last * 5.0 + 5.0) for first, last in shuffle.permutation(moments.SEGMENTS).tolist()
        )
        for sample in didemo
    }
    moments.write_didemo(didemo, order, uri)
    assert moments.read_didemo(didemo, uri) == order


def test_didemo_needs_every_row(didemo, tmp_path):
    first, second = didemo
    with pytest.raises(TpoError, match="by position, but didemo/val/41 has no prediction"):
        moments.write_didemo(didemo, {first.sample_id: [(0.0, 5.0)]}, str(tmp_path / "p.json"))
    with pytest.raises(TpoError, match="row 0 of the labels has no prediction"):
        moments.write_didemo([second], {second.sample_id: [(0.0, 5.0)]}, str(tmp_path / "p.json"))


@pytest.mark.parametrize(
    ("windows", "message"),
    [
        ((), "no moment is predicted"),
        (((3.0, 2.0),), r"\[3.0, 2.0\] is no moment"),
        (((0.0, 1.0), (float("nan"), 2.0)), "is no moment"),
        (((0.0, float("inf")),), "is no moment"),
    ],
)
def test_what_scorers_cannot_take_is_refused_before_anything_is_written(nlq, tmp_path, windows, message):
    uri = str(tmp_path / "pred.json")
    with pytest.raises(TpoError, match=message):
        moments.write_nlq(nlq, {nlq[1].sample_id: windows}, uri)
    scored = Moments(tuple((*window, 0.5) for window in windows))
    with pytest.raises(TpoError):
        moments.write_qvhighlights(nlq, {nlq[1].sample_id: scored}, uri)
    assert not (tmp_path / "pred.json").exists()


def test_predictions_of_no_sample_and_damaged_files_are_user_errors(nlq, charades, tmp_path):
    uri = str(tmp_path / "pred.json")
    with pytest.raises(TpoError, match="1 predictions belong to no sample, the first is 'x'"):
        moments.write_nlq(nlq, {"x": [(0.0, 1.0)]}, uri)
    with pytest.raises(TpoError, match="there is no file"):
        moments.read_nlq(nlq, uri)
    moments.write_nlq(nlq, {nlq[1].sample_id: [(0.0, 1.0)]}, uri)
    with pytest.raises(TpoError, match="is no query of the samples"):
        moments.read_nlq(nlq[:1], uri)
    for text in ("{", '{"qid": 0, "pred_relevant_windows": [[1, 2]]}', "[]", '{"qid": 0}', '{"qid": 5}'):
        (tmp_path / "pred.json").write_text(text)
        with pytest.raises(TpoError, match=r"pred\.json"):
            moments.read_charades_sta(charades, uri)
