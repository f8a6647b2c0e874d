import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tpo_core.data.readers import READERS, Reject

ROW = {
    "video_id": "001",
    "duration": "short",
    "domain": "Knowledge",
    "sub_category": "Geography",
    "url": "https://www.youtube.com/watch?v=fFjv93ACGo8",
    "videoID": "fFjv93ACGo8",
    "question_id": "001-1",
    "task_type": "Counting Problem",
    "question": "How many?",
    "options": ["A. Apples.", "B. Candles.", "C. Berries.", "D. The three kinds."],
    "answer": "C",
}


def read(root, rows, **options):
    (root / "q.json").write_text(json.dumps(rows))
    return list(READERS["video_mme"].read(str(root), "test", {"file": "q.json", **options}))


def test_letters_leave_the_options_and_stay_in_raw(tmp_path):
    (sample,) = read(tmp_path, [ROW])
    assert (sample.sample_id, sample.task) == ("video_mme/test/001-1", "mcq")
    assert sample.options == ("Apples.", "Candles.", "Berries.", "The three kinds.")
    assert (sample.answer_index, sample.answer_text) == (2, "Berries.")
    media = sample.media[0]
    assert (media.uri, media.kind, media.duration_s) == ("data/fFjv93ACGo8.mp4", "video", None)
    raw = json.loads(sample.provenance.raw)
    assert raw["options"] == ROW["options"]
    assert (raw["duration"], raw["video_id"], raw["task_type"]) == ("short", "001", "Counting Problem")


def test_the_published_parquet_file_is_read_by_default(tmp_path):
    (tmp_path / "videomme").mkdir()
    pq.write_table(pa.Table.from_pylist([ROW, ROW]), tmp_path / "videomme/test-00000-of-00001.parquet")
    samples = list(READERS["video_mme"].read(str(tmp_path), "test", {"video": "videos/{name}.mkv"}))
    assert [sample.answer_index for sample in samples] == [2, 2]
    assert samples[0].media[0].uri == "videos/fFjv93ACGo8.mkv"


def test_items_come_before_the_file_is_read_to_its_end(tmp_path):
    (tmp_path / "q.json").write_text("[" + (json.dumps(ROW) + ",") * 2000 + "broken")
    assert next(READERS["video_mme"].read(str(tmp_path), "test", {"file": "q.json"})).answer_index == 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": "E"}, "answer_not_an_option"),
        ({"answer": "CD"}, "bad_record"),
        ({"answer": None}, "bad_record"),
        ({"options": None}, "bad_record"),
        ({"options": [1, 2, 3, 4]}, "bad_record"),
        ({"videoID": None}, "bad_record"),
        ({"videoID": "../../x"}, "path_outside_root"),
    ],
)
def test_a_planted_fault_is_rejected_and_the_others_are_kept(tmp_path, change, reason):
    first, reject, last = read(tmp_path, [ROW, {**ROW, **change}, {**ROW, "question_id": "001-3"}])
    assert isinstance(reject, Reject)
    assert (reject.uri, reject.reason) == ("q.json:2", reason)
    assert [first.provenance.native_id, last.provenance.native_id] == ["001-1", "001-3"]


def test_a_record_without_a_field_is_rejected(tmp_path):
    rows = [{key: value for key, value in ROW.items() if key != name} for name in ("videoID", "answer", "duration")]
    assert [item.reason for item in read(tmp_path, ["text", *rows])] == ["bad_record"] * 4
