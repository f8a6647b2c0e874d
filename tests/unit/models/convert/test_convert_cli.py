import json
import os
import subprocess
import sys

import pytest
import torch

from tests.tiny_sam2 import tiny_sam2
from tests.unit.models.convert.published_files import read_checkpoint, same_bits
from tpo_core.heads.sam2.frozen import FrozenSam2
from tpo_core.models.convert import __main__ as command
from tpo_core.models.convert.sam2 import to_facebook


def test_there_and_back_on_the_command_line(published, tensors, like, tmp_path, capsys):
    ours, back = tmp_path / "ours", tmp_path / "back"
    assert command.main(["videochat-tpo", "--from", str(published), "--to", str(ours), "--like", like]) == 0
    assert command.main(["videochat-tpo", "--to-published", "--from", str(ours), "--to", str(back)]) == 0
    assert same_bits(read_checkpoint(back), tensors)
    told = capsys.readouterr()
    written = [line for line in told.out.splitlines() if line.startswith("written")]
    assert written == [f"written {ours}", f"written {back}"]
    assert "100%" in told.err


def test_the_manifest_is_checked(capsys, tmp_path):
    assert command.main(["videochat-tpo", "--check-manifest"]) == 0
    assert "2594 of 2594 names and shapes map, one to one" in capsys.readouterr().out
    about = json.loads(command.MANIFEST.read_text())
    del about["tensors"]["box_token"]
    (tmp_path / "m.json").write_text(json.dumps(about))
    assert command.main(["videochat-tpo", "--check-manifest", str(tmp_path / "m.json")]) == 1
    assert capsys.readouterr().out.endswith("1 of 2594 names and shapes do not fit:\n  lacks box_token\n")
    assert command.main(["videochat-tpo", "--check-manifest", str(tmp_path / "none.json")]) == 2


def test_a_manifest_of_other_sizes_is_checked_against_a_model_of_them(tensors, like, tmp_path, capsys):
    names = {torch.bfloat16: "BF16", torch.int64: "I64"}
    about = {name: {"shape": list(value.shape), "dtype": names[value.dtype]} for name, value in tensors.items()}
    (tmp_path / "m.json").write_text(json.dumps({"tensors": about}))
    assert command.main(["videochat-tpo", "--check-manifest", str(tmp_path / "m.json"), "--like", like]) == 0
    assert f"{len(tensors)} of {len(tensors)} names and shapes map" in capsys.readouterr().out
    assert command.main(["videochat-tpo", "--check-manifest", str(tmp_path / "m.json")]) == 1


def test_a_conversion_waits_for_its_manifest(published, tensors, like, tmp_path, capsys):
    names = {torch.bfloat16: "BF16", torch.int64: "I64"}
    about = {name: {"shape": list(value.shape), "dtype": names[value.dtype]} for name, value in tensors.items()}
    (tmp_path / "good.json").write_text(json.dumps({"tensors": about}))
    (tmp_path / "bad.json").write_text(json.dumps({"tensors": {**about, "more": {"shape": [1], "dtype": "BF16"}}}))
    rest = ["--from", str(published), "--to", str(tmp_path / "ours"), "--like", like]
    assert command.main(["videochat-tpo", "--check-manifest", str(tmp_path / "bad.json"), *rest]) == 1
    assert not (tmp_path / "ours").exists()
    assert command.main(["videochat-tpo", "--check-manifest", str(tmp_path / "good.json"), *rest]) == 0
    assert (tmp_path / "ours" / "_SUCCESS").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["videochat-tpo"], "needs --from and --to"),
        (["videochat-tpo", "--from", "{published}"], "needs --from and --to"),
        (["videochat-tpo", "--from", "{tmp}/none", "--to", "{tmp}/x"], "no model at"),
        (["videochat-tpo", "--from", "{published}", "--to", "{published}", "--like", "{like}"], "published exists"),
        (["videochat-tpo", "--from", "{published}", "--to", "{tmp}/x", "--like", "{tmp}"], "is no model in our layout"),
        (["videochat-tpo", "--to-published", "--from", "{published}", "--to", "{tmp}/x"], "is no model in our layout"),
        (["videochat-tpo", "--to-published", "--from", "a", "--to", "b", "--like", "c"], "leave --like out"),
        (["videochat2-mistral", "--from", "{published}", "--to", "{tmp}/x"], "give --like with a base of its sizes"),
        (["videochat-tpo", "--from", "{published}", "--to", "{file}/x", "--like", "{like}"], "cannot be written"),
        (["sam2", "--from", "{tmp}/none.pt", "--to", "{tmp}/x"], "cannot be read as a SAM2 checkpoint"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(published, like, tmp_path, capsys, arguments, told):
    (tmp_path / "file").write_text("")
    places = {"published": published, "tmp": tmp_path, "like": like, "file": tmp_path / "file"}
    assert command.main([argument.format(**places) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert told in error
    assert error.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "published"]


def test_a_sam2_file_becomes_a_folder(tmp_path, monkeypatch, capsys):
    model = tiny_sam2()
    monkeypatch.setattr("tpo_core.models.convert.sam2.hiera_large", lambda **version: model.config)
    facebook = to_facebook(model.state_dict())
    torch.save({"model": facebook}, tmp_path / "sam2.pt")
    assert command.main(["sam2", "--from", str(tmp_path / "sam2.pt"), "--to", str(tmp_path / "sam2")]) == 0
    loaded = FrozenSam2.load(str(tmp_path / "sam2")).model.state_dict()
    assert same_bits(to_facebook(loaded), facebook)
    assert f"written {tmp_path / 'sam2'}\n" in capsys.readouterr().out


def test_an_interruption_leaves_nothing(published, like, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("tpo_core.models.convert.videochat_tpo.save_hf", interrupted)
    assert command.main(["videochat-tpo", "--from", str(published), "--to", str(tmp_path / "x"), "--like", like]) == 130
    assert "interrupted: nothing was written" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["published"]


def test_help_teaches_by_examples_and_an_unknown_kind_is_refused(capsys):
    for arguments in (["--help"], ["videochat-tpo", "--help"]):
        with pytest.raises(SystemExit) as left:
            command.main(arguments)
        assert left.value.code == 0
        text = capsys.readouterr().out
        assert "python -m tpo_core.models.convert videochat-tpo --check-manifest" in text
        assert "Exit status" in text
    with pytest.raises(SystemExit) as left:
        command.main(["videochat3"])
    assert left.value.code == 2


def test_it_runs_as_a_module(tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-m", "tpo_core.models.convert", "videochat-tpo", "--from", str(tmp_path), "--to", "x"],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
    )
    assert ran.returncode == 2
    assert ran.stderr == (
        f"error: {tmp_path} is no checkpoint: it has neither model.safetensors.index.json nor *.safetensors\n"
    )
