"""Flickr30k Entities: any box or the merged one, categories, and predictions that are not as they should be."""

import json

import pytest

from tpo_core.errors import TpoError
from tpo_core.metrics.registry import score

LEFT, RIGHT, HULL = [0, 0, 10, 10], [90, 0, 100, 10], [0, 0, 100, 10]


@pytest.fixture
def run(tmp_path):
    """One image: two men with a box each, a cup with one; the scene has none."""
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "Sentences").mkdir()
    objects = [("1", LEFT), ("1", RIGHT), ("2", [40, 40, 60, 60])]
    tags = ("xmin", "ymin", "xmax", "ymax")
    drawn = "".join(
        f"<object><name>{name}</name><bndbox>"
        + "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, box, strict=True))
        + "</bndbox></object>"
        for name, box in objects
    )
    scene = "<object><name>3</name><scene>1</scene><nobndbox>0</nobndbox></object>"
    (tmp_path / "Annotations" / "7.xml").write_text(f"<annotation>{drawn}{scene}</annotation>")
    (tmp_path / "Sentences" / "7.txt").write_text(
        "[/EN#1/people/other Two men] with [/EN#2/other a cup] in [/EN#3/scene a room] .\nNobody .\n"
    )
    (tmp_path / "test.txt").write_text("7\n")

    def run(rows, implementation="any_box", **options):
        (tmp_path / "pred.json").write_text(json.dumps(rows))
        return score("flickr30k", tmp_path, tmp_path / "pred.json", implementation, **options)

    return run


def sentence(*lists, number=0):
    return {"image_id": 7, "sentence_id": number, "boxes": list(lists)}


def counts(report):
    return {reason: entry["count"] for reason, entry in report.rejected.items()}


def test_any_box_or_the_merged_one(run):
    rows = [sentence([LEFT], [[0, 0, 1, 1], [40, 40, 60, 60]])]
    assert run(rows).result["1"] == {"all": 0.5, "people": 1.0, "other": 0.5}
    assert run(rows).result["5"] == {"all": 1.0, "people": 1.0, "other": 1.0}
    assert run(rows, "merged_box").result["1"]["people"] == 0.0
    assert run([sentence([HULL], [LEFT])], "merged_box").result["1"]["people"] == 1.0
    assert run(rows).N == 2


def test_all_boxes_are_rank_minus_one(run):
    rows = [sentence([LEFT], [[0, 0, 1, 1]] * 11 + [[40, 40, 60, 60]])]
    assert run(rows).result["10"]["all"] == 0.5
    assert run(rows).result["-1"]["all"] == 1.0


@pytest.mark.parametrize(
    ("rows", "told", "right"),
    [
        ([], {"missing": 1}, 0.0),
        ([sentence([LEFT])], {"malformed": 1}, 0.0),
        ([sentence([LEFT], [])], {"empty": 1}, 0.5),
        ([sentence([LEFT], [[1, 2, 3]])], {"malformed": 1}, 0.5),
        ([sentence([LEFT], [[float("nan"), 40, 60, 60]])], {"not_finite": 1}, 0.5),
        ([sentence([LEFT], [[60, 60, 40, 40], [40, 40, 60, 60]])], {"reversed": 1}, 0.5),
        ([sentence([LEFT], [HULL]), sentence([HULL], [HULL])], {"duplicate": 1}, 0.5),
        ([sentence([LEFT], [HULL]), sentence([LEFT], number=1)], {"unknown": 1}, 0.5),
        ([sentence([LEFT], [HULL]), sentence(number=1)], {}, 0.5),
    ],
)
def test_what_is_rejected_is_a_miss_that_is_told(run, rows, told, right):
    report = run(rows)
    assert counts(report) == told
    assert report.result["1"]["all"] == right
    assert (report.n, report.N) == (2, 2)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "7_0: nothing for 2 phrases"),
        ([sentence([LEFT])], "1 lists of boxes for 2 phrases"),
        ([sentence([LEFT], [])], "no list of boxes"),
    ],
)
def test_strictly_official_what_makes_the_code_stop_is_told(run, rows, message):
    with pytest.raises(TpoError, match=message):
        run(rows, strict_official=True)


def test_strictly_official_a_nan_hides_the_boxes_after_it(run):
    rows = [sentence([LEFT], [[40, 40, 60, 60], [float("nan"), 40, 60, 60]])]
    assert run(rows, strict_official=True).result["1"]["other"] == 1.0
    assert run(rows, strict_official=True).result["5"]["other"] == 0.5
    assert run(rows).result["5"]["other"] == 1.0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("Annotations/7.xml", "<annotation>", "not XML"),
        ("Annotations/7.xml", "<a><object><name>1</name><bndbox/></object></a>", "without a whole number xmin"),
        ("Sentences/7.txt", "[oops a cup] .", "without /EN#CHAIN"),
        ("pred.json", "{}", "not a list of predictions"),
    ],
)
def test_files_that_cannot_be_read(run, tmp_path, name, content, message):
    run([])
    (tmp_path / name).write_text(content)
    with pytest.raises(TpoError, match=message):
        score("flickr30k", tmp_path, tmp_path / "pred.json")
