import json
from pathlib import Path

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.errors import TpoError

FORMATS = Path(__file__).resolve().parents[3] / "golden/metrics/formats"
HEADER = "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4"


def line(video="1", qid="0", answer="run"):
    return f'{video},719,320,240,"what then, now",{answer},{qid},TN,walk,run,sit,run,"eat, drink"'


def read(root, lines, evidence, split="test", folders=None, **options):
    (root / f"{split}.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    if evidence is not None:
        (root / f"gsub_{split}.json").write_text(json.dumps(evidence))
    (root / "map_vid_vidorID.json").write_text(json.dumps({"1": "0101/1"} if folders is None else folders))
    return list(READERS["next_gqa"].read(str(root), split, options))


def spans(**location):
    return {"1": {"duration": 24, "location": location, "fps": 29.97}}


def test_a_question_with_alternative_evidence(tmp_path):
    (sample,) = read(tmp_path, [line(qid="8")], spans(**{"8": [[1.2, 5.8], [12.1, 17.1]]}))
    assert (sample.sample_id, sample.task) == ("next_gqa/test/1_8", "grounded_mcq")
    assert [target.span_s for target in sample.targets] == [(1.2, 5.8), (12.1, 17.1)]
    assert {(target.set_rule, target.group) for target in sample.targets} == {("any_of", 0)}
    assert sample.turns[1].target_refs == (0, 1)
    assert sample.turns[0].text == "what then, now"
    assert sample.options == ("walk", "run", "sit", "run", "eat, drink")
    assert sample.answer_index == 1  # the first of equal options
    media = sample.media[0]
    assert (media.uri, media.duration_s, media.n_frames) == ("videos/0101/1.mp4", 24.0, 719)
    assert (media.width, media.height, media.fps) == (320, 240, None)  # a copy at 3 frames/s has the same seconds


def test_one_span_is_single_and_an_end_past_the_video_is_clipped(tmp_path):
    (sample,) = read(tmp_path, [line()], spans(**{"0": [[20.0, 24.4]]}))
    assert (sample.targets[0].set_rule, sample.targets[0].span_s) == ("single", (20.0, 24.0))
    assert sample.provenance.flags == ("end_clipped",)


def test_training_questions_have_no_evidence(tmp_path):
    (sample,) = read(tmp_path, [line()], None, "train", video="{name}.avi")
    assert (sample.task, sample.targets, sample.answer_index) == ("mcq", (), 1)
    assert sample.media[0].uri == "0101/1.avi"


@pytest.mark.parametrize("name", ["gsub_test.json", "map_vid_vidorID.json"])
def test_a_missing_label_file_is_a_user_error(tmp_path, name):
    read(tmp_path, [line()], spans(**{"0": [[1, 2]]}))
    (tmp_path / name).unlink()
    with pytest.raises(TpoError, match=name):
        list(READERS["next_gqa"].read(str(tmp_path), "test", {}))


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    evidence = spans(
        **{"0": [[1, 2]], "1": [[3, 3]], "2": [[5, 4]], "3": [[24.0, 25.0]], "4": [], "5": [[1]], "6": "soon"}
    )
    lines = [line(qid=qid) for qid in "0123456"]
    lines += [line(qid="9"), line(video="2"), line(answer="fly"), "1,719,320", line() + ",extra", line()]
    items = read(tmp_path, lines, evidence)
    assert {item.uri.rpartition(":")[2]: item.reason for item in items if isinstance(item, Reject)} == {
        "2": "moment_empty",
        "3": "moment_reversed",
        "4": "moment_past_end",
        "5": "no_labels",
        "6": "bad_record",
        "7": "bad_record",
        "8": "no_labels",
        "9": "no_labels",
        "10": "answer_not_an_option",
        "11": "bad_record",
        "12": "bad_record",
    }
    assert [item.provenance.row for item in items if not isinstance(item, Reject)] == [0, 12]


def test_a_video_without_a_folder_is_rejected(tmp_path):
    (reject,) = read(tmp_path, [line()], spans(**{"0": [[1, 2]]}), folders={})
    assert reject.reason == "bad_record"


def test_the_golden_layout():
    (record,) = json.loads((FORMATS / "golden/next_gqa.json").read_text())["records"]
    (sample,) = READERS["next_gqa"].read(str(FORMATS / "input/next_gqa"), "test", {"video": "{name}.mp4"})
    assert sample.provenance.native_id == record["key"]
    assert sample.media[0].uri == record["media"]
    assert list(sample.options) == record["options"]
    assert sample.answer_index == record["answer_index"]
    assert [list(target.span_s) for target in sample.targets] == record["evidence_spans_s"]
    assert sample.media[0].duration_s == record["duration_s"]
