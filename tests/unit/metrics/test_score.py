"""The command line of the metrics: what it prints, and one line for what is wrong with the files."""

import json

import pytest

from tpo_core.metrics.registry import METRICS, Option, Scorer
from tpo_core.metrics.report import MAX_EXAMPLES, Rejections, Report, flat
from tpo_core.metrics.score import main
from tpo_core.metrics.scorers import charades_sta


def run(metric, truth, predictions, *more):
    return main([metric, "--ground-truth", str(truth), "--predictions", str(predictions), *more])


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def spans(tmp_path):
    truths = [{"qid": qid, "relevant_windows": [[0, 4]]} for qid in range(3)]
    rows = [(0, [[0, 4, 1.0]]), (1, [[5, 9, 1.0]]), (9, [[0, 1, 1.0]])]
    predictions = [{"qid": qid, "pred_relevant_windows": windows} for qid, windows in rows]
    return jsonl(tmp_path / "gt.jsonl", truths), jsonl(tmp_path / "pred.jsonl", predictions)


def test_what_is_rejected_is_told_with_its_count_and_example(spans, capsys):
    assert run("charades_sta", *spans) == 0
    out = capsys.readouterr().out
    assert "full/MR-R1/0.5                         33.33" in out
    assert "scored 3/3" in out
    assert "missing: 1 truths without a prediction (first: 2)" in out
    assert "unknown: 1 predictions that belong to no truth; left out (first: 9)" in out


def test_json_is_one_strict_object(spans, capsys):
    assert run("charades_sta", *spans, "--json") == 0
    report = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert (report["metric"], report["implementation"], report["strict_official"]) == ("charades_sta", "cgdetr", False)
    assert (report["n"], report["N"]) == (3, 3)
    assert report["rejected"]["missing"] == {"count": 1, "meaning": "truths without a prediction", "examples": ["2"]}
    assert report["per_item"]["0"]["top1_iou"] == 1.0


def test_numbers_that_are_not_finite_are_strings():
    report = Report("m", "i", True, {"a": {"b": float("nan"), "c": float("-inf")}}, 1, 1, {}, {"x": [float("inf")]})
    content = json.loads(report.as_json())
    assert content["result"] == {"a": {"b": "NaN", "c": "-Infinity"}}
    assert content["per_item"] == {"x": ["Infinity"]}
    assert "a/b" in report.as_text()
    assert "strict official" in report.as_text()


def test_examples_are_few_and_counts_are_whole():
    rejections = Rejections()
    for number in range(20):
        rejections.add("empty", number)
    entry = rejections.summary()["empty"]
    assert (entry["count"], entry["examples"]) == (20, [str(n) for n in range(MAX_EXAMPLES)])


def test_leaves_have_the_path_of_their_names():
    assert flat({"a": {"b": {"0.5": 1.0}}, "c": 2.0}) == {"a/b/0.5": 1.0, "c": 2.0}


@pytest.mark.parametrize(
    ("metric", "truth", "prediction", "more", "line"),
    [
        ("nosuch", "{}", "{}", (), "unknown metric 'nosuch'; known: charades_sta, qvhighlights"),
        ("charades_sta", "{}", "{}", ("--implementation", "mine"), "no implementation 'mine'; known: cgdetr"),
        ("charades_sta", "", "", (), "holds no truth"),
        ("charades_sta", "x", "", (), "line 1 is not JSON"),
        ("charades_sta", '{"qid": 1}', "", (), "line 1 has no 'relevant_windows'"),
        ("charades_sta", "[1]", "", (), "line 1 is not an object with qid, relevant_windows"),
        ("charades_sta", "{}", "{}", ("--bogus",), "unrecognized arguments: --bogus; see python -m"),
    ],
)
def test_mistakes_are_one_line(tmp_path, capsys, metric, truth, prediction, more, line):
    (tmp_path / "gt.jsonl").write_text(truth)
    (tmp_path / "pred.jsonl").write_text(prediction)
    assert run(metric, tmp_path / "gt.jsonl", tmp_path / "pred.jsonl", *more) == 2
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(("words", "line"), [([], "arguments are required: METRIC"), (["--nope"], "METRIC")])
def test_no_metric_is_one_line(capsys, words, line):
    assert main(words) == 2
    err = capsys.readouterr().err
    assert line in err
    assert err.count("\n") == 1


def test_a_file_that_is_not_there_or_is_a_folder(tmp_path, capsys):
    assert run("charades_sta", tmp_path / "no.jsonl", tmp_path / "no.jsonl") == 2
    assert "no such file" in capsys.readouterr().err
    assert run("charades_sta", tmp_path, tmp_path) == 2
    assert "a folder, but this metric reads a file here" in capsys.readouterr().err


def test_a_file_in_another_encoding_is_one_line(tmp_path, capsys):
    (tmp_path / "gt.jsonl").write_bytes("A 0.0 4.0##f\u00e4llt.\n".encode("latin-1"))
    assert run("charades_sta", tmp_path / "gt.jsonl", tmp_path / "gt.jsonl") == 2
    err = capsys.readouterr().err
    assert "not UTF-8 text (byte 12: invalid continuation byte); convert it" in err
    assert err.count("\n") == 1


def test_help_lists_the_metrics_and_teaches_the_files_of_one(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert [name for name in METRICS if f"  {name} " not in out] == []
    with pytest.raises(SystemExit):
        main(["charades_sta", "--help"])
    out = capsys.readouterr().out
    assert "charades_sta_test.txt (VIDEO START END##SENTENCE; ids are lines from 0)" in out
    assert "(default: cgdetr)" in " ".join(out.split())


def test_options_reach_the_scorer(spans, capsys, monkeypatch):
    seen = {}

    def score(ground_truth, predictions, implementation, strict_official, **options):
        seen.update(options, strict=strict_official)
        return Report("charades_sta", implementation, strict_official, {}, 1, 1, {})

    options = (Option("nms", float, "threshold", 0.5), Option("fractions", bool, "switch", False))
    monkeypatch.setattr(charades_sta, "SCORER", Scorer("charades_sta", ("one",), "files", score, options))
    assert run("charades_sta", *spans, "--nms", "0.25", "--strict-official") == 0
    assert seen == {"nms": 0.25, "fractions": False, "strict": True}
    assert "nothing rejected" in capsys.readouterr().out
