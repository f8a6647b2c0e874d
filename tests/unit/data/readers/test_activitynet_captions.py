import json

from tpo_core.data.readers import READERS, Reject

VIDEO = {
    "duration": 82.73,
    "timestamps": [[17.37, 60.81], [0.83, 19.86], [56.26, 90.0]],
    "sentences": [" He jumps. ", "A man stands up.", " They leave"],
}


def read(root, videos, split="train", **options):
    (root / f"{split}.json").write_text(json.dumps(videos))
    return list(READERS["activitynet_captions"].read(str(root), split, options))


def test_one_sample_a_sentence(tmp_path):
    samples = read(tmp_path, {"v_a": VIDEO}, split="val_2")
    assert [s.sample_id for s in samples] == [f"activitynet_captions/val_2/v_a-{k}" for k in range(3)]
    assert [s.targets[0].label for s in samples] == ["He jumps.", "A man stands up.", "They leave"]
    assert {(s.media[0].uri, s.media[0].duration_s) for s in samples} == {("videos/v_a.mp4", 82.73)}
    assert samples[0].targets[0].span_s == (17.37, 60.81)
    assert "He jumps'" in samples[0].turns[0].text
    assert json.loads(samples[0].provenance.raw) == {"sentence": " He jumps. "}
    assert json.loads(samples[1].provenance.raw) == {}


def test_ends_past_the_video_are_clipped(tmp_path):
    sample = read(tmp_path, {"v_a": VIDEO})[2]
    assert sample.targets[0].span_s == (56.26, 82.73)
    assert sample.provenance.flags == ("end_clipped",)
    assert json.loads(sample.provenance.raw)["spans_s"] == [[56.26, 90.0]]


def test_a_timed_caption_lists_the_events_by_their_start(tmp_path):
    (sample,) = read(tmp_path, {"v_a": VIDEO}, task="dense_caption")
    assert (sample.sample_id, sample.task) == ("activitynet_captions/train/v_a", "dense_caption")
    assert sample.turns[1].text == (
        "0.8 - 19.9 seconds, A man stands up.  17.4 - 60.8 seconds, He jumps.  56.3 - 82.7 seconds, They leave."
    )
    assert [t.span_s for t in sample.targets] == [(0.83, 19.86), (17.37, 60.81), (56.26, 82.73)]
    assert (sample.turns[0].media_refs, sample.turns[1].target_refs) == ((0,), (0, 1, 2))
    assert sample.provenance.flags == ("end_clipped",)
    assert json.loads(sample.provenance.raw)["spans_s"] == [[17.37, 60.81], [0.83, 19.86], [56.26, 90.0]]


def test_an_event_without_use_costs_itself_only(tmp_path):
    video = {**VIDEO, "timestamps": [[5, 4], [0.83, 19.86], [85, 90]]}
    *rejects, sample = read(tmp_path, {"v_a": video}, task="dense_caption")
    assert [(r.reason, r.uri) for r in rejects] == [
        ("moment_reversed", "train.json:1"),
        ("moment_past_end", "train.json:1"),
    ]
    assert "v_a event 3" in rejects[1].detail
    assert sample.turns[1].text == "0.8 - 19.9 seconds, A man stands up."
    assert sample.provenance.flags == ("event_rejected",)


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    def video(*moments, duration=10.0, sentences=None):
        return {
            "duration": duration,
            "timestamps": list(moments),
            "sentences": sentences or [f"event {k}" for k in range(len(moments))],
        }

    videos = {
        "good": video([0, 4], [2, 10]),
        "reversed": video([0, 4], [4, 2]),
        "empty": video([3, 3]),
        "late": video([10, 12], [9, 12]),
        "early": video([-1, 2]),
        "nan": video([float("nan"), 2]),
        "odd": video([0, 4], [2, 10], sentences=["one"]),
        "silent": video([0, 4], [5, 6], sentences=[" ", "two"]),
        "short": video([0, 4], duration=0),
        "broken": video([0], [5, 6]),
        "last": video([1, 2]),
    }
    text = json.dumps(videos).replace("NaN", '"nan"')
    (tmp_path / "train.json").write_text(text)
    reader = READERS["activitynet_captions"]
    wanted = [
        "moment_reversed",
        "moment_empty",
        "moment_past_end",
        "moment_before_start",
        "nan",
        "bad_record",
        "bad_record",
        "bad_record",
        "bad_record",
    ]
    for task in ("span", "dense_caption"):
        items = list(reader.read(str(tmp_path), "train", {"task": task}))
        rejects = [item for item in items if isinstance(item, Reject)]
        assert [reject.reason for reject in rejects] == wanted
        assert [int(reject.uri.rpartition(":")[2]) for reject in rejects] == [2, 3, 4, 5, 6, 7, 8, 9, 10]
        assert len(items) - len(rejects) == {"span": 7, "dense_caption": 6}[task]


def test_a_video_without_sentences_has_no_timed_caption(tmp_path):
    video = {"duration": 5, "timestamps": [], "sentences": []}
    assert read(tmp_path, {"v_a": video}) == []
    (reject,) = read(tmp_path, {"v_a": video}, task="dense_caption")
    assert reject.reason == "no_labels"


def test_the_first_samples_come_although_the_file_is_broken_later(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps({f"v_{k}": VIDEO for k in range(2000)})[:-50])
    assert next(READERS["activitynet_captions"].read(str(tmp_path), "train", {})).sample_id.endswith("v_0-0")
