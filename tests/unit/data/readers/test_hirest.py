import json

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import UNLABELLED

STEPS = [
    {"index": 0, "heading": "take oats ", "absolute_bounds": [50, 74]},
    {"index": 1, "heading": "mix well.", "absolute_bounds": [74, 187]},
]
VIDEO = {"relevant": True, "clip": True, "v_duration": 207.08, "bounds": [50, 187], "steps": STEPS}
WHOLE = {"relevant": True, "clip": False, "v_duration": 64.3, "bounds": [0, 0], "steps": []}
WITHHELD = {"relevant": True, "clip": True, "v_duration": 367.8, "bounds": [0, 1], "steps": []}


def read(root, queries, split="val", **options):
    (root / f"all_data_{split}.json").write_text(json.dumps(queries))
    return list(READERS["hirest"].read(str(root), split, options))


def test_the_moment_of_a_query(tmp_path):
    (sample,) = read(tmp_path, {"Make Oats": {"5V3.mp4": VIDEO}})
    assert (sample.sample_id, sample.task) == ("hirest/val/5V3-0", "span")
    assert (sample.targets[0].label, sample.targets[0].span_s) == ("Make Oats", (50.0, 187.0))
    assert (sample.media[0].uri, sample.media[0].duration_s) == ("videos/5V3.mp4", 207.08)
    assert sample.provenance.flags == ()


def test_a_video_that_answers_as_a_whole_is_no_empty_moment(tmp_path):
    (sample,) = read(tmp_path, {"Use a Fire Pit": {"rXt.mp4": WHOLE}})
    assert sample.targets[0].span_s == (0.0, 64.3)
    assert sample.provenance.flags == ("whole_video",)
    assert json.loads(sample.provenance.raw) == {"bounds": [0, 0], "clip": False}


def test_placeholders_of_the_test_split_are_no_labels(tmp_path):
    queries = {"Sew": {"a.mp4": WITHHELD, "b.mp4": {**WITHHELD, "clip": False}}}
    for sample in read(tmp_path, queries, split="test"):
        assert (sample.targets, sample.provenance.flags) == ((), (UNLABELLED,))
    assert read(tmp_path, queries, split="test", task="dense_caption") == []


def test_steps_are_on_the_timeline_of_the_whole_video(tmp_path):
    (sample,) = read(tmp_path, {"Make Oats": {"5V3.mp4": VIDEO, "rXt.mp4": WHOLE}}, task="dense_caption")
    assert (sample.sample_id, sample.task) == ("hirest/val/5V3-0-steps", "dense_caption")
    assert sample.turns[1].text == "50.0 - 74.0 seconds, take oats.  74.0 - 187.0 seconds, mix well."
    assert [(t.label, t.span_s) for t in sample.targets] == [("take oats", (50.0, 74.0)), ("mix well.", (74.0, 187.0))]
    assert json.loads(sample.provenance.raw) == {"bounds": [50, 187], "query": "Make Oats"}


def test_a_video_may_answer_several_queries(tmp_path):
    samples = read(tmp_path, {"Make Oats": {"5V3.mp4": VIDEO}, "Cook": {"5V3.mp4": WHOLE}})
    assert [s.sample_id for s in samples] == ["hirest/val/5V3-0", "hirest/val/5V3-1"]
    assert [s.provenance.row for s in samples] == [0, 1]


def test_irrelevant_videos_are_not_read(tmp_path):
    assert read(tmp_path, {"Make Oats": {"x.mp4": {**VIDEO, "relevant": False}}}) == []


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    queries = {
        "good": {"a.mp4": VIDEO, "empty.mp4": {**VIDEO, "bounds": [0, 0]}, "b.mp4": WHOLE},
        "bounds": {
            "reversed.mp4": {**VIDEO, "bounds": [9, 8]},
            "late.mp4": {**VIDEO, "bounds": [300, 400]},
            "broken.mp4": {**VIDEO, "v_duration": None},
            "c.mp4": VIDEO,
        },
        "bare": [],
        "flat": {"d.mp4": {"relevant": True}},
        "last": {"e.mp4": VIDEO},
    }
    items = read(tmp_path, queries)
    rejects = [(item.uri, item.reason) for item in items if isinstance(item, Reject)]
    assert rejects == [
        ("all_data_val.json:1", "moment_empty"),
        ("all_data_val.json:2", "moment_reversed"),
        ("all_data_val.json:2", "moment_past_end"),
        ("all_data_val.json:2", "bad_record"),
        ("all_data_val.json:3", "bad_record"),
        ("all_data_val.json:4", "bad_record"),
    ]
    assert [i.provenance.native_id for i in items if not isinstance(i, Reject)] == ["a-0", "b-0", "c-1", "e-4"]


def test_a_bad_step_costs_itself_only(tmp_path):
    steps = [*STEPS, {"index": 2, "heading": "eat", "absolute_bounds": [190, 190]}, {"index": 3, "heading": "sleep"}]
    items = read(tmp_path, {"Make Oats": {"5V3.mp4": {**VIDEO, "steps": steps}}}, task="dense_caption")
    assert [item.reason for item in items if isinstance(item, Reject)] == ["moment_empty", "bad_record"]
    assert len(items[-1].targets) == 2
