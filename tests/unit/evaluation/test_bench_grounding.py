"""Moments, boxes, tracks and masks go into the native files of their benchmarks and get the right numbers."""

import json
import pickle
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.unit.evaluation.benches import FORMATS, Scripted, bench_of, entry_of
from tpo_core.data import rle
from tpo_core.data.shards import ShardSet
from tpo_core.errors import TpoError
from tpo_core.evaluation.bench import NO_CONTROL
from tpo_core.evaluation.native.moments import saliency_of
from tpo_core.evaluation.record import Record
from tpo_core.evaluation.report.footage import of_sets
from tpo_core.evaluation.report.write import write_report
from tpo_core.evaluation.work import PART
from tpo_core.metrics.score import main
from tpo_core.storage import uri as uris

NAN = float("nan")

HALVES = {"first": np.zeros((30, 40), bool), "second": np.zeros((30, 40), bool)}
HALVES["first"][:, :20] = True
HALVES["second"][:, 20:] = True


def rescored(result, capsys):
    assert main([*shlex.split(result["command"])[3:], "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def charades(root: Path, count: int = 2) -> Path:
    root.mkdir()
    lines = [f"V{k} 2.0 {6.0 + k}##person {k} sits." for k in range(count)]
    (root / "charades_sta_test.txt").write_text("\n".join(lines))
    return root


def moment(*windows):
    return Scripted(lambda shown: Record(shown.ask.key, "In <time_begin><temp>.", ("temporal",), windows=windows))


def test_moments_are_scored_by_the_code_of_cgdetr(tmp_path, capsys):
    options = {"durations": "decoder"}
    entry = entry_of("charades_sta", "moment", "charades_sta", options=options, truth="charades_sta_test.txt")
    bench = bench_of(tmp_path, entry, charades(tmp_path / "c"))
    result = bench.run(moment((2.0, 6.0, 0.8), (0.0, 30.0, 0.1)))
    assert result["metrics"]["brief/MR-full-R1@0.7"] == 100.0
    assert result["metrics"]["brief/MR-full-mIoU"] == 90.0
    assert rescored(result, capsys)["result"]["brief"]["MR-full-mIoU"] == 90.0
    assert result["activation"] == {"false": None, "missed": 0.0}
    assert [row["scores"]["iou"] for row in bench.rows()] == [pytest.approx(1.0), pytest.approx(0.8)]
    assert bench.rows()[1]["truth"] == [[2.0, 7.0]]
    limited = bench.run(moment((2.0, 6.0, 0.8)), limit=1)
    assert (limited["asked"], limited["metrics"]["brief/MR-full-mIoU"]) == (1, 100.0)


def test_a_model_without_heads_misses_every_moment(tmp_path):
    entry = entry_of("charades_sta", "moment", "charades_sta", options={"durations": "decoder"})
    bench = bench_of(tmp_path, entry, charades(tmp_path / "c"))
    result = bench.run(Scripted(lambda shown: Record(shown.ask.key, "At noon.")))
    assert result["metrics"]["brief/MR-full-R1@0.3"] == 0.0
    assert (result["scored"], result["rejected"]) == (2, {"empty": 2})
    assert result["activation"]["missed"] == 1.0
    assert {row["failure"] for row in bench.rows()} == {"missed_activation"}


def test_qvhighlights_windows(tmp_path, capsys):
    entry = entry_of("qvhighlights", "moment", "qvhighlights", implementation="cgdetr", split="train")
    bench = bench_of(tmp_path, entry, FORMATS / "qvhighlights")
    spans = [target.span_s for target in bench_samples(bench)[0].targets if target.span_s is not None]
    result = bench.run(moment(*((start, end, 0.5) for start, end in spans)))
    assert result["metrics"]["brief/MR-full-R1@0.7"] == 100.0
    assert result["metrics"]["brief/MR-full-mAP"] == 100.0
    assert rescored(result, capsys)["result"]["brief"]["MR-full-mAP"] == 100.0


@pytest.mark.parametrize("truth", [None, "highlight_train_release.jsonl"])
def test_qvhighlights_saliency(tmp_path, capsys, truth):
    """Clips of one second. Of two seconds the fifth is said to be best, then the first: VeryGood for the second, and
    for the first of three annotators; so precision is 1, 1/2 and 0."""
    entry = entry_of("qvhighlights", "moment", "qvhighlights", implementation="cgdetr", split="train", truth=truth)
    bench = bench_of(tmp_path, entry, FORMATS / "qvhighlights")
    said = {0: 3.0, 1: 4.0, 8: 9.0, 9: 0.0}
    clips = tuple((float(second), second + 1.0, said.get(second, -1.0)) for second in range(126))
    result = bench.run(saying(clips))
    assert result["metrics"]["brief/HL-min-VeryGood-Hit1"] == 100.0
    assert result["metrics"]["brief/HL-min-VeryGood-mAP"] == 50.0
    assert rescored(result, capsys)["result"]["brief"]["HL-min-VeryGood-Hit1"] == 100.0
    other = saying(tuple((start, end, -score) for start, end, score in clips), name="the other way round")
    worst = bench.run(other)
    assert worst["metrics"]["brief/HL-min-VeryGood-Hit1"] == 0.0


def test_a_head_that_scores_no_clips_has_no_numbers_of_highlights(tmp_path):
    entry = entry_of("qvhighlights", "moment", "qvhighlights", implementation="cgdetr", split="train")
    result = bench_of(tmp_path, entry, FORMATS / "qvhighlights").run(saying(None))
    assert result["metrics"]["brief/MR-full-mAP"] == 0.0
    assert not [name for name in result["metrics"] if "HL-" in name]


def test_a_head_that_tells_highlights_and_is_never_called_has_none_right(tmp_path):
    entry = entry_of("qvhighlights", "moment", "qvhighlights", implementation="cgdetr", split="train")
    missed = Scripted(lambda asked: Record(asked.ask.key, "No.", clips=()))
    metrics = bench_of(tmp_path, entry, FORMATS / "qvhighlights").run(missed)["metrics"]
    assert metrics["brief/HL-min-VeryGood-mAP"] == metrics["brief/HL-min-VeryGood-Hit1"] == 0.0


def saying(clips, name="scripted"):
    """One moment at the end, and saliency."""
    said = {"windows": ((120.0, 126.0, 0.5),), "clips": clips}
    return Scripted(lambda asked: Record(asked.ask.key, "<time_begin>", ("temporal",), **said), name)


@pytest.mark.parametrize(
    ("clips", "duration_s", "expected"),
    [
        (((0.0, 1.0, 2.0), (1.0, 2.0, 4.0), (2.0, 3.0, 6.0), (3.0, 4.0, 6.0)), 4.0, [3.0, 6.0]),
        (((0.0, 3.0, 1.0), (3.0, 6.0, 4.0)), 6.0, [1.0, 2.5, 4.0]),
        (((0.0, 2.0, 1.0), (2.0, 4.0, 5.0)), 9.9, [1.0, 5.0, 5.0, 5.0]),
        (((0.0, 8.0, 1.5),), 5.0, [1.5, 1.5]),
        (((0.0, 0.5, 1.5),), 0.5, [1.5]),
        (((0.0, 2.5, 1.0), (2.5, 5.0, 2.0)), None, [1.0, 1.75]),
    ],
)
def test_saliency_counts_in_clips_of_two_seconds(clips, duration_s, expected):
    assert saliency_of(clips, duration_s) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("window", "reason", "shown"),
    [((6.0, 2.0, 0.9), "reversed", [6.0, 2.0]), ((NAN, 6.0, 0.9), "not_finite", [None, 6.0])],
)
def test_a_moment_that_is_none_is_rejected_and_keeps_its_place(tmp_path, capsys, window, reason, shown):
    """The right moment behind it is second, and no hit."""
    entry = entry_of("charades_sta", "moment", "charades_sta", options={"durations": "decoder"})
    bench = bench_of(tmp_path, entry, charades(tmp_path / "c"))
    result = bench.run(moment(window, (2.0, 6.0, 0.8)))
    assert (result["scored"], result["rejected"]) == (2, {reason: 2})
    assert result["metrics"]["brief/MR-full-R1@0.3"] == 0.0
    assert rescored(result, capsys)["result"]["brief"]["MR-full-R1@0.3"] == 0.0
    row = bench.rows()[0]
    assert (row["prediction"], row["scores"]["iou"], row["failure"]) == (shown, 0.0, None)
    reported(bench)


@pytest.mark.parametrize(
    ("box", "reason", "shown"),
    [
        ((30.0, 5.0, 10.0, 15.0), "reversed", [30.0, 5.0, 10.0, 15.0]),
        ((10.0, 5.0, NAN, 15.0), "not_finite", [10.0, 5.0, None, 15.0]),
        ((10.0, 5.0, 10.0, 15.0), "zero_length", [10.0, 5.0, 10.0, 15.0]),
    ],
)
def test_a_box_that_is_none_is_rejected_for_what_it_is(tmp_path, box, reason, shown):
    entry = entry_of("refcoco", "region", "refcoco", split="val", options={"masks": "no"}, root="refcoco")
    bench = bench_of(tmp_path, entry, refcoco_root(tmp_path))
    result = bench.run(Scripted(lambda asked: Record(asked.ask.key, "<box_begin>", ("region",), box=box)))
    assert (result["metrics"]["ACC@0.5"], result["rejected"]) == (0.0, {reason: 3})
    row = bench.rows()[0]
    assert (row["prediction"], row["scores"]["iou"], row["failure"]) == (shown, 0.0, None)
    reported(bench)


def test_a_grounding_that_is_none_is_rejected(tmp_path):
    entry = entry_of("next_gqa", "grounded_choice", "nextgqa", prompt="best_option", truth="gsub_test.json")
    bench = bench_of(tmp_path, entry, FORMATS / "next_gqa")
    result = bench.run(Scripted(lambda asked: Record(asked.ask.key, "C) lay", windows=((NAN, 5.0, 0.9),))))
    assert (result["metrics"]["mIoP"], result["rejected"]) == (0.0, {"not_finite": 1})
    assert bench.rows()[0]["prediction"]["span_s"] == [None, 5.0]
    reported(bench)


def reported(bench):
    """The page of an evaluation draws what was said."""
    footage_of = of_sets({bench.entry.name: bench.place.shards}, PART)
    page = write_report(Path(bench.place.output).parent, footage_of).page
    assert "<img" in Path(page).read_text()


def bench_samples(bench):
    return list(ShardSet.open(bench.place.shards).samples("test"))


def test_boxes_of_phrases(tmp_path, capsys):
    entry = entry_of("refcoco", "region", "refcoco", split="val", options={"masks": "no"}, root="refcoco")
    bench = bench_of(tmp_path, entry, refcoco_root(tmp_path))
    samples = bench_samples(bench)
    boxes = {sample.sample_id: sample.targets[0].box for sample in samples}

    def say(shown):
        right = shown.ask.key == samples[0].sample_id
        return Record(shown.ask.key, "<box_begin>", ("region",), box=boxes[shown.ask.key] if right else (0, 0, 1, 1))

    result = bench.run(Scripted(say))
    assert result["metrics"]["ACC@0.5"] == pytest.approx(1 / len(samples))
    assert rescored(result, capsys)["n"] == len(samples)
    nothing = bench.run(Scripted(lambda shown: Record(shown.ask.key, "Here.", ("region",)), name="other"))
    assert nothing["metrics"]["ACC@0.5"] == 0.0
    assert {row["failure"] for row in bench.rows()} == {"no_prediction"}


def refcoco_root(tmp_path: Path) -> Path:
    folder = tmp_path / "coco" / "refcoco"
    folder.mkdir(parents=True)
    sentences = [{"sent_id": 20 + k, "sent": f"lady {k}", "raw": "", "tokens": []} for k in range(3)]
    ref = {"ref_id": 7, "ann_id": 1, "image_id": 5, "split": "val", "sentences": sentences, "sent_ids": []}
    (folder / "refs(unc).p").write_bytes(pickle.dumps([ref], 2))
    image = {"id": 5, "file_name": "i.jpg", "width": 40, "height": 30}
    note = {"id": 1, "image_id": 5, "bbox": [10.0, 5.0, 20.0, 10.0], "category_id": 1}
    (folder / "instances.json").write_text(json.dumps({"images": [image], "annotations": [note]}))
    return tmp_path / "coco"


@pytest.fixture
def lasot(tmp_path):
    """Four frames; the object is hidden on the third one."""
    folder = tmp_path / "lasot" / "bear" / "bear-4"
    folder.mkdir(parents=True)
    (folder / "groundtruth.txt").write_text("".join(f"{11 + k},6,10,10\n" for k in range(4)))
    (folder / "full_occlusion.txt").write_text("0,0,1,0")
    (folder / "out_of_view.txt").write_text("0,0,0,0")
    return tmp_path / "lasot"


def following(boxes):
    return Scripted(lambda shown: Record(shown.ask.key, "<track_begin>", ("mask",), boxes=boxes))


def test_tracks_go_back_to_the_origin_of_lasot(tmp_path, lasot, capsys):
    entry = entry_of("lasot", "track", "lasot", implementation="pytracking", split="all", truth=".")
    bench = bench_of(tmp_path, entry, lasot)
    perfect = {k: (10.0 + k, 5.0, 20.0 + k, 15.0) for k in range(4)}
    official = bench.run(following(perfect))
    assert official["metrics"]["OP50"] == 75.0  # the hidden frame counts and nothing is right on it
    assert rescored(official, capsys)["result"]["AUC"] == official["metrics"]["AUC"]
    first = Path(bench.place.output, "native/predictions/bear-4.txt").read_text().splitlines()[0]
    assert first == "11.0,6.0,10.0,10.0"
    own = bench.sparse.run(following(perfect))  # against the truth that was written from the samples
    assert own["metrics"] == official["metrics"]
    (row,) = bench.rows()
    assert row["truth"][2] is None
    assert row["scores"]["iou"] == pytest.approx(1.0)


def test_frames_that_were_not_looked_at_have_the_box_of_the_nearest_one(tmp_path, lasot):
    entry = entry_of("lasot", "track", "lasot", implementation="pytracking", split="all")
    bench = bench_of(tmp_path, entry, lasot, stored=2)
    bench.run(following({0: (10.0, 5.0, 20.0, 15.0), 3: None}))
    lines = Path(bench.place.output, "native/predictions/bear-4.txt").read_text().splitlines()
    assert lines == ["11.0,6.0,10.0,10.0"] * 2 + ["0,0,0,0"] * 2
    assert len(bench.rows()[0]["prediction"]) == 2  # of the stored frames


def test_got10k_from_truth_that_was_written_again(tmp_path, capsys):
    folder = tmp_path / "got" / "val" / "G1"
    folder.mkdir(parents=True)
    (tmp_path / "got/val/list.txt").write_text("G1\n")
    (folder / "groundtruth.txt").write_text("".join(f"{11 + k}.0000,6.0000,10.0000,10.0000\n" for k in range(4)))
    (folder / "cover.label").write_text("8\n8\n0\n4\n")
    (folder / "absence.label").write_text("0\n0\n1\n0\n")
    (folder / "meta_info.ini").write_text("[METAINFO]\nresolution: (40, 30)\nanno_fps: 10Hz\n")
    entry = entry_of("got10k", "track", "got10k", split="val", truth="val")
    bench = bench_of(tmp_path, entry, tmp_path / "got")
    boxes = {0: (10.0, 5.0, 20.0, 15.0), 1: (11.0, 5.0, 21.0, 15.0), 2: None, 3: (33.0, 5.0, 43.0, 15.0)}
    official = bench.run(following(boxes))
    assert official["metrics"]["sr_0.5"] == 0.5  # of the two visible frames after the first
    numbers = {name: value for name, value in official["metrics"].items() if name != "speed_fps"}
    own = bench.sparse.run(following(boxes))
    assert {name: value for name, value in own["metrics"].items() if name != "speed_fps"} == numbers
    assert rescored(own, capsys)["result"]["ao"] == own["metrics"]["ao"]


def mevis(root: Path) -> Path:
    """Two expressions on one video of three frames; the second object is absent on the last."""
    folder = root / "valid_u"
    folder.mkdir(parents=True)
    coded = {name: rle.encode(mask) for name, mask in HALVES.items()}
    plain = {name: {"size": [30, 40], "counts": each.counts.decode()} for name, each in coded.items()}
    expressions = {str(k): {"exp": f"thing {k}", "obj_id": [k], "anno_id": [k]} for k in range(2)}
    frames = ["00000", "00001", "00002"]
    (folder / "meta_expressions.json").write_text(
        json.dumps({"videos": {"v": {"expressions": expressions, "frames": frames}}})
    )
    masks = {"0": [plain["first"]] * 3, "1": [plain["second"]] * 2 + [None]}
    (folder / "mask_dict.json").write_text(json.dumps(masks))
    return root


def painted(by_expression):
    def say(shown):
        name = by_expression[shown.example.sample.provenance.native_id]
        found = {frame: name and rle.encode(HALVES[name]) for frame in range(3)}
        return Record(shown.ask.key, "<track_begin>", ("mask",), masks=found)

    return Scripted(say)


def test_masks_of_mevis(tmp_path, capsys):
    entry = entry_of("mevis", "mask", "mevis", split="valid_u", truth="valid_u")
    bench = bench_of(tmp_path, entry, mevis(tmp_path / "m"))
    result = bench.run(painted({"v-0": "first", "v-1": "second"}))
    assert result["metrics"]["J"] == pytest.approx((1 + 2 / 3) / 2)
    assert rescored(result, capsys)["result"] == result["metrics"]
    own = bench.sparse.run(painted({"v-0": "first", "v-1": "second"}))
    assert own["metrics"] == result["metrics"]
    first = bench.rows()[0]
    assert first["scores"]["j"] == 1.0
    assert first["prediction"][0] == {"size": [30, 40], "counts": rle.encode(HALVES["first"]).counts.decode()}


def test_masks_of_ref_youtube_vos_from_truth_that_was_written_again(tmp_path, capsys):
    entry = entry_of("ref_youtube_vos", "mask", "ref_youtube_vos", implementation="mevis_rule", split="train")
    bench = bench_of(tmp_path, entry, FORMATS / "ref_youtube_vos")
    truths = {sample.sample_id: sample for sample in bench_samples(bench)}

    def say(shown):
        track = truths[shown.ask.key].targets[0].track
        return Record(shown.ask.key, "<track_begin>", ("mask",), masks={entry.frame: entry.rle for entry in track})

    result = bench.run(Scripted(say))
    assert result["metrics"] == {"J": 1.0, "F": 1.0, "J&F": 1.0}
    assert result["scored"] == len(truths)
    png = next(Path(bench.place.output).rglob("native/truth/Annotations/*/*.png"))
    with Image.open(png) as image:
        assert image.mode == "P"


def test_plain_sam2_is_scored_beside_the_model(tmp_path):
    entry = entry_of("mevis", "mask", "mevis", split="valid_u", control=True)
    bench = bench_of(tmp_path, entry, mevis(tmp_path / "m"))
    model, control = painted({"v-0": None, "v-1": None}), painted({"v-0": "first", "v-1": "second"})
    control.name = "plain SAM2"
    result = bench.run(model, control)
    assert result["metrics"]["J"] == pytest.approx(1 / 6)  # nothing is right on the frame without the object
    assert result["control"]["J"] == pytest.approx((1 + 2 / 3) / 2)
    assert bench.run(model)["control"] is None


def test_a_control_that_fails_leaves_the_numbers_of_the_model(tmp_path):
    entry = entry_of("mevis", "mask", "mevis", split="valid_u", control=True)
    bench = bench_of(tmp_path, entry, mevis(tmp_path / "m"))
    control = Scripted(lambda asked: Record(asked.ask.key, failure="not_asked: no box"), name="plain SAM2")
    with pytest.raises(TpoError, match="none of 2 requests could be asked"):
        bench.run(painted({"v-0": "first", "v-1": "second"}), control)
    result = uris.read_json(f"{bench.place.output}/result.json")
    assert (result["metrics"]["J"], result["control"]) == (pytest.approx((1 + 2 / 3) / 2), None)
    assert result["notes"] == [NO_CONTROL]
    assert len(bench.rows()) == 2
    mended = painted({"v-0": "first", "v-1": "second"})
    assert bench.run(painted({}), mended)["notes"] == []


def test_everything_may_lie_in_a_bucket(tmp_path, bucket):
    entry = entry_of("charades_sta", "moment", "charades_sta", options={"durations": "decoder"})
    bench = bench_of(tmp_path, entry, charades(tmp_path / "c"))
    there = replace(bench, place=replace(bench.place, output=f"{bucket}/eval/charades"))
    model = moment((2.0, 6.0, 0.8))
    result = there.run(model)
    assert uris.read_json(f"{bucket}/eval/charades/result.json")["metrics"] == result["metrics"]
    assert uris.exists(f"{bucket}/eval/charades/native/predictions.jsonl")
    there.run(model)
    assert len(model.asked) == 2
