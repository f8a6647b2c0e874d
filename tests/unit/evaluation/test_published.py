"""The published numbers of the suite of the paper: each stands under a name that its metric gives, and is the printed
one."""

from pathlib import Path

import pytest

from pipelines.suites import headline_names
from tests.unit.evaluation.benches import FORMATS, Scripted, bench_of, entry_of
from tpo_core.evaluation.native.files import write_lines, write_value
from tpo_core.evaluation.record import Record
from tpo_core.evaluation.suite import load_suite
from tpo_core.metrics.registry import score
from tpo_core.metrics.report import flat
from tpo_core.metrics.scorers import mvbench

GOLDEN = FORMATS.parents[1]
ENTRIES = load_suite("tpo_paper").entries

# As arXiv 2412.19326 v2 prints them: VideoChat2, VideoChat-TPO. Shares are in percent there.
R1 = ("brief/MR-full-R1@0.3", "brief/MR-full-R1@0.5", "brief/MR-full-R1@0.7", "brief/MR-full-mIoU")
LENGTHS = ("entire dataset/Overall", "short/Overall", "medium/Overall", "long/Overall")
PRINTED = {
    "mvbench": (
        ("Avg", *mvbench.TASKS),
        (60.4, 75.5, 58.0, 83.5, 50.5, 60.5, 87.5, 74.5, 45.0, 47.5, 44.0, 82.5, 37.0, 64.5, 87.5, 51.0, 66.5, 47.0,
         35.0, 37.0, 72.5),
        (66.8, 84.0, 69.5, 87.5, 52.0, 77.0, 92.0, 81.0, 40.5, 42.5, 55.0, 89.0, 47.5, 68.0, 89.0, 58.0, 87.0, 57.5,
         27.0, 60.0, 72.0),
    ),
    "video_mme": (LENGTHS, (39.5, 48.3, 37.0, 33.2), (48.8, 58.8, 46.7, 41.0)),
    "video_mme_subtitles": (LENGTHS, (43.8, 52.8, 39.4, 39.2), (53.8, 64.9, 50.0, 46.4)),
    "mlvu": (("Avg",), (44.5,), (54.7,)),
    "next_gqa": (
        ("Acc@GQA", "mIoP", "TIoP@0.3", "TIoP@0.5", "mIoU", "TIoU@0.3", "TIoU@0.5"),
        (),
        (25.5, 35.6, 47.5, 32.8, 27.7, 41.2, 23.4),
    ),
    "seed_bench": (("seed_all",), (26.5,), (67.3,)),
    "charades_sta": (R1, (38.0, 14.3, 3.8, 24.6), (58.3, 40.2, 18.4, 38.1)),
    "qvhighlights": (("brief/HL-min-VeryGood-mAP", "brief/HL-min-VeryGood-Hit1"), (), (38.6, 65.4)),
    "refcoco_val": (("ACC@0.5",), (), (85.9,)),
    "refcoco_testa": (("ACC@0.5",), (), (90.8,)),
    "refcoco_testb": (("ACC@0.5",), (), (81.3,)),
    "lasot": (("AUC", "NormPrecision", "Precision"), (), (69.4, 80.1, 76.9)),
    "got10k": (("ao", "sr_0.5", "sr_0.75"), (), (70.6, 79.8, 66.0)),
    "ref_youtube_vos": (("J&F", "J", "F"), (), (63.9, 52.3, 75.4)),
    "mevis": (("J&F", "J", "F"), (), (47.0, 42.6, 51.3)),
}  # fmt: skip
SHARES = ("seed_bench", "refcoco", "got10k", "ref_youtube_vos", "mevis")  # metrics
# What is printed beside them and measured by no entry.
NOTED = {
    "next_gqa": ["77.7"],
    "seed_bench": ["27.6", "70.0"],
    "charades_sta": ["77.0", "65.0", "40.7", "55.0"],
    "refcoco_val": ["82.0"],
}


def test_published_numbers_are_the_printed_ones():
    found = {entry.name: entry.published for entry in ENTRIES if entry.published is not None}
    metrics = {entry.name: entry.metric for entry in ENTRIES}
    assert found.keys() == PRINTED.keys()
    for name, (names, before, after) in PRINTED.items():
        scale = 100 if metrics[name] in SHARES else 1
        for numbers, printed in ((found[name].videochat2, before), (found[name].videochat_tpo, after)):
            expected = dict(zip(names, printed, strict=True)) if printed else {}
            assert {key: scale * value for key, value in numbers.items()} == pytest.approx(expected), name


def test_printed_numbers_that_nothing_measures_are_noted():
    notes = {entry.name: entry.published.note for entry in ENTRIES if entry.published and entry.published.note}
    assert notes.keys() == NOTED.keys()
    for name, numbers in NOTED.items():
        assert [number for number in numbers if number not in notes[name]] == []


def of_mvbench(folder: Path):
    for task in mvbench.NAMES:
        write_value(folder / "json" / f"{task}.json", [{"question": "q", "candidates": ["x", "y"], "answer": "x"}])
    return folder, write_lines(folder / "p.jsonl", [{"id": f"{task}-0", "reply": "A) x"} for task in mvbench.NAMES]), {}


def of_video_mme(folder: Path):
    about = {"domain": "d", "sub_category": "s", "task_type": "t", "answer": "A"}
    lengths = ("short", "medium", "long")
    truth = write_value(folder / "t.json", [{"question_id": name, "duration": name, **about} for name in lengths])
    return truth, write_lines(folder / "p.jsonl", [{"question_id": name, "response": "A"} for name in lengths]), {}


def of_mlvu(folder: Path):
    rows = [{"question": "q", "candidates": ["x", "y"], "answer": "x", "question_type": "count"}]
    write_value(folder / "4_count.json", rows)
    return folder, write_value(folder / "p.json", {"res_list": [{"pred": "A) x"}]}), {}


def of_seed_bench(folder: Path):
    row = {"question_id": 1, "question_type_id": 1, "answer": "A", "data_type": "Single Image"}
    truth = write_value(folder / "t.json", {"questions": [row]})
    return truth, write_lines(folder / "p.jsonl", [{"question_id": 1, "prediction": "A"}]), {}


def of_refcoco(folder: Path):
    truth = write_lines(folder / "t.jsonl", [{"id": 1, "width": 8, "height": 8, "gt_xywh": [1, 1, 4, 4]}])
    return truth, write_lines(folder / "p.jsonl", [{"id": 1, "pred_xyxy": [1, 1, 5, 5]}]), {}


def of_next_gqa(folder: Path):
    place = GOLDEN / "nextgqa/input"
    return place / "gsub.json", place / "pred_ground.json", {"qa": place / "pred_qa.json"}


def golden(truth: str, predictions: str):
    return lambda folder: (GOLDEN / truth, GOLDEN / predictions, {})


def of_ref_youtube_vos(folder: Path):
    """Its truth as a benchmark leaves it."""
    entry = entry_of("ref_youtube_vos", "mask", "ref_youtube_vos", implementation="mevis_rule", split="train")
    bench = bench_of(folder, entry, FORMATS / "ref_youtube_vos")
    bench.run(Scripted(lambda shown: Record(shown.ask.key, "<track_begin>", ("mask",))))
    native = Path(bench.place.output, "native")
    return native / "truth", native / "predictions", {"split": "valid"}


FILES = {
    "mvbench": of_mvbench,
    "video_mme": of_video_mme,
    "mlvu": of_mlvu,
    "nextgqa": of_next_gqa,
    "seed_bench": of_seed_bench,
    "charades_sta": golden("charades_sta/input/gt_tvr.jsonl", "charades_sta/input/pred_tvr.jsonl"),
    "qvhighlights": golden("qvhighlights/input/main/gt.jsonl", "qvhighlights/input/main/pred.jsonl"),
    "refcoco": of_refcoco,
    "lasot": golden("lasot/input/LaSOT", "lasot/input/results/Exact"),
    "got10k": golden("got10k/input/data", "got10k/input/results/GOT-10k/Exact"),
    "ref_youtube_vos": of_ref_youtube_vos,
    "mevis": golden("mevis_jf/input", "mevis_jf/input/pred"),
}


@pytest.mark.parametrize("metric", sorted({entry.metric for entry in ENTRIES}))
def test_names_of_published_and_headline_numbers_are_those_of_the_metric(tmp_path, metric):
    truth, predictions, options = FILES[metric](tmp_path)
    for entry in (entry for entry in ENTRIES if entry.metric == metric):
        measured = flat(score(metric, truth, predictions, entry.implementation, **options).result)
        published = [] if entry.published is None else [*entry.published.videochat2, *entry.published.videochat_tpo]
        assert [name for name in (*published, *entry.headline) if name not in measured] == [], entry.name


def test_published_highlights_are_among_the_numbers_that_are_printed():
    (entry,) = (entry for entry in ENTRIES if entry.name == "qvhighlights")
    truth, predictions, options = FILES["qvhighlights"](Path())
    result = {"metrics": flat(score("qvhighlights", truth, predictions, "cgdetr", **options).result)}
    assert set(entry.published.videochat_tpo) <= set(headline_names(entry, result))
