import json
from pathlib import Path

import pytest

from tpo_core.data.readers import READERS
from tpo_core.data.sample import Clip, Turn
from tpo_core.errors import TpoError

FORMATS = Path(__file__).resolve().parents[3] / "golden/metrics/formats"


def read(root, rows, **options):
    (root / "train.json").write_text(json.dumps(rows))
    return list(READERS["videochat2_it"].read(str(root), "train", options))


def test_a_conversation_of_several_turns(tmp_path):
    pairs = [{"i": "Be brief.", "q": "What?", "a": "A cat."}, {"i": "Be brief.", "q": "Why?", "a": "Food."}]
    (sample,) = read(tmp_path, [{"video": "a/1.mp4", "QA": pairs}])
    assert (sample.sample_id, sample.task) == ("videochat2_it/train/train-0", "chat")
    assert sample.turns == (
        Turn("system", "Be brief."),
        Turn("user", "What?", (0,)),
        Turn("assistant", "A cat."),
        Turn("user", "Why?"),
        Turn("assistant", "Food."),
    )


def test_captions_sub_clips_images_and_text(tmp_path):
    rows = [
        {"video": "2.mp4", "start": 1.5, "end": 4.0, "QA": [{"q": "", "a": "A caption."}]},
        {"image": "x.jpg", "QA": [{"i": "Describe.", "q": "", "a": "A dog."}]},
        {"QA": [{"q": "1 + 1?", "a": "2"}]},
    ]
    clip, image, text = read(tmp_path, rows, video="videos/{name}", image="images/{name}")
    assert (clip.task, clip.media[0].clip_s, clip.media[0].uri) == ("caption", Clip(1.5, 4.0), "videos/2.mp4")
    assert clip.turns == (Turn("assistant", "A caption.", (0,)),)
    assert (image.media[0].kind, image.media[0].uri) == ("image", "images/x.jpg")
    assert (text.task, text.media) == ("chat", ())


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"video": "1.mp4"}, "bad_record"),
        ({"video": "1.mp4", "QA": []}, "bad_record"),
        ({"video": ["1.mp4"], "QA": [{"q": "a", "a": "b"}]}, "bad_record"),
        ({"video": "1.mp4", "QA": [{"q": "a", "a": " "}]}, "no_answer"),
        ({"video": "1.mp4", "start": 4, "end": 4, "QA": [{"q": "a", "a": "b"}]}, "clip_empty"),
        ("text", "bad_record"),
    ],
)
def test_bad_rows_are_rejected(tmp_path, row, reason):
    (reject,) = read(tmp_path, [row])
    assert (reject.uri, reject.reason) == ("train.json:1", reason)


def test_a_file_of_another_kind_is_a_user_error(tmp_path):
    with pytest.raises(TpoError, match="no JSON list"):
        read(tmp_path, {"a": 1})


def test_the_golden_layout():
    root = FORMATS / "input/videochat2_it"
    folders = ("video/reasoning/next_qa", "image/caption/coco")
    samples = [s for folder in folders for s in READERS["videochat2_it"].read(str(root / folder), "train", {})]
    records = json.loads((FORMATS / "golden/videochat2_it.json").read_text())["records"]
    for sample, record in zip(samples, records, strict=True):
        media = sample.media[0]
        assert (media.uri, media.kind) == (record["media"], record["kind"])
        assert ([media.clip_s.start, media.clip_s.end] if media.clip_s else None) == record.get("clip_s")
        system = [turn.text for turn in sample.turns if turn.role == "system"]
        assert system == ([record["system"]] if "system" in record else [])
        assert [[turn.role, turn.text] for turn in sample.turns if turn.role != "system"] == record["turns"]


def test_items_come_before_the_file_is_read_to_its_end(tmp_path):
    row = json.dumps({"video": "1.mp4", "QA": [{"q": "What?", "a": "A cat."}]})
    (tmp_path / "train.json").write_text("[" + (row + ",") * 2000 + "broken")
    items = READERS["videochat2_it"].read(str(tmp_path), "train", {})
    assert next(items).turns[1].text == "A cat."
    with pytest.raises(TpoError, match="is the download complete"):
        list(items)


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    good = {"image": "1.jpg", "QA": [{"q": "What?", "a": "A cat."}]}
    faults = [
        {**good, "QA": None},
        {**good, "QA": [{"q": "What?"}]},
        {**good, "image": ["1.jpg", "2.jpg"]},
        {**good, "QA": [{"q": 3, "a": "A cat."}]},
    ]
    items = read(tmp_path, [good, *faults, good])
    assert [getattr(item, "reason", None) for item in items] == [None, *["bad_record"] * 4, None]
