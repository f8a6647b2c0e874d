import json

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import Turn


def talk(*texts):
    return [{"from": ("human", "gpt")[place % 2], "value": text} for place, text in enumerate(texts)]


def read(root, rows, **options):
    (root / "train.json").write_text(json.dumps(rows))
    return list(READERS["llava"].read(str(root), "train", options))


def test_a_conversation_about_an_image_keeps_its_text(tmp_path):
    row = {
        "id": "33471",
        "image": "coco/33471.jpg",
        "conversations": talk("<image>\nWhat?", "A bus.", "Why?", " It is."),
    }
    (sample,) = read(tmp_path, [row], image="images/{name}", dataset="sharegpt4v")
    assert (sample.sample_id, sample.task) == ("sharegpt4v/train/train-0", "chat")
    assert (sample.media[0].uri, sample.media[0].kind) == ("images/coco/33471.jpg", "image")
    assert sample.turns == (
        Turn("user", "<image>\nWhat?", (0,)),
        Turn("assistant", "A bus."),
        Turn("user", "Why?"),
        Turn("assistant", " It is."),
    )
    assert json.loads(sample.provenance.raw) == {"id": "33471"}


def test_ids_that_repeat_give_samples_of_their_own(tmp_path):
    row = {"id": "1", "image": "1.jpg", "conversations": talk("<image>", "A.")}
    assert len({sample.sample_id for sample in read(tmp_path, [row, row])}) == 2


def test_text_only_captions_and_system(tmp_path):
    system = [{"from": "system", "value": "Be brief."}, *talk("1 + 1?", "2")]
    caption = [{"from": "gpt", "value": "A dog."}]
    text, picture = read(tmp_path, [{"conversations": system}, {"image": "1.jpg", "conversations": caption}])
    assert (text.task, text.media) == ("chat", ())
    assert [turn.role for turn in text.turns] == ["system", "user", "assistant"]
    assert (picture.task, picture.turns) == ("caption", (Turn("assistant", "A dog.", (0,)),))


@pytest.mark.parametrize(
    ("media", "texts", "refs"),
    [
        ({"image": ["a.jpg", "b.jpg"]}, ("What in <image> is in <image>?", "x"), [(0, 1), ()]),
        ({"image": ["a.jpg", "b.jpg"]}, ("<image> a", "x", "and <image>?", "y"), [(0,), (), (1,), ()]),
        ({"image": ["a.jpg", "b.jpg"]}, ("What?", "x"), [(0, 1), ()]),
        ({"video": "v.mp4"}, ("<video>\nWhat?", "x"), [(0,), ()]),
        ({"video": "v.mp4"}, ("<image>\nWhat?", "x"), [(0,), ()]),
        ({"video": ["v.mp4"], "image": "a.jpg"}, ("<video>", "x", "<image>", "y"), [(1,), (), (0,), ()]),
        ({"video": "v.mp4", "image": []}, ("What?", "x", "<video>?", "y"), [(), (), (0,), ()]),
    ],
)
def test_placeholders_say_which_turn_shows_which_media(tmp_path, media, texts, refs):
    (sample,) = read(tmp_path, [{**media, "conversations": talk(*texts)}])
    assert [turn.media_refs for turn in sample.turns] == refs
    assert [turn.text for turn in sample.turns] == list(texts)


def test_videos_may_be_folders_of_frames_in_json_lines(tmp_path):
    row = {"video": "v_abc", "conversations": talk("<video>\nWhat?", "A dog.")}
    (tmp_path / "train_300k.jsonl").write_text(json.dumps(row) + "\n")
    options = {"file": "{split}_300k.jsonl", "videos": "frames", "video": "frames/{name}"}
    (sample,) = READERS["llava"].read(str(tmp_path), "train", options)
    assert (sample.media[0].uri, sample.media[0].kind) == ("frames/v_abc", "frames")
    assert sample.provenance.native_id == "train_300k-0"


def test_items_come_before_the_file_is_read_to_its_end(tmp_path):
    row = json.dumps({"conversations": talk("a", "b")})
    (tmp_path / "train.json").write_text("[" + (row + ",") * 2000 + "broken")
    assert next(READERS["llava"].read(str(tmp_path), "train", {})).turns[1].text == "b"


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    good = {"image": "1.jpg", "conversations": talk("<image>", "A.")}
    rows = [
        good,
        {"image": "1.jpg", "conversations": talk("<image> <image>", "A.")},
        {"conversations": talk("<image>", "A.")},
        {"image": {"path": "1.jpg"}, "conversations": talk("a", "b")},
        {"image": [1], "conversations": talk("a", "b")},
        {"image": "1.jpg"},
        {"conversations": []},
        {"conversations": [{"from": "system", "value": "a"}]},
        {"conversations": [{"from": "bot", "value": "a"}]},
        {"conversations": [{"from": "human"}]},
        {"conversations": talk("a", None)},
        {"conversations": talk("a", " ")},
        {"conversations": talk("a")},
        {"image": "../1.jpg", "conversations": talk("a", "b")},
        "text",
        good,
    ]
    items = read(tmp_path, rows)
    rejects = {item.uri.rpartition(":")[2]: item.reason for item in items if isinstance(item, Reject)}
    other = {"12": "no_answer", "13": "no_answer", "14": "path_outside_root"}
    assert rejects == {str(n): "bad_record" for n in (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 15)} | other
    assert [item.provenance.row for item in items if not isinstance(item, Reject)] == [0, 15]
