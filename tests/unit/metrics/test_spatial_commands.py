"""The command line of the scorers of boxes, masks and tracks, on the golden files."""

import json
from pathlib import Path

import pytest

from tpo_core.metrics.registry import scorer
from tpo_core.metrics.score import main

GOLDEN = Path(__file__).resolve().parents[2] / "golden" / "metrics"
RESULTS = "lasot/input/results/Jitter"
COMMANDS = [
    ("lasot", "pytracking", "lasot/input/LaSOT", RESULTS, ["AUC", "OP50", "OP75", "Precision", "NormPrecision"]),
    ("lasot", "lasot_matlab", "lasot/input/LaSOT", RESULTS, ["success_auc", "precision_20px", "norm_precision_0_2"]),
    ("lasot", "got10k_toolkit", "lasot/input/LaSOT", RESULTS, ["success_score", "normalized_precision_score"]),
    ("got10k", "got10k", "got10k/input/data", "got10k/input/results/GOT-10k/Jitter", ["ao", "sr", "succ_curve"]),
    ("trackingnet", "trackingnet", "trackingnet/input", "trackingnet/input/results/Wild", ["coverage", "success"]),
    ("refcoco", "iou", "refcoco_acc/main.jsonl", "refcoco_acc/main.jsonl", ["IoU", "ACC@0.5", "Center_ACC"]),
    ("refcoco", "shikra", "refcoco_acc/main.jsonl", "refcoco_acc/main.jsonl", ["accuracy", "failed", "iou"]),
    ("refcoco", "mdetr", "refcoco_acc/main.jsonl", "refcoco_acc/main.jsonl", ["refcoco", "refcoco+", "refcocog"]),
    (
        "flickr30k",
        "merged_box",
        "flickr30k_entities/input",
        "flickr30k_entities/input/pred_merge_True.json",
        ["1", "5", "10", "-1"],
    ),
    ("mevis", "mevis", "mevis_jf/input", "mevis_jf/input/pred", ["J", "F", "J&F"]),
]


@pytest.mark.parametrize(("metric", "implementation", "truth", "predictions", "names"), COMMANDS)
def test_json_and_text(capsys, metric, implementation, truth, predictions, names):
    words = [metric, "--ground-truth", str(GOLDEN / truth), "--predictions", str(GOLDEN / predictions)]
    words += ["--implementation", implementation]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (report["metric"], report["implementation"]) == (metric, implementation)
    assert set(names) <= report["result"].keys()
    assert 0 < report["n"] == report["N"]
    assert report["per_item"]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert f"scored {report['n']}/{report['N']}" in out
    assert "[" not in out, "curves are for JSON"


@pytest.mark.parametrize(
    ("metric", "implementations"),
    [
        ("refcoco", ("iou", "lmms_eval", "shikra", "all_seeing_v2", "mdetr")),
        ("flickr30k", ("any_box", "merged_box")),
        ("davis", ("semi-supervised", "unsupervised")),
        ("mevis", ("mevis",)),
        ("ref_youtube_vos", ("mevis_rule",)),
        ("sav", ("sav",)),
        ("lasot", ("pytracking", "lasot_matlab", "got10k_toolkit")),
        ("got10k", ("got10k",)),
        ("trackingnet", ("trackingnet",)),
        ("mot", ("trackeval",)),
    ],
)
def test_every_scorer_says_what_it_reads(capsys, metric, implementations):
    assert scorer(metric).implementations == implementations
    with pytest.raises(SystemExit):
        main([metric, "--help"])
    out = capsys.readouterr().out
    assert "--ground-truth   " in out
    assert "--predictions    " in out
    assert max(map(len, scorer(metric).reads.splitlines())) <= 120


def test_a_mistake_is_one_line(capsys, tmp_path):
    assert main(["lasot", "--ground-truth", str(tmp_path), "--predictions", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"error: {tmp_path}: no groundtruth.txt below")
    assert err.count("\n") == 1
