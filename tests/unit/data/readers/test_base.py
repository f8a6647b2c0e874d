"""What all readers share: options, splits, missing files, and the check of every sample."""

import json
from pathlib import Path

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.readers.files import below, fill
from tpo_core.errors import TpoError

REF_DAVIS = {f"ImageSets/2017/{split}.txt": "" for split in ("train", "val")} | {
    f"davis_text_annotations/Davis17_annot{k}{view}.txt": "" for k in (1, 2) for view in ("", "_full_video")
}


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("name", READERS)
def test_a_missing_root_is_one_line_that_names_it(name, tmp_path):
    reader = READERS[name]
    with pytest.raises(TpoError) as error:
        list(reader.read(str(tmp_path / "nowhere"), reader.default_split, {}))
    assert str(tmp_path / "nowhere") in one_line(error)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("charades_sta", "charades_sta_dev.txt"),
        ("qvhighlights", "highlight_dev_release.jsonl"),
        ("mevis", "dev/meta_expressions.json"),
        ("got10k", "dev"),
        ("lasot", "deving_set.txt"),
        ("trackingnet", "dev/anno"),
        ("sa_v", "sav_dev/sav_dev.txt"),
        ("davis17", "ImageSets/2017/dev.txt"),
        ("ref_davis17", "ImageSets/2017/dev.txt"),
        ("youtube_vos", "dev/meta.json"),
        ("ref_youtube_vos", "meta_expressions/dev/meta_expressions.json"),
        ("mot", "dev"),
        ("videochat2_it", "dev.json"),
        ("refcoco_mdetr", "finetune_refcoco_dev.json"),
        ("mvbench", "json/dev.json"),
        ("video_mme", "videomme/dev-00000-of-00001.parquet"),
        ("next_gqa", "dev.csv"),
        ("didemo", "dev_data.json"),
        ("activitynet_captions", "dev.json"),
        ("tacos", "dev.json"),
        ("hirest", "all_data_dev.json"),
        ("coin", "COIN.json"),
        ("youcook2", "youcookii_annotations_trainval.json"),
        ("vitt", "dev_id.txt"),
        ("nlq", "nlq_dev.json"),
        ("timeit", "dev.json"),
        ("flickr30k_entities", "dev.txt"),
        ("llava", "dev.json"),
        ("as_v2", "dev.json"),
        ("jsonl", "dev.jsonl"),
    ],
)
def test_an_unknown_split_names_the_file_that_was_expected(name, expected, tmp_path):
    with pytest.raises(TpoError) as error:
        list(READERS[name].read(str(tmp_path), "dev", {}))
    assert str(Path(tmp_path, expected)) in one_line(error)


def test_a_file_of_another_split_is_pointed_at(tmp_path):
    (tmp_path / "charades_sta_test.txt").touch()
    with pytest.raises(TpoError, match=r"there is charades_sta_test\.txt"):
        list(READERS["charades_sta"].read(str(tmp_path), "val", {}))


@pytest.mark.parametrize("name", READERS)
def test_an_unknown_option_is_refused_at_once(name, tmp_path):
    with pytest.raises(TpoError, match="no option 'label'; did you mean 'labels'"):
        READERS[name].read(str(tmp_path), "train", {"label": "x"})


def test_a_bad_option_value_names_the_good_ones(tmp_path):
    with pytest.raises(TpoError, match="is one of frames, mp4; not 'avi'"):
        READERS["mevis"].read(str(tmp_path), "train", {"media": "avi"})


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("charades_sta", {"charades_sta_train.txt": "", "Charades_v1_train.csv": "id,length\n"}),
        ("qvhighlights", {"highlight_train_release.jsonl": "\n"}),
        ("mevis", {"train/meta_expressions.json": '{"videos": {}}'}),
        ("got10k", {"train/list.txt": ""}),
        ("lasot", {"training_set.txt": ""}),
        ("trackingnet", {"TRAIN_0/anno/readme": ""}),
        ("sa_v", {"sav_train/readme.md": ""}),
        ("davis17", {"ImageSets/2017/train.txt": ""}),
        ("ref_davis17", REF_DAVIS),
        ("youtube_vos", {"train/meta.json": '{"videos": {}}'}),
        ("ref_youtube_vos", {"meta_expressions/train/meta_expressions.json": '{"videos": {}}'}),
        ("videochat2_it", {"train.json": "[]"}),
        ("mot", {"readme.txt": ""}),
        ("refcoco_mdetr", {"finetune_refcoco_train.json": '{"images": [], "annotations": []}'}),
        ("mvbench", {"json/state_change.json": "[]"}),
        ("mlvu", {"json/4_count.json": "[]"}),
        ("seed_bench", {"SEED-Bench.json": '{"questions": []}'}),
        ("next_gqa", {"test.csv": "video_id\n", "gsub_test.json": "{}", "map_vid_vidorID.json": "{}"}),
        ("didemo", {"train_data.json": "[]"}),
        ("activitynet_captions", {"train.json": "{}"}),
        ("tacos", {"train.json": "{}"}),
        ("hirest", {"all_data_train.json": "{}"}),
        ("coin", {"COIN.json": '{"database": {}}'}),
        ("youcook2", {"youcookii_annotations_trainval.json": '{"database": {}}'}),
        ("vitt", {"ViTT-annotations.json": "", "train_id.txt": ""}),
        ("nlq", {"nlq_train.json": '{"videos": []}'}),
        ("timeit", {"train.json": "[]"}),
        ("queryd", {"instruct_tvg_14.6k_queryd.json": "[]"}),
        ("flickr30k_entities", {"train.txt": ""}),
        ("visual_genome", {"region_descriptions.json": "[]", "image_data.json": "[]"}),
        ("llava", {"train.json": "[]"}),
        ("as_v2", {"train.json": "[]"}),
        ("jsonl", {"train.jsonl": ""}),
    ],
)
def test_an_empty_dataset_gives_nothing(name, files, tmp_path):
    for path, text in files.items():
        Path(tmp_path, path).parent.mkdir(parents=True, exist_ok=True)
        Path(tmp_path, path).write_text(text)
    reader = READERS[name]
    assert list(reader.read(str(tmp_path), reader.default_split, {})) == []


def test_file_uris_are_read(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps([{"QA": [{"q": "1 + 1?", "a": "2"}]}]))
    (sample,) = READERS["videochat2_it"].read(f"file://{tmp_path}", "train", {})
    assert (sample.task, sample.media) == ("chat", ())


def test_a_broken_json_file_is_a_user_error(tmp_path):
    (tmp_path / "train.json").write_text("[{")
    with pytest.raises(TpoError, match="is not JSON"):
        list(READERS["videochat2_it"].read(str(tmp_path), "train", {}))


def canonical(number, **changes):
    row = {
        "sample_id": f"mine/train/{number}",
        "dataset": "mine",
        "split": "train",
        "task": "chat",
        "media": [{"uri": "a.jpg", "kind": "image"}],
        "turns": [{"role": "user", "text": "What?"}, {"role": "assistant", "text": "A cup."}],
        "provenance": {"source_file": "train.jsonl", "row": number, "native_id": str(number), "reader": "jsonl"},
    }
    return json.dumps({**row, **changes}, ensure_ascii=False)


def reasons(tmp_path, lines):
    """Of the lines, in order: a reason, or None for a sample."""
    (tmp_path / "train.jsonl").write_bytes(b"\n".join(lines))
    items = READERS["jsonl"].read(str(tmp_path), "train", {})
    return [item.reason if isinstance(item, Reject) else None for item in items]


def test_a_record_in_another_encoding_is_rejected_and_the_others_are_kept(tmp_path):
    accents = [{"role": "user", "text": "Where is the caf\u00e9?"}, {"role": "assistant", "text": "A cup."}]
    texts = [canonical(0), canonical(1, turns=accents), canonical(2)]
    lines = [texts[0].encode(), texts[1].encode("latin-1"), texts[2].encode()]
    assert reasons(tmp_path, lines) == [None, "text_not_utf8", None]
    assert reasons(tmp_path, [text.encode() for text in texts]) == [None, None, None]


@pytest.mark.parametrize(
    ("media", "reason"),
    [
        ({"uri": "../a.jpg", "kind": "image"}, "path_outside_root"),
        ({"uri": "images/../../a.jpg", "kind": "image"}, "path_outside_root"),
        ({"uri": "/etc/passwd", "kind": "image"}, "path_outside_root"),
        ({"uri": "a\0.jpg", "kind": "image"}, "path_outside_root"),
        ({"uri": "s3://other/a.jpg", "kind": "image"}, "path_outside_root"),
        ({"uri": "clip", "kind": "frames", "frame_names": ["0.jpg", "../../1.jpg"]}, "path_outside_root"),
        ({"uri": "images/../a.jpg", "kind": "image"}, None),
        ({"uri": "wait...what.jpg", "kind": "image"}, None),
        ({"uri": "..a.jpg", "kind": "image"}, None),
    ],
)
def test_media_lie_below_the_root(tmp_path, media, reason):
    assert reasons(tmp_path, [canonical(0, media=[media]).encode()]) == [reason]


def test_what_validation_refuses_becomes_a_reject_that_says_why(tmp_path):
    (tmp_path / "charades_sta_train.txt").write_text("V 40.0 50.0##too late.\n")
    (tmp_path / "Charades_v1_train.csv").write_text("id,length\nV,30.5\n")
    (reject,) = READERS["charades_sta"].read(str(tmp_path), "train", {})
    assert isinstance(reject, Reject)
    assert (reject.uri, reject.reason) == ("charades_sta_train.txt:1", "moment_past_end")
    assert "30.5" in reject.detail


def test_paths():
    assert below("", "/a/", "b") == "a/b"
    assert fill("{split}/{name}.mp4", name="x{y}", split="val") == "val/x{y}.mp4"
