import json

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import UNLABELLED

VIDEO = {
    "timestamps": [[224, 358], [294, 588]],
    "sentences": ["The person takes a knife.", " He cuts. "],
    "fps": 29.4,
    "num_frames": 588,
}
LINE = {"qid": 12, "query": "He cuts. ", "duration": 20.0, "vid": "s17-d69", "relevant_windows": [[10.0, 21.0]]}


def read(root, videos, **options):
    (root / "train.json").write_text(json.dumps(videos))
    return list(READERS["tacos"].read(str(root), "train", options))


def read_lines(root, rows):
    (root / "test.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return list(READERS["tacos"].read(str(root), "test", {"form": "cgdetr"}))


def test_frames_become_seconds_at_the_rate_in_the_file(tmp_path):
    first, second = read(tmp_path, {"s17-d69.avi": VIDEO})
    assert first.sample_id == "tacos/train/s17-d69-0"
    assert first.targets[0].span_s == pytest.approx((224 / 29.4, 358 / 29.4), abs=0)
    assert (second.targets[0].span_s, second.targets[0].label) == (
        (pytest.approx(10.0), pytest.approx(20.0)),
        "He cuts.",
    )
    media = first.media[0]
    assert (media.uri, media.fps, media.n_frames) == ("videos/s17-d69.avi", 29.4, 588)
    assert media.duration_s == pytest.approx(20.0)
    assert json.loads(first.provenance.raw) == {"fps": 29.4, "num_frames": 588, "timestamps": [224, 358]}


def test_a_moment_past_the_last_frame_is_clipped(tmp_path):
    (sample,) = read(tmp_path, {"a.avi": {**VIDEO, "timestamps": [[294, 900]], "sentences": ["x"]}})
    assert sample.targets[0].span_s[1] == sample.media[0].duration_s
    assert sample.provenance.flags == ("end_clipped",)


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    def video(*frames, **changes):
        return {**VIDEO, "timestamps": list(frames), "sentences": ["x"] * len(frames), **changes}

    videos = {
        "good": video([0, 10], [20, 588]),
        "mixed": video([0, 10], [20, 20], [30, 25], [588, 600], [3]),
        "rate": video([0, 10], fps=0),
        "frames": video([0, 10], num_frames=0),
        "odd": video([0, 10], sentences=[]),
        "none": None,
        "last": video([1, 2]),
    }
    items = read(tmp_path, videos)
    rejects = [(item.uri, item.reason) for item in items if isinstance(item, Reject)]
    assert rejects == [
        ("train.json:2", "moment_empty"),
        ("train.json:2", "moment_reversed"),
        ("train.json:2", "moment_past_end"),
        ("train.json:2", "bad_record"),
        ("train.json:3", "bad_record"),
        ("train.json:4", "bad_record"),
        ("train.json:5", "bad_record"),
        ("train.json:6", "bad_record"),
    ]
    assert [item.provenance.native_id for item in items if not isinstance(item, Reject)] == [
        "good-0",
        "good-1",
        "mixed-0",
        "last-0",
    ]


def test_lines_of_cgdetr_are_in_seconds_and_keep_their_qid(tmp_path):
    (sample,) = read_lines(tmp_path, [LINE])
    assert (sample.sample_id, sample.media[0].uri) == ("tacos/test/12", "videos/s17-d69.avi")
    assert (sample.targets[0].span_s, sample.targets[0].set_rule) == ((10.0, 20.0), "single")
    assert json.loads(sample.provenance.raw)["query"] == "He cuts. "


def test_lines_with_several_windows_or_none(tmp_path):
    many, none = read_lines(
        tmp_path, [{**LINE, "relevant_windows": [[1, 2], [3, 4]]}, {**LINE, "relevant_windows": []}]
    )
    assert [(t.span_s, t.set_rule) for t in many.targets] == [((1.0, 2.0), "all_of"), ((3.0, 4.0), "all_of")]
    assert (none.targets, none.provenance.flags) == ((), (UNLABELLED,))


def test_bad_lines_are_rejected_and_the_others_kept(tmp_path):
    rows = [LINE, {**LINE, "duration": -1}, "", {**LINE, "relevant_windows": [[3, 3]]}, {**LINE, "query": ""}, LINE]
    items = read_lines(tmp_path, rows)
    assert [item.reason if isinstance(item, Reject) else None for item in items] == [
        None,
        "bad_record",
        "bad_record",
        "moment_empty",
        "bad_record",
        None,
    ]
