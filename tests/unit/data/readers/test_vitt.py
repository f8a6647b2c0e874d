import json

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import kind_of

MARKS = [{"timestamp": 260, "tag": "Opening"}, {"timestamp": 16000, "tag": "Displaying technique"}]


def record(name, marks=MARKS):
    return {"id": name, "annotations": marks}


def read(root, rows, listed=("FmTp", "Ab12"), split="train", **options):
    lines = (row if isinstance(row, str) else json.dumps(row) for row in rows)
    (root / "ViTT-annotations.json").write_text("\n".join(lines) + "\n")
    (root / f"{split}_id.txt").write_text("\n".join(listed))
    return list(READERS["vitt"].read(str(root), split, options))


def test_milliseconds_become_points_in_seconds(tmp_path):
    (sample,) = read(tmp_path, [record("FmTp")])
    assert (sample.sample_id, sample.task, kind_of(sample)) == ("vitt/train/FmTp-0", "dense_caption", "chat")
    assert [(t.kind, t.span_s, t.label) for t in sample.targets] == [
        ("point", (0.26, 0.26), "Opening"),
        ("point", (16.0, 16.0), "Displaying technique"),
    ]
    assert sample.turns[1].text == "0.3 seconds, Opening.  16.0 seconds, Displaying technique."
    assert json.loads(sample.provenance.raw) == {"annotations": MARKS}
    assert sample.media[0].uri == "videos/FmTp.mp4"


def test_the_same_id_again_is_another_annotator(tmp_path):
    first, other, second = read(tmp_path, [record("FmTp"), record("Ab12"), record("FmTp", MARKS[:1])])
    assert [s.provenance.native_id for s in (first, other, second)] == ["FmTp-0", "Ab12-0", "FmTp-1"]
    assert [{t.annotator for t in s.targets} for s in (first, other, second)] == [{0}, {0}, {1}]
    assert first.media == second.media


def test_only_videos_of_the_split_are_read(tmp_path):
    (sample,) = read(tmp_path, [record("FmTp"), record("Ab12")], listed=("Ab12",), split="dev")
    assert (sample.sample_id, sample.provenance.row) == ("vitt/dev/Ab12-0", 1)


def test_a_table_translates_the_ids_to_youtube(tmp_path):
    (tmp_path / "ids.json").write_text(json.dumps({"FmTp": "dQw4w9WgXcQ"}))
    sample, reject = read(tmp_path, [record("FmTp"), record("Ab12")], ids="ids.json")
    assert (sample.media[0].uri, sample.sample_id) == ("videos/dQw4w9WgXcQ.mp4", "vitt/train/FmTp-0")
    assert (reject.reason, "Ab12" in reject.detail) == ("bad_record", True)


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    rows = [
        record("FmTp"),
        "{",
        record("FmTp", []),
        record("FmTp", [*MARKS, {"timestamp": -5, "tag": "x"}]),
        record("FmTp", [{"timestamp": None, "tag": "x"}]),
        record("FmTp", [*MARKS, {"timestamp": 5, "tag": " "}]),
        {"annotations": MARKS},
        "",
        record("Ab12"),
    ]
    items = read(tmp_path, rows)
    rejects = [(int(item.uri.rpartition(":")[2]), item.reason) for item in items if isinstance(item, Reject)]
    assert rejects == [
        (2, "bad_record"),
        (3, "no_labels"),
        (4, "moment_before_start"),
        (5, "bad_record"),
        (6, "bad_record"),
        (7, "bad_record"),
    ]
    assert [len(item.targets) for item in items if not isinstance(item, Reject)] == [2, 2, 2, 2]
