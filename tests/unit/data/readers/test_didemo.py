import json
from pathlib import Path

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.readers.didemo import span_of

FORMATS = Path(__file__).resolve().parents[3] / "golden/metrics/formats"


def row(number, times, **changes):
    values = {"annotation_id": number, "video": "1@N01_22_ab.mov", "num_segments": 6, "description": " a dog runs "}
    return {**values, "times": times, **changes}


def read(root, rows, **options):
    (root / "val_data.json").write_text(json.dumps(rows))
    return list(READERS["didemo"].read(str(root), "val", options))


@pytest.mark.parametrize(("chunks", "span"), [((0, 0), (0.0, 5.0)), ((1, 2), (5.0, 15.0)), ((5, 5), (25.0, 30.0))])
def test_both_chunks_belong_to_the_moment(chunks, span):
    assert span_of(*chunks) == span


def test_each_annotator_gives_an_alternative_and_the_most_frequent_comes_first(tmp_path):
    (sample,) = read(tmp_path, [row(7, [[2, 2], [1, 1], [1, 1], [0, 0]])])
    assert (sample.sample_id, sample.task) == ("didemo/val/7", "span")
    assert [(t.annotator, t.span_s) for t in sample.targets] == [
        (1, (5.0, 10.0)),
        (2, (5.0, 10.0)),
        (0, (10.0, 15.0)),
        (3, (0.0, 5.0)),
    ]
    assert {(t.group, t.set_rule, t.label) for t in sample.targets} == {(0, "any_of", "a dog runs")}
    assert sample.turns[1].target_refs == (0, 1, 2, 3)
    assert json.loads(sample.provenance.raw) == {"num_segments": 6, "times": [[2, 2], [1, 1], [1, 1], [0, 0]]}


def test_more_than_four_annotators_are_kept(tmp_path):
    (sample,) = read(tmp_path, [row(7, [[0, 4]] * 3 + [[2, 3]] * 4)])
    assert [t.annotator for t in sample.targets] == [3, 4, 5, 6, 0, 1, 2]


def test_the_duration_is_left_to_the_decoder_and_the_container_to_the_user(tmp_path):
    (sample,) = read(tmp_path, [row(7, [[5, 5]])])
    assert (sample.media[0].uri, sample.media[0].duration_s) == ("videos/1@N01_22_ab.mov", None)
    (sample,) = read(tmp_path, [row(7, [[5, 5]])], video="mp4/{name}.mp4")
    assert sample.media[0].uri == "mp4/1@N01_22_ab.mp4"


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    good = row(0, [[0, 1]] * 4)
    planted = {
        1: (row(1, [[0, 1], [3, 2]]), "moment_reversed"),
        3: (row(3, []), "no_labels"),
        4: (row(4, [[0, 6]]), "bad_record"),
        5: (row(5, [[-1, 2]]), "bad_record"),
        6: (row(6, [[1, 1]], description="  "), "bad_record"),
        8: ("text", "bad_record"),
        9: (row(9, [[1]]), "bad_record"),
    }
    items = read(tmp_path, [planted.get(k, (good, ""))[0] for k in range(11)])
    rejects = {int(i.uri.rpartition(":")[2]) - 1: i.reason for i in items if isinstance(i, Reject)}
    assert rejects == {k: reason for k, (_, reason) in planted.items()}
    assert len(items) == 11


def test_the_first_samples_come_although_the_file_is_broken_later(tmp_path):
    (tmp_path / "val_data.json").write_text(json.dumps([row(k, [[0, 0]]) for k in range(3000)])[:-50])
    items = READERS["didemo"].read(str(tmp_path), "val", {})
    assert next(items).sample_id == "didemo/val/0"


def test_the_golden_layout():
    samples = list(READERS["didemo"].read(str(FORMATS / "input/didemo"), "train", {}))
    records = json.loads((FORMATS / "golden/didemo.json").read_text())["records"]
    for sample, record in zip(samples, records, strict=True):
        assert sample.provenance.native_id == str(record["annotation_id"])
        assert sample.targets[0].label == record["query"]
        by_annotator = sorted(sample.targets, key=lambda target: target.annotator)
        assert [list(t.span_s) for t in by_annotator] == record["annotator_spans_s"]
        assert list(sample.targets[0].span_s) == record["majority_span_s"]
