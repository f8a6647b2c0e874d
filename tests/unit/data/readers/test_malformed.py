"""Values of another type or size than the format says cost their record, never the job."""

import json
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.rle import from_coco
from tpo_core.data.sample import Saliency, from_row, to_row, to_table, validate
from tpo_core.errors import TpoError

CHOICE = {"video": "v.mp4", "question": "What?", "candidates": ["a", "b"], "answer": "a"}
MME = {
    "video_id": "1", "duration": "short", "domain": "", "sub_category": "", "videoID": "v", "question_id": "1-1",
    "task_type": "", "question": "What?", "options": ["A. a", "B. b"], "answer": "A",
}  # fmt: skip
PLAIN = {
    "sample_id": "mine/1", "dataset": "mine", "split": "train", "task": "chat", "media": [],
    "turns": [{"role": "user", "text": "?"}, {"role": "assistant", "text": "!"}],
    "provenance": {"source_file": "train.jsonl", "row": 0, "native_id": "1", "reader": "jsonl"},
}  # fmt: skip
HIGHLIGHT = {
    "qid": 1, "query": "q", "duration": 150, "vid": "y_0.0_150.0", "relevant_windows": [[2, 4]],
    "relevant_clip_ids": [1], "saliency_scores": [[4, 3, 2]],
}  # fmt: skip
MDETR = {"id": 1, "file_name": "a.jpg", "width": 50, "height": 40, "caption": "c"}


def chat(answer):
    return {"video": "v.mp4", "QA": [{"q": "What?", "a": answer}]}


def read(root, name, file, rows, options=()):
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(map(json.dumps, rows)) if file.endswith("l") else json.dumps(rows))
    reader = READERS[name]
    return list(reader.read(str(root), reader.default_split, dict(options)))


@pytest.mark.parametrize(
    ("name", "file", "good", "bad"),
    [
        ("videochat2_it", "train.json", chat("yes"), chat(None)),
        ("videochat2_it", "train.json", chat("yes"), chat(3)),
        ("mvbench", "json/moving_count.json", CHOICE, {**CHOICE, "question": 5}),
        (
            "mlvu",
            "json/1_plotQA.json",
            {**CHOICE, "question_type": ""},
            {**CHOICE, "question_type": "", "question": None},
        ),
        ("video_mme", "q.json", MME, {**MME, "question_id": 7}),
        ("jsonl", "train.jsonl", PLAIN, {**PLAIN, "media": None}),
        ("jsonl", "train.jsonl", PLAIN, {**PLAIN, "provenance": None}),
        (
            "jsonl",
            "train.jsonl",
            PLAIN,
            {**PLAIN, "turns": [{"role": "assistant", "text": "!", "target_refs": [None]}]},
        ),
        ("qvhighlights", "highlight_train_release.jsonl", HIGHLIGHT, {**HIGHLIGHT, "saliency_scores": [[300, 3, 2]]}),
    ],
)
def test_a_value_of_another_kind_costs_its_record_alone(name, file, good, bad, tmp_path):
    options = {"file": file} if name == "video_mme" else {}
    first, last = read(tmp_path, name, file, [bad, good], options)
    assert isinstance(first, Reject)
    assert first.reason in ("bad_record", "bad_saliency")
    assert to_table([last]).num_rows == 1


def test_a_size_that_no_column_holds_is_a_reject(tmp_path):
    annotations = [{"image_id": number, "bbox": [1, 2, 3, 4]} for number in (1, 2)]
    content = {"images": [MDETR, {**MDETR, "id": 2, "width": 10**18}], "annotations": annotations}
    (tmp_path / "finetune_refcoco_train.json").write_text(json.dumps(content))
    good, bad = READERS["refcoco_mdetr"].read(str(tmp_path), "train", {})
    assert good.media[0].width == 50
    assert (bad.reason, "1000000000000000000" in bad.detail) == ("bad_record", True)


def test_broken_text_in_an_option_that_is_not_the_answer_is_a_reject(tmp_path):
    (tmp_path / "json").mkdir()
    rows = json.dumps([CHOICE, {**CHOICE, "candidates": ["a", "caf\xe9"]}], ensure_ascii=False)
    (tmp_path / "json/moving_count.json").write_bytes(rows.encode("latin-1"))
    good, bad = READERS["mvbench"].read(str(tmp_path), "test", {})
    assert good.options == ("a", "b")
    assert bad.reason == "text_not_utf8"


def test_what_a_reject_tells_can_be_printed(tmp_path):
    rows = [
        {**PLAIN, "sample_id": "a\udce9", "task": "chat"},
        {"rejected": {"uri": "x:1", "reason": "y", "detail": "\udce9"}},
    ]
    for reject in read(tmp_path, "jsonl", "train.jsonl", rows):
        assert (reject.uri + reject.detail).encode()


def test_a_damaged_parquet_file_is_one_line(tmp_path):
    path = tmp_path / "q.parquet"
    pq.write_table(pa.Table.from_pylist([MME] * 50), path)
    whole = path.read_bytes()
    refused = []
    for at in range(4, len(whole), 97):
        path.write_bytes(whole[:at] + b"\xff\xff" + whole[at + 2 :])
        with suppress(TpoError):  # anything else fails the test
            list(READERS["video_mme"].read(str(tmp_path), "test", {"file": "q.parquet"}))
            continue
        refused.append(at)
    assert refused
    path.write_bytes(whole[: refused[0]] + b"\xff\xff" + whole[refused[0] + 2 :])
    with pytest.raises(TpoError, match=r"q\.parquet is not Parquet .*is the download complete"):
        list(READERS["video_mme"].read(str(tmp_path), "test", {"file": "q.parquet"}))


def test_a_quote_without_end_is_one_line_that_names_the_file(tmp_path):
    rows = "".join(f"{number},x,20.0\n" for number in range(20_000))
    (tmp_path / "Charades_v1_train.csv").write_text(f'id,script,length\nA,"open,20.0\n{rows}')
    (tmp_path / "charades_sta_train.txt").write_text("A 0.0 5.0##a person\n")
    with pytest.raises(TpoError, match=r"Charades_v1_train\.csv line \d+ is not CSV .*quote"):
        list(READERS["charades_sta"].read(str(tmp_path), "train", {}))


def test_a_folder_in_place_of_a_label_file_is_one_line(tmp_path):
    (tmp_path / "train.json").mkdir()
    with pytest.raises(TpoError, match=r"train\.json cannot be read: is a directory"):
        list(READERS["llava"].read(str(tmp_path), "train", {}))


def test_counts_of_a_mask_are_text():
    with pytest.raises(ValueError, match="counts of a mask are int"):
        from_coco({"size": [2, 3], "counts": 10**15}, 2, 3)


def test_a_field_that_is_never_null_is_named():
    with pytest.raises(ValueError, match=r"Sample\.turns is null"):
        from_row({**PLAIN, "turns": None})
    assert "bad_saliency" in validate(
        from_row(
            {
                **PLAIN,
                "targets": [{"kind": "saliency", "saliency": {"clip_len_s": 2.0, "clip_ids": [0], "scores": [[128]]}}],
            }
        )
    )
    assert to_row(from_row(PLAIN))["options"] is None
    assert Saliency(2.0, (0,), ((127,),)).scores[0][0] == 127
