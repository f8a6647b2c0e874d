import random

import pytest

from tpo_core.data.predictions import tracks
from tpo_core.data.readers import READERS
from tpo_core.errors import TpoError

BOXES = [(0.0, 0.0, 10.0, 20.0), None, (-3.25, 0.1, 7.300000000000001, 1e3)]
WRITERS = {
    "lasot": (tracks.write_lasot, tracks.read_lasot),
    "trackingnet": (tracks.write_trackingnet, tracks.read_trackingnet),
}


def sample_of(reader, root):
    """One sequence `cat-1` of three frames."""
    lines = "1,1,10,20\n" * 3
    files = {
        "lasot": {"cat/cat-1/groundtruth.txt": lines, "cat/cat-1/full_occlusion.txt": "0,0,0",
                  "cat/cat-1/out_of_view.txt": "0,0,0"},
        "trackingnet": {"TRAIN_0/anno/cat-1.txt": lines},
        "got10k": {"train/cat-1/groundtruth.txt": lines},
    }  # fmt: skip
    for path, text in files[reader].items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    split = "all" if reader == "lasot" else READERS[reader].default_split
    (sample,) = READERS[reader].read(str(root), split, {})
    return sample


@pytest.mark.parametrize(
    ("reader", "lines"),
    [
        ("lasot", "1.0,1.0,10.0,20.0\n0,0,0,0\n-2.25,1.1,10.550000000000001,999.9\n"),
        ("trackingnet", "0.0,0.0,10.0,20.0\n0,0,0,0\n-3.25,0.1,10.550000000000001,999.9\n"),
    ],
)
def test_files_are_in_the_origin_of_the_dataset_and_come_back(reader, lines, tmp_path):
    sample = sample_of(reader, tmp_path)
    write, read = WRITERS[reader]
    write(f"file://{tmp_path}/out", sample, BOXES)
    assert (tmp_path / "out/cat-1.txt").read_text() == lines
    assert read(str(tmp_path / "out"), sample) == BOXES


def test_got10k_has_a_folder_a_sequence_and_times(tmp_path):
    sample = sample_of("got10k", tmp_path)
    seconds = [0.1, 1 / 3, 2.0]
    tracks.write_got10k(str(tmp_path / "out"), sample, BOXES, seconds)
    assert (tmp_path / "out/cat-1/cat-1_001.txt").read_text().startswith("1.0,1.0,10.0,20.0\n")
    assert (tmp_path / "out/cat-1/cat-1_time.txt").read_text() == "0.1\n0.3333333333333333\n2.0\n"
    assert tracks.read_got10k(str(tmp_path / "out"), sample) == (BOXES, seconds)
    with pytest.raises(TpoError, match="1 times for 3 boxes"):
        tracks.write_got10k(str(tmp_path / "out"), sample, BOXES, [0.1])


@pytest.mark.parametrize("origin", [0, 1])
def test_any_box_comes_back_to_the_last_bit(origin):
    rng = random.Random(0)
    for _ in range(500):
        x, y, scale = rng.uniform(-9, 9), rng.uniform(-1e-9, 1e-9), 10 ** rng.uniform(-6, 4)
        box = (x, y, x + rng.random() * scale + 1e-9, y + rng.random() * scale + 1e-9)
        assert tracks.box_of_line(tracks.native_line(box, origin), origin) == box


def test_files_of_other_tools_may_have_tabs():
    assert tracks.box_of_line("5\t6\t10\t20", 1) == (4.0, 5.0, 14.0, 25.0)
    assert tracks.native_line((4.0, 5.0, 14.0, 25.0), 1) == "5.0,6.0,10.0,20.0"


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (BOXES[:2], "2 boxes for 3 frames"),
        ([None, None, (0.0, 0.0, float("nan"), 1.0)], "finite box"),
        ([None, None, (5.0, 0.0, 4.0, 1.0)], "with a size"),
    ],
)
def test_what_a_scorer_cannot_take_is_refused_and_nothing_is_written(boxes, message, tmp_path):
    with pytest.raises(TpoError, match=message):
        tracks.write_lasot(str(tmp_path / "out"), sample_of("lasot", tmp_path), boxes)
    assert not (tmp_path / "out").exists()


def test_tracks_of_a_mot_sequence_share_a_file(tmp_path):
    for name in ("S1", "S2"):
        (tmp_path / f"{name}/gt").mkdir(parents=True)
        (tmp_path / f"{name}/gt/gt.txt").write_text("1,10,1,1,5,5,1,1,1\n3,2,1,1,5,5,1,1,1\n")
    samples = list(READERS["mot"].read(str(tmp_path), "all", {"samples": "track"}))
    predictions = {sample.sample_id: [None, (0.0, 0.5, 4.0, 4.0), None] for sample in samples}
    predictions["mot/all/S1-track-10"] = BOXES
    out = str(tmp_path / "out")
    tracks.write_mot(out, [(sample, predictions[sample.sample_id]) for sample in samples])
    assert (tmp_path / "out/S1.txt").read_text().splitlines() == [
        "1,10,1.0,1.0,10.0,20.0,1,-1,-1,-1",
        "2,2,1.0,1.5,4.0,3.5,1,-1,-1,-1",
        "3,10,-2.25,1.1,10.550000000000001,999.9,1,-1,-1,-1",
    ]
    assert tracks.read_mot(out, samples) == predictions
    with pytest.raises(TpoError, match="is no track of MOTChallenge"):
        tracks.write_mot(out, [(sample_of("got10k", tmp_path / "g"), BOXES)])
