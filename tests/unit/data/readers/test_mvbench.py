import json
from pathlib import Path

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.readers.mvbench import BOUNDED, FOLDERS, task_title
from tpo_core.data.sample import Clip
from tpo_core.errors import TpoError

FORMATS = Path(__file__).resolve().parents[3] / "golden/metrics/formats"
ROW = {"video": "v.mp4", "question": "What?", "candidates": ["a cat", "a dog"], "answer": "a dog"}


def write(root, task, rows):
    (root / "json").mkdir(exist_ok=True)
    (root / "json" / f"{task}.json").write_text(json.dumps(rows))


def read(root, split="test", **options):
    return list(READERS["mvbench"].read(str(root), split, options))


def test_twenty_tasks_five_of_them_with_a_clip():
    assert (len(FOLDERS), len(BOUNDED)) == (20, 5)
    assert set(FOLDERS) >= BOUNDED
    assert [task_title(name) for name in ("fine_grained_pose", "state_change")] == ["Fine-grained Pose", "State Change"]


def test_a_question_keeps_its_options_apart(tmp_path):
    write(tmp_path, "state_change", [{**ROW, "start": 1, "end": 2}])
    (sample,) = read(tmp_path)
    assert (sample.sample_id, sample.task) == ("mvbench/test/state_change-0", "mcq")
    assert (sample.options, sample.answer_index, sample.answer_text) == (("a cat", "a dog"), 1, "a dog")
    assert [(turn.role, turn.text) for turn in sample.turns] == [("user", "What?"), ("assistant", "a dog")]
    assert sample.media[0].uri == "video/perception/videos/v.mp4"
    assert sample.media[0].clip_s is None  # of five tasks only
    assert json.loads(sample.provenance.raw) == {"task_type": "State Change"}


def test_episodic_reasoning_is_on_folders_of_frames(tmp_path):
    row = {**ROW, "video": "castle_s01e01_clip_01", "start": 2.5, "end": 8.0}
    write(tmp_path, "episodic_reasoning", [row])
    media = read(tmp_path, video="frames/{name}")[0].media[0]
    assert (media.uri, media.kind, media.fps) == ("frames/castle_s01e01_clip_01", "frames", 3.0)
    assert (media.clip_s, media.frame_names) == (Clip(2.5, 8.0), None)


def test_a_split_is_all_tasks_that_are_there_or_one(tmp_path):
    for task in ("moving_count", "action_antonym"):
        write(tmp_path, task, [ROW])
    assert [s.provenance.native_id for s in read(tmp_path)] == ["action_antonym-0", "moving_count-0"]
    assert [s.sample_id for s in read(tmp_path, "moving_count")] == ["mvbench/moving_count/moving_count-0"]
    with pytest.raises(TpoError, match=r"json/state_change\.json"):
        read(tmp_path, "state_change")
    with pytest.raises(TpoError, match=r"json/moving_cuont\.json; there is moving_count\.json"):
        read(tmp_path, "moving_cuont")


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    clipped = {**ROW, "start": 1.0, "end": 4.0}
    rows = [
        clipped,
        ROW,
        {**clipped, "start": 4.0},
        {**clipped, "start": 5.0},
        {**clipped, "answer": "a bird"},
        {**clipped, "candidates": None},
        {**clipped, "video": None},
        {**clipped, "start": "soon"},
        {**clipped, "start": -1.0},
        "text",
        clipped,
    ]
    write(tmp_path, "action_sequence", rows)
    items = read(tmp_path)
    assert {item.uri: item.reason for item in items if isinstance(item, Reject)} == {
        "json/action_sequence.json:2": "bad_record",
        "json/action_sequence.json:3": "clip_empty",
        "json/action_sequence.json:4": "clip_empty",
        "json/action_sequence.json:5": "answer_not_an_option",
        "json/action_sequence.json:6": "bad_record",
        "json/action_sequence.json:7": "bad_record",
        "json/action_sequence.json:8": "bad_record",
        "json/action_sequence.json:9": "clip_empty",
        "json/action_sequence.json:10": "bad_record",
    }
    assert [item.provenance.row for item in items if not isinstance(item, Reject)] == [0, 10]


def test_the_golden_layout():
    records = json.loads((FORMATS / "golden/mvbench.json").read_text())["records"]
    for sample, record in zip(read(FORMATS / "input/mvbench"), records, strict=True):
        assert json.loads(sample.provenance.raw)["task_type"] == record["task"]
        assert sample.media[0].uri.endswith("/" + record["video"])
        assert list(sample.options) == record["options"]
        assert sample.answer_index == record["answer_index"]
        clip = sample.media[0].clip_s
        assert (None if clip is None else [clip.start, clip.end]) == record["clip_s"]
