"""The command line of the metrics: what it prints, and one line for what is wrong with the files."""

import json

import numpy as np
import pytest

from tpo_core.metrics.score import main


def run(metric, truth, predictions, *more):
    return main([metric, "--ground-truth", str(truth), "--predictions", str(predictions), *more])


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def spans(tmp_path):
    truth = tmp_path / "charades_sta_test.txt"
    truth.write_text("A 0.0 4.0##sits.\nB 2.0 4.0##stands.\nC 1.0 2.0##runs.\nD 1.0 2.0##eats.\n")
    rows = [(0, [[0, 4, 1.0]]), (1, [[4, 2, 1.0]]), (2, []), (9, [[0, 1, 1.0]])]
    predictions = [{"qid": qid, "pred_relevant_windows": windows} for qid, windows in rows]
    return truth, jsonl(tmp_path / "pred.jsonl", predictions)


def test_misses_stay_in_the_denominator_and_are_told(spans, capsys):
    assert run("charades_sta", *spans) == 0
    out = capsys.readouterr().out
    assert "full/r1@0.5            25.00" in out
    assert "scored 4/4 truths: 1 without a prediction and 1 with an invalid one count as misses; 1 predictions" in out


def test_json_holds_every_query(spans, capsys):
    assert run("charades_sta", *spans, "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["per_item"] == {"0": 1.0, "1": 0.0, "2": 0.0, "3": 0.0}
    assert (report["n_truths"], report["n_predicted"], report["n_invalid"], report["n_unknown"]) == (4, 3, 1, 1)


def test_a_missing_mask_is_an_empty_one(tmp_path, capsys):
    truth = np.zeros((2, 6, 6), bool)
    truth[0, 1:4, 1:4] = True
    np.savez(tmp_path / "gt.npz", a_gt=truth, b_gt=truth)
    np.savez(tmp_path / "pred.npz", a_pred=truth)
    assert run("mask_jf", tmp_path / "gt.npz", tmp_path / "pred.npz") == 0
    out = capsys.readouterr().out
    assert "j                      75.00" in out
    assert "1 without a prediction" in out


@pytest.mark.parametrize(
    ("metric", "truth", "prediction", "more", "line"),
    [
        ("nlq", "{}", "{}", (), "unknown metric 'nlq'"),
        ("charades_sta", "{}", "{}", ("--implementation", "mine"), "no implementation 'mine'; known: cgdetr"),
        ("charades_sta", "", "", (), "holds no truth"),
        ("charades_sta", "x", "", (), "line 1 is not JSON"),
        ("charades_sta", '{"qid": 1}', "", (), "line 1 has no 'relevant_windows'"),
        ("charades_sta", '{"qid": 1, "relevant_windows": []}', "", (), "with at least one"),
        ("charades_sta", '{"qid": 1, "relevant_windows": [[0, 1]]}\n' * 2, "", (), "line 2 repeats qid 1"),
        ("mask_jf", "x", "x", (), "not an NPZ file"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, metric, truth, prediction, more, line):
    (tmp_path / "gt.jsonl").write_text(truth)
    (tmp_path / "pred.jsonl").write_text(prediction)
    assert run(metric, tmp_path / "gt.jsonl", tmp_path / "pred.jsonl", *more) == 2
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert run("refcoco_acc", tmp_path / "no.jsonl", tmp_path / "no.jsonl") == 2
    assert "no such file" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gt.jsonl", "gt.txt"])
def test_a_file_in_another_encoding_is_one_line(tmp_path, capsys, name):
    (tmp_path / name).write_bytes("A 0.0 4.0##f\u00e4llt.\n".encode("latin-1"))
    assert run("charades_sta", tmp_path / name, tmp_path / name) == 2
    err = capsys.readouterr().err
    assert "not UTF-8 text (byte 12: invalid continuation byte); convert it" in err
    assert err.count("\n") == 1


def test_a_cut_off_archive_and_a_single_array_are_one_line(tmp_path, capsys):
    np.savez(tmp_path / "gt.npz", a_gt=np.zeros((6, 6), bool))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "gt.npz").read_bytes()[:100])
    np.save(tmp_path / "one.npy", np.zeros((6, 6), bool))
    for name in ("cut.npz", "one.npy"):
        assert run("mask_jf", tmp_path / "gt.npz", tmp_path / name) == 2
        assert capsys.readouterr().err == f"error: {tmp_path / name}: not an NPZ file of arrays\n"


def test_help_shows_what_the_files_hold(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = capsys.readouterr().out
    assert "truth         JSONL with qid, relevant_windows [[start, end], ...]" in out
    assert "predictions   NPZ with NAME_pred" in out
    assert "file of predictions" in out
    assert "(default: the first)" in out
