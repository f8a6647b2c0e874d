import json

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import UNLABELLED, Clip


def query(text, start=10.0, end=12.5, **changes):
    times = {"clip_start_sec": start, "clip_end_sec": end, "video_start_sec": 310.0, "video_end_sec": 312.5}
    return {"query": text, "template": "Objects: Where is X?", **times, **changes}


def video(*queries, name="vid-0"):
    note = {"annotation_uid": "ann-0", "language_queries": list(queries)}
    clip = {"clip_uid": "clip-0", "video_start_sec": 300.0, "video_end_sec": 780.0, "annotations": [note]}
    return {"video_uid": name, "clips": [clip]}


def read(root, videos, split="val", **options):
    (root / f"nlq_{split}.json").write_text(json.dumps({"version": "1", "videos": videos}))
    return list(READERS["nlq"].read(str(root), split, options))


def test_times_are_those_of_the_clip_and_the_clip_is_a_part_of_its_video(tmp_path):
    (sample,) = read(tmp_path, [video(query("Where is the cup? "))])
    assert (sample.sample_id, sample.task) == ("nlq/val/clip-0_ann-0_0", "span")
    assert (sample.media[0].uri, sample.media[0].clip_s) == ("videos/vid-0.mp4", Clip(300.0, 780.0))
    assert (sample.targets[0].label, sample.targets[0].span_s) == ("Where is the cup?", (10.0, 12.5))
    assert json.loads(sample.provenance.raw) == {
        "clip_uid": "clip-0",
        "annotation_uid": "ann-0",
        "query_idx": 0,
        "query": "Where is the cup? ",
        "template": "Objects: Where is X?",
    }


def test_a_clip_may_be_a_file_of_its_own(tmp_path):
    (sample,) = read(tmp_path, [video(query("Where?"))], clips="cut", video="clips/{clip}.mp4")
    media = sample.media[0]
    assert (media.uri, media.duration_s, media.clip_s) == ("clips/clip-0.mp4", 480.0, None)


def test_queries_without_text_are_no_samples_but_are_counted(tmp_path):
    nothing = query("x")
    del nothing["query"]
    items = read(tmp_path, [video(query(None), query("Where?"), nothing, query("  "), query("When?"))])
    assert [json.loads(item.provenance.raw)["query_idx"] for item in items] == [1, 4]


def test_an_end_past_the_clip_is_clipped_to_it(tmp_path):
    (sample,) = read(tmp_path, [video(query("Where?", 470.0, 490.0))])
    assert (sample.targets[0].span_s, sample.provenance.flags) == ((470.0, 480.0), ("end_clipped",))


def test_queries_of_the_test_split_have_no_times(tmp_path):
    (sample,) = read(tmp_path, [video({"query": "Where?"})], split="test_unannotated")
    assert (sample.targets, sample.provenance.flags) == ((), (UNLABELLED,))


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    broken = video(query("Where?"), name="broken")
    del broken["clips"][0]["video_end_sec"]
    short = video(query("Where?"), name="short")
    short["clips"][0]["video_end_sec"] = 300.0
    videos = [
        video(
            query("good?"),
            query("empty?", 5.0, 5.0),
            query("reversed?", 6.0, 5.0),
            query("late?", 480.0, 490.0),
            query("early?", -1.0, 3.0),
            query("half?", 1.0, None),
            "text",
            query("fine?"),
        ),
        broken,
        short,
        {"video_uid": "bare"},
        video(query("last?"), name="vid-1"),
    ]
    items = read(tmp_path, videos)
    rejects = [(int(item.uri.rpartition(":")[2]), item.reason) for item in items if isinstance(item, Reject)]
    assert rejects == [
        (1, "moment_empty"),
        (1, "moment_reversed"),
        (1, "moment_past_end"),
        (1, "moment_before_start"),
        (1, "bad_record"),
        (1, "bad_record"),
        (2, "bad_record"),
        (3, "clip_empty"),
        (4, "bad_record"),
    ]
    assert [item.targets[0].label for item in items if not isinstance(item, Reject)] == ["good?", "fine?", "last?"]


def test_the_first_samples_come_although_the_file_is_broken_later(tmp_path):
    text = json.dumps({"videos": [video(query("Where?"))] * 2000})[:-50]
    (tmp_path / "nlq_train.json").write_text(text)
    assert next(READERS["nlq"].read(str(tmp_path), "train", {})).sample_id == "nlq/train/clip-0_ann-0_0"
