import json

import pytest
import torch

from tests.unit.train.checkpoints.made import checkpointer, debris, save_at, steps_at, trained
from tpo_core.errors import TpoError
from tpo_core.train.checkpoints.reader import open_checkpoint


@pytest.fixture
def run():
    return trained(3)


def resumed(root, run):
    saver = checkpointer(root, run.strategy)
    progress, lines = saver.resume()
    return saver, progress.step, lines


def the(folder, pattern):
    [path] = folder.glob(pattern)
    return path


def damage(folder, how):
    part, index, commit = the(folder, "*.safetensors"), the(folder, "*-index.json"), folder / "checkpoint.json"
    data = part.read_bytes()
    match how:
        case "part truncated":
            part.write_bytes(data[: len(data) // 2])
        case "part flipped":
            part.write_bytes(data[:-20] + bytes([data[-20] ^ 1]) + data[-19:])
        case "part deleted":
            part.unlink()
        case "index changed":
            index.write_text(index.read_text().replace("F32", "F16"))
        case "manifest cut":
            commit.write_text(commit.read_text()[:100])
        case "manifest changed":
            commit.write_text(commit.read_text().replace('"samples": 24', '"samples": 25'))
        case "manifest empty":
            commit.write_text("")
        case "manifest of nothing":
            commit.write_text("[1]")


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("part truncated", "is damaged"),
        ("part flipped", "is damaged"),
        ("part deleted", "is missing"),
        ("index changed", "is damaged"),
        ("manifest cut", "checkpoint.json is not what was written"),
        ("manifest changed", "checkpoint.json is not what was written"),
        ("manifest empty", "checkpoint.json is not what was written"),
        ("manifest of nothing", "checkpoint.json is not what was written"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_told(tmp_path, run, how, said):
    save_at(checkpointer(tmp_path, run.strategy), run, 5, 10)
    damage(tmp_path / "step-00000010", how)
    saver, step, lines = resumed(tmp_path, run)
    assert step == 5
    assert lines[0].startswith(f"{tmp_path}/step-00000010 is damaged (")
    assert lines[0].endswith(f"{said}): passed over")
    assert lines[1] == "resuming at step 5 from step-00000005"
    with pytest.raises(TpoError, match=r"step-00000010 is damaged \(.*\): use an older checkpoint$"):
        open_checkpoint(str(tmp_path / "step-00000010"))

    save_at(saver, run, 10)  # the resumed run gets there again
    assert resumed(tmp_path, run)[1] == 10
    assert steps_at(tmp_path) == [5, 10]
    assert debris(tmp_path) == []


def test_a_checkpoint_that_was_passed_over_does_not_take_the_place_of_a_good_one(tmp_path, run):
    save_at(checkpointer(tmp_path, run.strategy), run, 5, 10)
    damage(tmp_path / "step-00000010", "part flipped")
    save_at(resumed(tmp_path, run)[0], run, 7)
    assert steps_at(tmp_path) == [5, 7]


def test_a_run_whose_checkpoints_are_all_damaged_starts_anew_and_says_so(tmp_path, run):
    save_at(checkpointer(tmp_path, run.strategy), run, 5, 10)
    damage(tmp_path / "step-00000005", "part deleted")
    damage(tmp_path / "step-00000010", "manifest cut")
    _, step, lines = resumed(tmp_path, run)
    assert step == 0
    assert [line.rpartition(" ")[2] for line in lines] == ["over", "over", "0"]


def test_what_is_not_committed_is_ignored_and_cleared_away(tmp_path, run):
    save_at(checkpointer(tmp_path, run.strategy), run, 5)
    dead = tmp_path / "step-00000010"
    dead.mkdir()
    for name in ("0123-0-00000.safetensors", ".0123-0-00001.safetensors.partial", "0123-0-00001.json"):
        (dead / name).write_text("{}")
    (tmp_path / "step-00000005" / "0123-0-00001.json").write_text("{}")  # killed after the commit
    (tmp_path / "notes").mkdir()
    _, step, lines = resumed(tmp_path, run)
    assert (step, len(lines)) == (5, 1)
    assert not dead.exists()
    assert debris(tmp_path) == []
    assert (tmp_path / "notes").exists()  # nothing but folders of steps is touched


def test_a_file_by_the_name_of_a_step_is_no_checkpoint(tmp_path, run):
    (tmp_path / "step-00000010").write_text("")
    saver, step, lines = resumed(tmp_path, run)
    assert (step, lines) == (0, ["starting at step 0"])
    save_at(saver, run, 10)
    assert resumed(tmp_path, run)[1] == 10


def test_a_folder_that_is_no_checkpoint_is_told(tmp_path):
    with pytest.raises(TpoError, match=r"is no checkpoint \(no checkpoint\.json\): give a folder step-NNNNNNNN"):
        open_checkpoint(str(tmp_path))


def test_a_checkpoint_of_another_version_is_told_and_left_alone(tmp_path, run, monkeypatch):
    """To start anew beside it, or to delete it, could cost days."""
    monkeypatch.setattr("tpo_core.train.checkpoints.manifest.FORMAT", 2)
    save_at(checkpointer(tmp_path, run.strategy), run, 5)
    monkeypatch.undo()
    said = r"step-00000005 is a checkpoint of another version of this program \(format 2, here 1\): go on with that"
    with pytest.raises(TpoError, match=said):
        open_checkpoint(str(tmp_path / "step-00000005"))
    with pytest.raises(TpoError, match=said):
        resumed(tmp_path, run)
    assert (tmp_path / "step-00000005" / "checkpoint.json").exists()


def test_progress_is_read_as_it_was(tmp_path, run):
    run.progress.window.add([("total", 0.1), ("total", 0.2), ("report/x", float("nan"))])
    run.progress.finish_step(kinds={"region": 8}, tokens=99, flops=7.0, seconds=0.3, wait_s=0.1)
    saver = checkpointer(tmp_path, run.strategy)
    saver.save(run.progress)
    saver.wait()
    read = open_checkpoint(str(tmp_path / "step-00000004")).progress
    assert json.dumps(vars(read), default=vars) == json.dumps(vars(run.progress), default=vars)


def test_any_tensor_can_be_read_alone(tmp_path, run):
    save_at(checkpointer(tmp_path, run.strategy), run, 3)
    state = dict(run.strategy.state())
    with open_checkpoint(str(tmp_path / "step-00000003")).tensors() as read:
        assert torch.equal(read("exp_avg/head.weight"), state["exp_avg/head.weight"])
        assert read("buffer/calls").shape == ()
        assert read("buffer/calls") == state["buffer/calls"]
