import json
from pathlib import Path

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.errors import TpoError

FORMATS = Path(__file__).resolve().parents[3] / "golden/metrics/formats"


def write(root, lines, durations="V1,30.0\n"):
    (root / "charades_sta_train.txt").write_text("".join(line + "\n" for line in lines))
    rows = durations.replace(",", ',"a script, quoted",')
    (root / "Charades_v1_train.csv").write_text("id,script,length\n" + rows)


def read(root, **options):
    return list(READERS["charades_sta"].read(str(root), "train", options))


def test_one_sample_a_line(tmp_path):
    write(tmp_path, ["V1 0.0 6.9##a person sits down."])
    (sample,) = read(tmp_path)
    assert sample.sample_id == "charades_sta/train/V1-0"
    assert sample.media[0].uri == "videos/V1.mp4"
    assert sample.media[0].duration_s == 30.0
    assert (sample.targets[0].span_s, sample.targets[0].label) == ((0.0, 6.9), "a person sits down.")
    assert sample.turns[1].text == "The given query happens in <time_begin><temp> seconds."


def test_a_sentence_is_split_at_the_first_mark_only(tmp_path):
    write(tmp_path, ["V1 1 2##person #1 greets ##person #2."])
    assert read(tmp_path)[0].targets[0].label == "person #1 greets ##person #2."


def test_ends_are_clipped_and_the_native_line_is_kept(tmp_path):
    write(tmp_path, ["V1 20.8 33.3##x."])
    (sample,) = read(tmp_path)
    assert sample.targets[0].span_s == (20.8, 30.0)
    assert sample.provenance.flags == ("end_clipped",)
    assert json.loads(sample.provenance.raw) == {"line": "V1 20.8 33.3##x.", "spans_s": [[20.8, 33.3]]}


def test_what_cannot_be_used_is_rejected_with_its_reason(tmp_path):
    write(
        tmp_path,
        ["V1 8 7##x", "V1 3 3##x", "V1 31 32##x", "V1 3##x", "V1 3 4 x", "V1 a b##x", "V1 1 2## ", "V1 nan 2##x"],
    )
    rejects = read(tmp_path)
    assert [reject.reason for reject in rejects] == [
        "moment_reversed",
        "moment_empty",
        "moment_past_end",
        "bad_line",
        "bad_line",
        "bad_line",
        "bad_line",
        "nan",
    ]
    assert [reject.uri for reject in rejects] == [f"charades_sta_train.txt:{i}" for i in range(1, 9)]


def test_a_video_without_a_duration_waits_for_the_decoder(tmp_path):
    write(tmp_path, ["V9 1 200##x"])
    (sample,) = read(tmp_path)
    assert (sample.media[0].duration_s, sample.targets[0].span_s) == (None, (1.0, 200.0))
    assert sample.provenance.flags == ("duration_unknown",)


def test_options_move_labels_and_videos(tmp_path):
    (tmp_path / "ann").mkdir()
    (tmp_path / "ann/charades_sta_train.txt").write_text("V1 1 2##x\n")
    (sample,) = read(tmp_path, labels="ann", durations="decoder", video="v480/{name}.mkv")
    assert sample.media[0].uri == "v480/V1.mkv"
    assert sample.provenance.source_file == "ann/charades_sta_train.txt"


def test_the_lines_of_cgdetr_are_another_truth(tmp_path):
    row = {"qid": 3, "query": "person #1 sits.", "duration": 33.67, "vid": "V1", "relevant_windows": [[0.0, 6.9]]}
    (tmp_path / "charades_sta_train_tvr_format.jsonl").write_text(json.dumps(row))
    (sample,) = read(tmp_path, form="cgdetr")
    assert (sample.sample_id, sample.media[0].duration_s) == ("charades_sta/train/3", 33.67)
    assert (sample.targets[0].span_s, sample.targets[0].label) == ((0.0, 6.9), "person #1 sits.")
    assert sample.provenance.source_file == "charades_sta_train_tvr_format.jsonl"


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    good = "V1 1 2##person sits."
    planted = {2: "V1 8 7##x", 3: "V1 3 3##x", 5: "V1 31 32##x", 6: "no line", 9: "V1 1 2##"}
    write(tmp_path, [planted.get(row, good) for row in range(12)])
    items = read(tmp_path)
    rejects = {int(item.uri.rpartition(":")[2]) - 1: item.reason for item in items if isinstance(item, Reject)}
    reasons = ["moment_reversed", "moment_empty", "moment_past_end", "bad_line", "bad_line"]
    assert rejects == dict(zip(planted, reasons, strict=True))
    assert len(items) == 12


def test_a_missing_or_broken_table_of_durations_is_a_user_error(tmp_path):
    write(tmp_path, ["V1 1 2##x"], durations="V1,long\n")
    with pytest.raises(TpoError, match="'long' is no number"):
        read(tmp_path)
    (tmp_path / "Charades_v1_train.csv").write_text("name\nV1\n")
    with pytest.raises(TpoError, match="lacks `id` or `length`"):
        read(tmp_path)
    (tmp_path / "Charades_v1_train.csv").unlink()
    with pytest.raises(TpoError, match=r"expected the label file .*Charades_v1_train\.csv"):
        read(tmp_path)


def test_the_golden_layout():
    golden = json.loads((FORMATS / "golden/charades_sta.json").read_text())
    items = read(FORMATS / "input/charades_sta")
    samples = [item for item in items if not isinstance(item, Reject)]
    assert [
        {"video": Path(s.media[0].uri).stem, "query": s.targets[0].label, "spans_s": [list(s.targets[0].span_s)]}
        for s in samples
    ] == [{key: record[key] for key in ("video", "query", "spans_s")} for record in golden["records"]]
    assert [s.media[0].duration_s for s in samples] == [record["duration_s"] for record in golden["records"]]
    lines = [int(item.uri.rpartition(":")[2]) for item in items if isinstance(item, Reject)]
    assert lines == [reject["line"] for reject in golden["rejected"]]
