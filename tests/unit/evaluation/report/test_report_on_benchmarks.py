"""What an evaluation on benchmarks leaves is what a report reads."""

from pathlib import Path

import pytest

from tests.unit.evaluation.benches import FORMATS, Scripted, bench_of, entry_of
from tests.unit.evaluation.report.made_results import Page
from tests.unit.evaluation.test_bench_grounding import following, mevis, painted
from tpo_core.evaluation.record import Record
from tpo_core.evaluation.report.footage import of_sets
from tpo_core.evaluation.report.write import write_report
from tpo_core.evaluation.work import PART


def page_on(bench) -> Page:
    """The page on a benchmark that was run, drawn from its own shards."""
    footage_of = of_sets({bench.entry.name: bench.place.shards}, PART)
    return Page(Path(write_report(Path(bench.place.output).parent, footage_of).page).read_text())


def test_masks_beside_the_control(tmp_path):
    bench = bench_of(tmp_path, entry_of("mevis", "mask", "mevis", split="valid_u", control=True), mevis(tmp_path / "m"))
    bench.run(painted({"v-0": "first", "v-1": None}), painted({"v-0": "first", "v-1": "second"}))
    page = page_on(bench)
    assert "SAM2 control" in page.text
    assert [attrs["aria-label"] for attrs in page.all("svg")] == ["Masks over J", "Masks over F"]
    assert len(page.all("article")) == 2
    assert len(page.all("img")) == 6  # three frames of each
    assert "scored by python -m tpo_core.metrics.score mevis" in page.text


@pytest.mark.parametrize("boxes", [None, {k: (10.0 + k, 5.0, 20.0 + k, 15.0) for k in range(4)}])
def test_a_track(tmp_path, boxes):
    folder = tmp_path / "lasot" / "bear" / "bear-4"
    folder.mkdir(parents=True)
    (folder / "groundtruth.txt").write_text("".join(f"{11 + k},6,10,10\n" for k in range(4)))
    for name in ("full_occlusion", "out_of_view"):
        (folder / f"{name}.txt").write_text("0,0,0,0")
    entry = entry_of("lasot", "track", "lasot", implementation="pytracking", split="all")
    bench = bench_of(tmp_path, entry, tmp_path / "lasot")
    bench.run(following(boxes))
    page = page_on(bench)
    assert [attrs["aria-label"] for attrs in page.all("svg")] == ["Success over IoU", "Precision over distance"]
    assert page.of("score")[0].startswith(f"iou {1 if boxes else 0:.2f} success_auc")
    assert page.of("failure") == ([] if boxes else ["no_prediction"])
    assert len(page.all("img")) == 4


def test_a_grounded_question(tmp_path):
    entry = entry_of("next_gqa", "grounded_choice", "nextgqa", prompt="best_option", truth="gsub_test.json")
    bench = bench_of(tmp_path, entry, FORMATS / "next_gqa")
    windows = ((1.2, 5.8, 0.9),)
    bench.run(Scripted(lambda shown: Record(shown.ask.key, "C) lay on floor", ("temporal",), windows=windows)))
    page = page_on(bench)
    assert "Recall at 1 over tIoU" in page.text
    assert "true answer" in page.text
    assert "prediction 1.2 to 5.8 s" in page.text
    assert "no such sample" not in page.text
