import json
from pathlib import Path

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import UNLABELLED, Clip, Saliency, answer_targets, validate

FORMATS = Path(__file__).resolve().parents[3] / "golden/metrics/formats"
ROW = {
    "qid": 7,
    "query": " a boat ",
    "duration": 126,
    "vid": "_a-B_c_60.0_210.0",
    "relevant_windows": [[0, 4], [8, 10]],
    "relevant_clip_ids": [0, 1, 4],
    "saliency_scores": [[4, 1, 1], [2, 3, 2], [0, 4, 3]],
}


def read(root, rows, split="train", **options):
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (root / f"highlight_{split}_release.jsonl").write_text("\n".join(lines))
    return list(READERS["qvhighlights"].read(str(root), split, options))


def test_windows_and_saliency_of_a_cut_clip(tmp_path):
    (sample,) = read(tmp_path, [ROW])
    assert (sample.sample_id, sample.task) == ("qvhighlights/train/7", "highlight")
    media = sample.media[0]
    assert (media.uri, media.duration_s, media.clip_s) == ("videos/_a-B_c_60.0_210.0.mp4", 126.0, None)
    assert [target.span_s for target in sample.targets] == [(0.0, 4.0), (8.0, 10.0), None]
    assert {target.set_rule for target in sample.targets[:2]} == {"all_of"}
    assert sample.targets[2].saliency == Saliency(2.0, (0, 1, 4), ((4, 1, 1), (2, 3, 2), (0, 4, 3)))
    assert answer_targets(sample) == sample.targets
    raw = json.loads(sample.provenance.raw)
    assert (raw["youtube_id"], raw["clip_in_source_s"]) == ("_a-B_c", [60.0, 210.0])


def test_a_clip_of_a_whole_source_video(tmp_path):
    (sample,) = read(tmp_path, [ROW], clips="source")
    assert sample.media[0].uri == "videos/_a-B_c.mp4"
    assert sample.media[0].clip_s == Clip(60.0, 186.0)
    assert sample.media[0].sample_duration_s() == 126.0


def test_a_name_without_a_place_in_a_source_is_fine_only_when_cut(tmp_path):
    row = {**ROW, "vid": "mine"}
    assert read(tmp_path, [row])[0].media[0].uri == "videos/mine.mp4"
    (reject,) = read(tmp_path, [row], clips="source")
    assert reject.reason == "bad_record"


def test_rows_without_labels_are_readable_but_not_trainable(tmp_path):
    (sample,) = read(tmp_path, [{key: ROW[key] for key in ("qid", "query", "duration", "vid")}], split="test")
    assert (sample.task, sample.targets, sample.provenance.flags) == ("span", (), (UNLABELLED,))
    assert validate(sample) == ["no_target"]


def test_windows_without_saliency_are_a_span_task(tmp_path):
    row = {key: value for key, value in ROW.items() if key not in ("relevant_clip_ids", "saliency_scores")}
    assert read(tmp_path, [row])[0].task == "span"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{", "bad_record"),
        ({**ROW, "saliency_scores": [[1, 1, 1]]}, "bad_record"),
        ({key: value for key, value in ROW.items() if key != "vid"}, "bad_record"),
        ({**ROW, "relevant_windows": [[4, 4]]}, "moment_empty"),
        ({**ROW, "relevant_windows": [[126, 128]]}, "moment_past_end"),
        ({**ROW, "relevant_windows": [[6, 4]]}, "moment_reversed"),
        ({**ROW, "relevant_windows": [[float("nan"), 4]]}, "nan"),
        ({**ROW, "query": " "}, "bad_record"),
    ],
)
def test_bad_rows_are_rejected(tmp_path, row, reason):
    good, bad = read(tmp_path, [ROW, row])
    assert not isinstance(good, Reject)
    assert (bad.reason, bad.uri) == (reason, "highlight_train_release.jsonl:2")


def test_the_golden_layout():
    for record in json.loads((FORMATS / "golden/qvhighlights.json").read_text())["records"]:
        root, split = str(FORMATS / "input/qvhighlights"), record["split"]
        (sample,) = READERS["qvhighlights"].read(root, split, {})
        raw = json.loads(sample.provenance.raw)
        assert sample.provenance.native_id == str(record["qid"])
        assert (raw["youtube_id"], raw["clip_in_source_s"]) == (record["youtube_id"], record["clip_in_source_s"])
        assert sample.media[0].duration_s == record["duration_s"]
        spans = [list(target.span_s) for target in sample.targets if target.span_s]
        assert spans == (record["spans_s"] or [])
        saliency = [target.saliency for target in sample.targets if target.saliency]
        scores = {str(i): list(votes) for s in saliency for i, votes in zip(s.clip_ids, s.scores, strict=True)}
        assert scores == record.get("saliency", {})
