"""Boxes of sentences and phrases against what the official evaluation codes returned (tests/golden/metrics)."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tpo_core.metrics import flickr30k_files
from tpo_core.metrics.registry import score

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "metrics"
REFCOCO = GOLDEN / "refcoco_acc"
FLICKR = GOLDEN / "flickr30k_entities"
FLOAT32 = 1e-6

both_modes = pytest.mark.parametrize("strict", [False, True])


def golden(path: Path) -> Any:
    return json.loads(path.read_text())


def refcoco(implementation: str, strict: bool, predictions: str = "main.jsonl", **options: object) -> Any:
    return score("refcoco", REFCOCO / "main.jsonl", REFCOCO / predictions, implementation, strict, **options)


@both_modes
@pytest.mark.parametrize(("implementation", "form"), [("iou", "pixels"), ("lmms_eval", "normalised")])
def test_refcoco_equals_lmms_eval(implementation, form, strict):
    official = golden(REFCOCO / "lmms_eval_rec.json")
    report = refcoco(implementation, strict)
    for name, value in official[form]["main"].items():
        assert report.result[name] == value, name
    assert (report.n, report.N, report.rejected) == (300, 300, {})
    if form == "pixels":
        for row in official["per_sample_pixels"]["main"]:
            assert report.per_item[str(row["id"])] == {"iou": row["iou"], "center_hit": row["center_hit"]}


@both_modes
def test_refcoco_equals_shikra(strict):
    official = golden(REFCOCO / "shikra.json")["main"]["result"]
    result = refcoco("shikra", strict).result
    for name in ("accuracy", "failed", "target_failed"):
        assert result[name] == official[name]
    assert result["iou"] == pytest.approx(official["iou"], abs=FLOAT32)


@both_modes
def test_refcoco_equals_mdetr(strict):
    official = golden(REFCOCO / "mdetr.json")
    report = refcoco("mdetr", strict)
    assert {name: list(ranks.values()) for name, ranks in report.result.items()} == official["main"]["result"]
    for row in official["per_sample"]["main"]:
        assert report.per_item[str(row["id"])]["giou"] == pytest.approx(row["giou"], abs=FLOAT32)


@both_modes
@pytest.mark.parametrize("pad", [False, True])
def test_refcoco_equals_all_seeing_v2(pad, strict):
    official = golden(REFCOCO / "all_seeing_v2.json")[f"square_pad={pad}"]
    report = refcoco("all_seeing_v2", strict, f"asv2_answers_square_pad_{pad}.jsonl", square_pad=pad)
    expected = {
        name: {"# samples": each["n"], "Acc@0.5": each["acc"]} for name, each in official["accuracy_percent"].items()
    }
    assert report.result == expected
    assert set(report.rejected) == (set() if strict else {"unparsed"})
    if strict:
        for key, (box,) in official["boxes"].items():
            np.testing.assert_allclose(report.per_item[key]["box"], box, rtol=0, atol=FLOAT32)


@both_modes
@pytest.mark.parametrize(("implementation", "merged"), [("any_box", False), ("merged_box", True)])
def test_flickr30k_equals_mdetr(implementation, merged, strict):
    official = golden(FLICKR / "golden" / "mdetr_flickr_eval.json")[f"merge_boxes={merged}"]
    report = score(
        "flickr30k", FLICKR / "input", FLICKR / "input" / f"pred_merge_{merged}.json", implementation, strict
    )
    assert report.result == official["result"]
    assert {key.split()[0] for key in report.per_item} == set(official["sentences_evaluated"])


def test_flickr30k_is_read_as_mdetr_reads_it():
    official = golden(FLICKR / "golden" / "mdetr_flickr_eval.json")["reader"]
    for image, expected in official["annotations"].items():
        found = flickr30k_files.boxes(FLICKR / "input" / "Annotations" / f"{image}.xml")
        assert {chain: each.tolist() for chain, each in found.items()} == expected["boxes"]
    for image, expected in official["sentences"].items():
        found = flickr30k_files.sentences(FLICKR / "input" / "Sentences" / f"{image}.txt")
        assert [[(one.words, one.chain, list(one.categories)) for one in phrases] for phrases in found] == [
            [(one["phrase"], one["phrase_id"], one["phrase_type"]) for one in sentence["phrases"]]
            for sentence in expected
        ]
