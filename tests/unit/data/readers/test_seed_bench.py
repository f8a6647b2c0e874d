import json

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import Clip
from tpo_core.errors import TpoError

CHOICES = {"choice_a": "One", "choice_b": "Two", "choice_c": "Three", "choice_d": "Four"}
IMAGE = {
    **CHOICES,
    "answer": "B",
    "data_id": "1454426_2591111986",
    "data_type": "image",
    "question": "How many?",
    "question_id": "101669",
    "question_type_id": 5,
}
VIDEO = {**IMAGE, "data_type": "video", "data_id": "P03/P03_24.MP4", "question_id": "v1962", "question_type_id": 11}
FRAMES = {
    **IMAGE,
    "data_type": "Video",
    "data_source": "SEED-Bench v2",
    "data_id": [f"task19/WRQ95/{number}.png" for number in (1, 2, 10)],
    "question_id": "19_0",
    "question_type_id": 19,
}


def read(root, rows, **options):
    (root / "SEED-Bench.json").write_text(json.dumps({"questions": rows, "question_type": {"Scene": 1}}))
    return list(READERS["seed_bench"].read(str(root), "test", options))


def test_an_image_question(tmp_path):
    (sample,) = read(tmp_path, [IMAGE])
    assert (sample.sample_id, sample.task) == ("seed_bench/test/101669", "mcq")
    assert (sample.options, sample.answer_index) == (("One", "Two", "Three", "Four"), 1)
    assert (sample.media[0].uri, sample.media[0].kind) == ("SEED-Bench-image/1454426_2591111986", "image")
    assert json.loads(sample.provenance.raw)["question_type_id"] == 5


def test_segments_are_seconds_or_frames_at_15_fps(tmp_path):
    rows = [
        {**VIDEO, "data_id": "94328.webm", "question_type_id": 10},
        {**VIDEO, "segment": [648.0, 658.0]},
        {**VIDEO, "data_id": "P06/P06_cereals.avi", "question_type_id": 12, "segment": [18, 166]},
    ]
    something, epic, breakfast = (sample for sample in read(tmp_path, rows, epic="epic/{name}"))
    assert (something.media[0].uri, something.media[0].clip_s) == ("SSV2/videos/94328.webm", None)
    assert (epic.media[0].uri, epic.media[0].clip_s) == ("epic/P03/P03_24.MP4", Clip(648.0, 658.0))
    assert breakfast.media[0].uri == "BreakfastII_15fps_qvga_sync/P06/P06_cereals.avi"
    assert breakfast.media[0].clip_s == Clip(18 / 15, 166 / 15)
    assert json.loads(breakfast.provenance.raw)["segment"] == [18, 166]


def test_version_2_numbers_mean_other_dimensions(tmp_path):
    row = {**IMAGE, "data_type": "Single Image", "question_type_id": 12, "data_source": "SEED-Bench v2"}
    chart, photo = read(tmp_path, [row, {**row, "data_source": "cc3m"}])
    assert chart.media[0].uri == "SEED-Bench-2-image/1454426_2591111986"
    assert photo.media[0].uri == "cc3m-image/1454426_2591111986"
    assert chart.media[0].clip_s is None


def test_frames_are_one_media_and_images_are_several(tmp_path):
    several = {**FRAMES, "data_type": "Interleaved Image", "question": "<img>: a dog. <img>: a cat. <img>:"}
    frames, images = read(tmp_path, [FRAMES, several])
    (media,) = frames.media
    assert (media.uri, media.kind) == ("SEED-Bench-2-image/task19/WRQ95", "frames")
    assert media.frame_names == ("1.png", "2.png", "10.png")
    assert [media.uri.rpartition("/")[2] for media in images.media] == ["1.png", "2.png", "10.png"]
    assert {media.kind for media in images.media} == {"image"}
    assert images.turns[0].media_refs == (0, 1, 2)
    assert images.turns[0].text == several["question"]


def test_items_come_before_the_file_is_read_to_its_end(tmp_path):
    text = '{"questions": [' + (json.dumps(IMAGE) + ",") * 2000 + "broken"
    (tmp_path / "SEED-Bench.json").write_text(text)
    assert next(READERS["seed_bench"].read(str(tmp_path), "test", {})).answer_index == 1


def test_exactly_the_planted_faults_are_rejected(tmp_path):
    rows = [
        IMAGE,
        {**VIDEO, "segment": [5, 5]},
        VIDEO,
        {**VIDEO, "question_type_id": 13, "segment": [1, 2]},
        {**IMAGE, "answer": "E"},
        {**IMAGE, "answer": "Two"},
        {key: value for key, value in IMAGE.items() if key != "choice_d"},
        {**IMAGE, "data_id": None},
        {**VIDEO, "segment": [1, 2, 3]},
        None,
        FRAMES,
    ]
    items = read(tmp_path, rows)
    assert {item.uri.rpartition(":")[2]: item.reason for item in items if isinstance(item, Reject)} == {
        "2": "clip_empty",
        "3": "bad_record",
        "4": "bad_record",
        "5": "answer_not_an_option",
        "6": "bad_record",
        "7": "bad_record",
        "8": "bad_record",
        "9": "bad_record",
        "10": "bad_record",
    }
    assert [item.provenance.row for item in items if not isinstance(item, Reject)] == [0, 10]


def test_there_is_one_split(tmp_path):
    with pytest.raises(TpoError, match="no split 'train'; the dataset has one, 'test'"):
        list(READERS["seed_bench"].read(str(tmp_path), "train", {}))
