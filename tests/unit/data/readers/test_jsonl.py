import json

import numpy as np
import pytest

from tpo_core.data import rle
from tpo_core.data.readers import READERS, Reject
from tpo_core.data.readers.jsonl import to_json
from tpo_core.data.sample import Media, Provenance, Sample, Target, TrackEntry, Turn

MINIMAL = {
    "sample_id": "mine/train/1",
    "dataset": "mine",
    "split": "train",
    "task": "span",
    "media": [{"uri": "v.mp4", "kind": "video"}],
    "turns": [
        {"role": "user", "text": "When?", "media_refs": [0]},
        {"role": "assistant", "text": "<time_begin><temp>", "target_refs": [0]},
    ],
    "targets": [{"kind": "span", "span_s": [1.0, 2.5]}],
    "provenance": {"source_file": "mine", "row": 0, "native_id": "1", "reader": "jsonl"},
}


def read(root, lines, **options):
    (root / "train.jsonl").write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    return list(READERS["jsonl"].read(str(root), "train", options))


def test_fields_with_a_default_may_be_left_out(tmp_path):
    (sample,) = read(tmp_path, [MINIMAL])
    assert sample.targets == (Target("span", span_s=(1.0, 2.5)),)
    assert sample.media == (Media("v.mp4", "video"),)


def test_what_inspect_prints_is_read_back(tmp_path):
    mask = rle.encode(np.eye(6, dtype=bool))
    sample = Sample(
        sample_id="d/train/1",
        dataset="d",
        split="train",
        task="mask",
        media=(Media("f", "frames", 6, 6, n_frames=2, frame_names=("a.jpg", "b.jpg")),),
        turns=(Turn("user", "?", (0,)), Turn("assistant", "<track_begin><tracking>", (), (0,))),
        targets=(Target("track", track=(TrackEntry(0, True, 0.5, (0.0, 0.0, 6.0, 6.0), mask), TrackEntry(1, False))),),
        provenance=Provenance("x", 4, "1", "test", flags=("a",)),
    )
    reject = Reject("x:5", "nan", "d/train/2: nan")
    assert read(tmp_path, [to_json(sample), "", to_json(reject)]) == [sample, reject]


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        ("{", "bad_record", "Expecting"),
        ("[1]", "bad_record", ""),
        ({**MINIMAL, "tasks": 1}, "bad_record", "no field 'tasks'"),
        ({key: value for key, value in MINIMAL.items() if key != "task"}, "bad_record", "task"),
        ({**MINIMAL, "targets": [{"kind": "span", "span_s": ["a", "b"]}]}, "bad_record", ""),
        ({**MINIMAL, "targets": [{"kind": "span", "span_s": [1.0]}]}, "bad_record", ""),
        ({**MINIMAL, "task": "dance"}, "bad_task", "mine/train/1"),
        ({**MINIMAL, "targets": []}, "bad_reference", "no_target"),
    ],
)
def test_bad_lines_are_rejected_and_the_others_kept(tmp_path, line, reason, detail):
    reject, sample = read(tmp_path, [line, MINIMAL])
    assert reject.reason == reason
    assert detail in reject.detail
    assert sample.sample_id == "mine/train/1"
