import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import UNLABELLED, TrackEntry, answer_targets, prompt_boxes
from tpo_core.errors import TpoError


def write(root, chunk, name, lines):
    folder = root / chunk / "anno"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def read(root, split="TRAIN", **options):
    return list(READERS["trackingnet"].read(str(root), split, options))


def test_boxes_are_taken_as_they_are_and_no_size_means_absent(tmp_path):
    write(tmp_path, "TRAIN_0", "a", ["0.5,2,10,20", "0,0,0,0", "-3,2,10,20"])
    (sample,) = read(tmp_path)
    assert (sample.sample_id, sample.task, sample.provenance.origin) == ("trackingnet/TRAIN/a", "track", 0)
    assert answer_targets(sample)[0].track == (
        TrackEntry(0, True, box=(0.5, 2.0, 10.5, 22.0)),
        TrackEntry(1, False),
        TrackEntry(2, True, box=(-3.0, 2.0, 7.0, 22.0)),
    )
    assert (sample.media[0].uri, sample.media[0].frame_names) == ("TRAIN_0/frames/a", ("0.jpg", "1.jpg", "2.jpg"))


def test_the_origin_is_an_option(tmp_path):
    write(tmp_path, "TRAIN_0", "a", ["1,2,10,20", "1,2,10,20"])
    (sample,) = read(tmp_path, origin="1")
    assert (sample.provenance.origin, prompt_boxes(sample)[0].box) == (1, (0.0, 1.0, 10.0, 21.0))


def test_train_is_all_its_chunks_in_numerical_order(tmp_path):
    for chunk in ("TRAIN_10", "TRAIN_2", "TEST"):
        write(tmp_path, chunk, f"in{chunk}", ["1,2,10,20", "1,2,10,20"])
    assert [sample.provenance.native_id for sample in read(tmp_path)] == ["inTRAIN_2", "inTRAIN_10"]
    assert [sample.sample_id for sample in read(tmp_path, "TRAIN_10")] == ["trackingnet/TRAIN_10/inTRAIN_10"]


def test_test_has_a_prompt_and_its_frames_are_sorted_by_number(tmp_path):
    write(tmp_path, "TEST", "a", ["1,2,10,20"])
    folder = tmp_path / "TEST/frames/a"
    folder.mkdir(parents=True)
    for k in (0, 1, 2, 10):
        (folder / f"{k}.jpg").touch()
    (sample,) = read(tmp_path, "TEST")
    assert (answer_targets(sample), sample.provenance.flags) == ((), (UNLABELLED,))
    assert prompt_boxes(sample)[0].box == (1.0, 2.0, 11.0, 22.0)
    assert sample.media[0].frame_names == ("0.jpg", "1.jpg", "2.jpg", "10.jpg")


def test_the_planted_bad_sequences_are_rejected_and_no_other(tmp_path):
    planted = {
        "a": (["1,2,10,20", "1,2,10,20"], None),
        "b": (["1,2,10,20", "1,2,10"], "bad_record"),
        "c": (["1,2,10,20", "1,2,10,inf"], "bad_record"),
        "d": (["0,0,0,0", "0,0,0,0"], "track_never_visible"),
        "e": ([], "track_never_visible"),
        "f": (["1,2,x,20", "1,2,10,20"], "bad_record"),
        "g": (["1,2,10,20", "1,2,10,20"], None),
        "h": (["1,2,10,20", "", "1,2,10,20"], "bad_record"),
    }
    for name, (lines, _) in planted.items():
        write(tmp_path, "TRAIN_3", name, lines)
    items = read(tmp_path)
    assert [item.reason if isinstance(item, Reject) else None for item in items] == [why for _, why in planted.values()]
    rejects = [item.uri for item in items if isinstance(item, Reject)]
    assert rejects == [f"TRAIN_3/anno/{name}.txt:1" for name in "bcdefh"]


def test_a_missing_chunk_is_told(tmp_path):
    write(tmp_path, "TRAIN_3", "a", ["1,2,10,20"])
    with pytest.raises(TpoError, match="TRAIN_4/anno"):
        read(tmp_path, "TRAIN_4")
