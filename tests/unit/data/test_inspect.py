"""The command that shows a dataset: what it counts, what it prints, what it draws, and how it fails."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tpo_core.data.inspect import Summary, histogram, main
from tpo_core.data.readers import READERS

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def charades(tmp_path):
    lines = ["V1 0.0 6.9##a person sits.", "V1 20.0 33.0##a person stands.", "V1 8 7##reversed."]
    (tmp_path / "charades_sta_train.txt").write_text("\n".join(lines))
    (tmp_path / "Charades_v1_train.csv").write_text("id,length\nV1,30.0\n")
    return str(tmp_path)


def test_counts_rejects_and_samples_are_told(charades, capsys):
    assert main(["charades_sta", "--root", charades]) == 0
    out = capsys.readouterr().out
    assert "samples   2 (2 span) on 1 media" in out
    assert "rejected  1 (33.33% of the records)" in out
    assert "moment_reversed" in out
    assert "charades_sta_train.txt:3" in out
    assert "changed   end_clipped" in out
    assert "moment length, n = 2" in out
    assert "target: span 0 - 6.9 s" in out


def test_jsonl_prints_samples_and_rejects_that_the_jsonl_reader_takes(charades, capsys, tmp_path):
    assert main(["charades_sta", "--root", charades, "--jsonl"]) == 0
    out = capsys.readouterr().out
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row.get("sample_id") for row in rows] == ["charades_sta/train/V1-0", "charades_sta/train/V1-1", None]
    assert rows[2]["rejected"]["reason"] == "moment_reversed"
    (tmp_path / "train.jsonl").write_text(out)
    again = list(READERS["jsonl"].read(str(tmp_path), "train", {}))
    assert again == list(READERS["charades_sta"].read(charades, "train", {}))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nosuch", "--root", "{root}"], "unknown format 'nosuch'"),
        (["charades_sta", "--root", "{root}", "--split", "dev"], "charades_sta_dev.txt"),
        (["charades_sta", "--root", "{root}", "--option", "video"], "NAME=VALUE"),
        (["charades_sta", "--root", "{root}", "--option", "videos=x"], "did you mean 'video'"),
        (["charades_sta", "--root", "{root}", "--out", "x"], "--out DIR needs --draw N"),
        (["charades_sta", "--root", "ftp://x"], "unknown storage"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(charades, capsys, arguments, text):
    assert main([argument.replace("{root}", charades) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert text in error


def test_an_empty_dataset_is_told_and_fails(tmp_path, capsys):
    (tmp_path / "train.jsonl").touch()
    assert main(["jsonl", "--root", str(tmp_path)]) == 2
    assert "gives no samples" in capsys.readouterr().err


def test_help_teaches_every_format():
    command = [sys.executable, "-m", "tpo_core.data.inspect", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    for reader in READERS.values():
        assert reader.layout in done.stdout
        assert all(f"--option {name}=" in done.stdout for name in reader.options)


def test_histogram_bins_are_half_open_and_the_last_is_not_bounded():
    lines = histogram([0.0, 0.5, 1.0, 99.0], (0.0, 1.0, 2.0), "s")
    assert [int(line.split()[4]) for line in lines] == [2, 1, 1]
    assert histogram([], (0.0, 1.0), "s") == []


def test_box_sizes_count_tracks_and_boxes(tmp_path):
    (tmp_path / "S").mkdir()
    (tmp_path / "S/gt.txt").write_text("1,1,1,1,4,9,1\n2,1,1,1,4,9,1\n")
    summary = Summary()
    for item in READERS["mot"].read(str(tmp_path), "all", {}):
        summary.add(item)
    assert summary.box_px == [6.0, 6.0, 6.0]  # two of the track, one given in the question


def test_drawings_show_the_label_where_it_is(tmp_path, capsys):
    folder = tmp_path / "train/S1"
    folder.mkdir(parents=True)
    for k in (1, 2):
        Image.fromarray(np.zeros((60, 80, 3), np.uint8)).save(folder / f"{k:08d}.jpg")
    (folder / "groundtruth.txt").write_text("11,21,30,20\n11,21,30,20\n")
    out = tmp_path / "out"
    assert main(["got10k", "--root", str(tmp_path), "--draw", "3", "--out", str(out)]) == 0
    (drawing,) = out.iterdir()
    assert str(drawing) in capsys.readouterr().out
    pixels_HWC = np.asarray(Image.open(drawing))
    assert pixels_HWC[20, 10].tolist() == [255, 200, 0]  # frame 0: the given box, on top of the track's
    assert pixels_HWC[20, 80 + 10].tolist() == [0, 220, 80]
    assert pixels_HWC[30, 25].tolist() == [0, 0, 0]


def test_drawings_without_a_folder_go_to_one_named_after_the_format(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (80, 60)).save("a.png")
    row = {
        "sample_id": "own/train/1", "dataset": "own", "split": "train", "task": "chat",
        "media": [{"uri": "a.png", "kind": "image"}],
        "turns": [{"role": "user", "text": "What?"}, {"role": "assistant", "text": "Nothing."}],
        "provenance": {"source_file": "train.jsonl", "row": 0, "native_id": "1", "reader": "jsonl"},
    }  # fmt: skip
    Path("train.jsonl").write_text(json.dumps(row))
    assert main(["jsonl", "--root", str(tmp_path), "--jsonl", "--draw", "1"]) == 0
    told = capsys.readouterr()
    assert json.loads(told.out)["sample_id"] == "own/train/1"
    assert "drawings are in inspect-jsonl/" in told.err
    assert [path.name for path in Path("inspect-jsonl").iterdir()] == ["000_own_train_1.png"]


def test_a_file_that_cannot_be_decoded_is_told(charades, tmp_path, capsys):
    assert main(["charades_sta", "--root", charades, "--draw", "1", "--out", str(tmp_path / "out")]) == 0
    assert "not drawn charades_sta/train/V1-0" in capsys.readouterr().out


def test_boxes_where_an_object_is_absent_are_neither_checked_nor_counted(tmp_path, capsys):
    track = [
        {"frame": 0, "visible": True, "box": [0, 0, 20, 20]},
        {"frame": 1, "visible": False, "box": [10, 2, 3, 40]},
        {"frame": 2, "visible": False, "box": [math.nan, 2, 3, 40]},
    ]
    row = {
        "sample_id": "m/1", "dataset": "m", "split": "train", "task": "track",
        "media": [{"uri": "v.mp4", "kind": "video"}],
        "turns": [
            {"role": "user", "text": "Where is <track_box>?", "media_refs": [0], "target_refs": [1]},
            {"role": "assistant", "text": "<track_begin><tracking>", "target_refs": [0]},
        ],
        "targets": [{"kind": "track", "track": track}, {"kind": "box", "box": [0, 0, 20, 20], "frame": 0}],
        "provenance": {"source_file": "train.jsonl", "row": 0, "native_id": "1", "reader": "jsonl"},
    }  # fmt: skip
    (tmp_path / "train.jsonl").write_text(json.dumps(row))
    assert main(["jsonl", "--root", str(tmp_path)]) == 0
    assert "box size, square root of the area, n = 2" in capsys.readouterr().out
