import pytest

from tests.unit.data.readers.pngs import left_edges, save, squares
from tpo_core.data.readers import READERS, Reject, _masks
from tpo_core.data.sample import UNLABELLED, answer_targets, prompt_boxes, validate

VOID = 255


def write(root, sequences, split="val"):
    path = root / f"ImageSets/2017/{split}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}\n" for name in sequences))


def masks(root, name, *frames, folder="Annotations/480p"):
    for k, placed in enumerate(frames):
        save(root / folder / name / f"{k:05d}.png", squares(*placed))


def read(root, split="val", **options):
    return list(READERS["davis17"].read(str(root), split, options))


def test_a_row_for_each_object_with_all_its_frames(tmp_path):
    write(tmp_path, ["dog"])
    masks(tmp_path, "dog", [(1, 0)], [(1, 1), (2, 9)], [(2, 10)])
    one, two = read(tmp_path)
    assert (one.sample_id, one.task, one.targets[0].object_id) == ("davis17/val/dog-1", "track", "1")
    assert left_edges(answer_targets(one)[0].track) == [(0, 0.0), (1, 1.0), (2, None)]
    assert left_edges(answer_targets(two)[0].track) == [(0, None), (1, 9.0), (2, 10.0)]
    assert all(entry.scored for entry in answer_targets(one)[0].track)
    assert prompt_boxes(two)[0].frame == 1
    media = one.media[0]
    assert (media.uri, media.width, media.height, media.fps) == ("JPEGImages/480p/dog", 20, 12, None)
    assert media.frame_names == ("00000.jpg", "00001.jpg", "00002.jpg")


def test_void_of_the_unsupervised_set_is_kept_and_no_turn_refers_to_it(tmp_path):
    write(tmp_path, ["dog", "cat"])
    unsupervised = "Annotations_unsupervised/480p"
    masks(tmp_path, "dog", [(1, 0), (VOID, 9)], [(1, 1)], folder=unsupervised)
    masks(tmp_path, "cat", [(3, 0)], [(3, 1)], folder=unsupervised)
    dog, cat = read(tmp_path, annotations="unsupervised")
    assert [target.label for target in dog.targets] == [None, None, "void"]
    assert left_edges(dog.targets[2].track) == [(0, 9.0), (1, None)]
    assert answer_targets(dog) == dog.targets[:1]
    assert prompt_boxes(dog) == dog.targets[1:2]
    assert validate(dog) == []
    assert [target.object_id for target in cat.targets] == ["3", "3"]


def test_a_sequence_with_its_first_mask_only_has_a_prompt_and_no_track(tmp_path):
    write(tmp_path, ["dog"], "test-dev")
    masks(tmp_path, "dog", [(1, 4)])
    for k in range(3):
        save(tmp_path / f"JPEGImages/480p/dog/{k:05d}.jpg", squares(), "L")
    (sample,) = read(tmp_path, "test-dev")
    assert (answer_targets(sample), sample.provenance.flags) == ((), (UNLABELLED,))
    assert prompt_boxes(sample)[0].box == (4.0, 2.0, 7.0, 5.0)
    assert sample.media[0].frame_names == ("00000.jpg", "00001.jpg", "00002.jpg")


def test_the_size_is_chosen(tmp_path):
    write(tmp_path, ["dog"])
    masks(tmp_path, "dog", [(1, 0)], [(1, 1)], folder="Annotations/Full-Resolution")
    (sample,) = read(tmp_path, resolution="Full-Resolution")
    assert sample.media[0].uri == "JPEGImages/Full-Resolution/dog"


def test_the_planted_bad_sequences_are_rejected_and_no_other(tmp_path):
    planted = {"good": None, "gone": "no_labels", "empty": "track_never_visible", "colours": "bad_record", "too": None}
    write(tmp_path, ["", *planted])
    for name in planted:
        if name != "gone":
            placed = [] if name == "empty" else [(1, 0)]
            masks(tmp_path, name, placed, placed)
    save(tmp_path / "Annotations/480p/colours/00001.png", squares((1, 0)), "RGB")
    items = read(tmp_path)
    assert [item.reason if isinstance(item, Reject) else None for item in items] == list(planted.values())
    rejects = [item for item in items if isinstance(item, Reject)]
    assert [reject.uri for reject in rejects] == [f"ImageSets/2017/val.txt:{k}" for k in (3, 4, 5)]
    assert "holds colours (mode RGB)" in rejects[-1].detail


@pytest.mark.parametrize("mode", ["L", "P"])
def test_indices_are_read_as_stored(tmp_path, mode):
    write(tmp_path, ["dog"])
    for k in range(2):
        save(tmp_path / f"Annotations/480p/dog/{k:05d}.png", squares((1, 0), (3, 9)), mode)
    assert [sample.targets[0].object_id for sample in read(tmp_path)] == ["1", "3"]


def test_hidden_files_beside_the_masks_are_none(tmp_path):
    write(tmp_path, ["dog"])
    masks(tmp_path, "dog", [(1, 0)], [(1, 1)])
    (tmp_path / "Annotations/480p/dog/._00000.png").write_bytes(b"attributes of a Mac")
    (sample,) = read(tmp_path)
    assert sample.media[0].frame_names == ("00000.jpg", "00001.jpg")


def test_a_storage_that_fails_is_no_damaged_mask(tmp_path, monkeypatch):
    write(tmp_path, ["dog"])
    masks(tmp_path, "dog", [(1, 0)])

    def fail(_uri):
        raise OSError("AWS Error UNKNOWN")

    monkeypatch.setattr(_masks, "read_bytes", fail)
    with pytest.raises(OSError, match="AWS Error"):
        read(tmp_path)
