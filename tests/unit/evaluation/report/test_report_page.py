import base64
import re

import pytest

from tests.unit.evaluation.report.made_results import Page, make_entry, make_footage, make_row
from tpo_core.evaluation.report.page import render

ATTACK = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'>{{ 7 * 7 }}&amp;"
URI = re.compile(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)")


def rows(count, task="region", **more):
    return [make_row(number, task, scores={"iou": number / count}, **more) for number in range(count)]


def page(*entries, footage_of=None, title="Mine"):
    return Page(render(title, entries, footage_of))


def test_the_page_is_well_formed_and_leads_from_the_table_to_each_entry():
    found = page(
        make_entry(rows(20)),
        make_entry(rows(20, "track", truth=[[0, 0, 5, 5]], prediction=None), name="lasot", title="LaSOT"),
        footage_of=lambda entry, sample_id: make_footage(sample_id.split("/")[-1].split("-")[0]),
    )
    assert found.tags[0][0] == "html"
    assert found.all("meta")[0] == {"charset": "utf-8"}
    targets = [attrs["href"] for attrs in found.all("a")]
    ids = [attrs["id"] for _, attrs in found.tags if "id" in attrs]
    assert targets == [f"#{name}" for name in ids] == ["#entry-1", "#entry-2"]
    assert len(ids) == len(set(ids))
    assert found.of("question").count("Where is the ball?") == 18


def test_nothing_runs_and_nothing_is_fetched():
    text = render("Mine", [make_entry(rows(9))], lambda entry, sample_id: make_footage())
    found = Page(text)
    names = {tag for tag, _ in found.tags}
    assert names & {"script", "iframe", "object", "embed", "link", "form"} == set()
    assert all(attrs["src"].startswith("data:image/jpeg;base64,") for attrs in found.all("img"))
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")
    policy = next(attrs["content"] for attrs in found.all("meta") if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


@pytest.mark.parametrize("place", ["request", "answer", "truth", "sample_id", "failure", "score", "task"])
def test_text_of_a_row_stays_text(place):
    change = {"scores": {ATTACK: 0.5}} if place == "score" else {place: ATTACK}
    found = page(make_entry([make_row(0, **{"task": "qa", **change})]))
    assert {tag for tag, _ in found.tags} & {"script", "img"} == set()
    assert not any(name.startswith("on") for _, attrs in found.tags for name in attrs)
    assert "49" not in found.text
    if place != "task":
        assert ATTACK in found.text


@pytest.mark.parametrize("place", ["title", "metric", "name", "model", "digest", "command"])
def test_text_of_an_entry_stays_text(place):
    found = page(make_entry(rows(2), **{place: ATTACK}), title=ATTACK)
    assert {tag for tag, _ in found.tags} & {"script", "img"} == set()
    assert ATTACK in found.text


def test_names_of_metrics_references_and_reasons_stay_text():
    entry = make_entry(rows(2), metrics={ATTACK: 1.0}, references={f"{ATTACK}!": {ATTACK: 2.0}}, rejected={ATTACK: 3})
    found = page(entry)
    assert {tag for tag, _ in found.tags} & {"script", "img"} == set()
    assert found.text.count(ATTACK) >= 3


def test_text_of_any_language_is_kept_and_what_no_file_can_hold_is_replaced():
    words = "\u041a\u043e\u0433\u0434\u0430? \u4ec0\u4e48\u65f6\u5019 \u05de\u05ea\u05d9 \U0001f600"
    found = page(make_entry([make_row(0, "qa", request=words, answer="a\x00b\ud83d")]))
    assert words in found.text
    assert "a\ufffdb\ufffd" in found.text
    assert {"dir": "auto", "class": "question"} in [dict(attrs) for attrs in found.all("p")]


def test_very_long_answers_do_not_swell_the_page():
    text = render("Mine", [make_entry([make_row(n, "qa", answer="x" * 1_000_000) for n in range(9)])], None)
    assert len(text) < 60_000
    assert "(999,400 more characters)" in text


def test_a_gallery_has_nine_cards_and_pictures_of_bounded_size():
    text = render("Mine", [make_entry(rows(50))], lambda entry, sample_id: make_footage(noise=True))
    found = Page(text)
    assert [heading.lower() for heading in re.findall(r"<h3>(.*?)</h3>", text)] == ["best", "median", "worst"]
    assert len(found.all("article")) == 9
    pictures = [base64.b64decode(data) for data in URI.findall(text)]
    assert len(pictures) == 9
    assert max(map(len, pictures)) < 100_000
    assert found.of("score")[0] == "iou 0.98"
    assert found.of("score")[-1] == "iou 0.00"


def test_an_entry_without_a_sample_has_a_line_and_no_more():
    found = page(make_entry([], metrics={"ACC@0.5": float("nan")}))
    assert "n/a" in found.text
    assert "0/0" in found.text
    assert found.all("article") == found.all("svg") == []


def test_a_page_without_an_entry_says_so():
    assert "Nothing was evaluated." in page().text


def test_published_numbers_are_shown_beside_ours_and_missing_ones_are_dashes():
    found = page(
        make_entry(rows(2), metrics={"ACC": 0.75}, references={"VideoChat-TPO": {"ACC": 0.859}}),
        make_entry(rows(2), name="b", metrics={"ACC": 0.5}),
    )
    assert found.of("n ours") == ["0.750", "0.500"]
    assert found.of("n diff") == ["diff", "\u22120.109", ""]


def test_curves_lie_inside_their_plot_and_have_a_legend():
    found = page(make_entry([*rows(9), *(make_row(n, sample_id=f"other/{n}") for n in range(3))]))
    lines = found.all("polyline")
    assert [attrs["class"] for attrs in lines] == ["c2", "c1", "c0"]
    for attrs in lines:
        pairs = [tuple(map(float, pair.split(","))) for pair in attrs["points"].split()]
        assert len(pairs) == 20
        assert all(0 <= x <= 300 and 0 <= y <= 170 for x, y in pairs)
    assert found.of("name") == ["all", "tiny", "other"]
    assert "n = 12" in found.text
    assert "Accuracy over IoU share of samples" in found.text


def test_scores_without_a_threshold_are_bars_that_stay_in_their_place():
    many = [make_row(n, "choice", sample_id=f"d{n}/x", scores={"x": score}) for n, score in enumerate((-1.0, 0.5, 7.0))]
    found = page(make_entry(many))
    widths = [attrs["style"] for tag, attrs in found.tags if tag == "i" and attrs.get("style")]
    assert widths == ["width:100.0%", "width:0.0%", "width:50.0%", "width:100.0%"]
    assert "Score by data set" in found.text


def test_failures_are_listed_by_reason_with_their_share_and_meaning():
    bad = [make_row(n, scores={}, failure="missed_activation") for n in range(3)]
    found = page(make_entry([*bad, make_row(9)], asked=10, rejected={"missing": 5, "missed_activation": 1}))
    (bars,) = [attrs["style"] for tag, attrs in found.tags if attrs.get("class") == "failed"][:1]
    assert bars == "width:50.0%"
    assert "missing truths without a prediction 5 50.0 %" in found.text
    assert "missed_activation requests whose answer does not call the right head 3 30.0 %" in found.text


def test_all_numbers_can_be_unfolded_where_the_table_shows_some():
    many = {f"m{number}": 1.0 for number in range(30)}
    found = page(make_entry(rows(2), metrics=many, command="python -m tpo_core.metrics.score refcoco"))
    assert "all 30 numbers" in found.text
    assert "scored by python -m tpo_core.metrics.score refcoco" in found.text
    assert page(make_entry(rows(2))).all("details") == []


def test_notes_and_the_mark_of_a_part_are_on_the_page():
    found = page(make_entry(rows(2), whole=False, notes=("Printed <too>.",)))
    assert "Printed <too>." in found.text
    assert "2/2 *" in found.text
    assert "* of a part of the data set" in found.text
    assert "of a part" not in page(make_entry(rows(2))).text


def test_what_entries_share_is_told_once():
    assert page(make_entry(), make_entry(name="b")).text.count("mine") == 1
    assert page(make_entry(), make_entry(name="b", model="other")).text.count("mine") == 1


def test_moments_are_bars_on_a_time_line():
    row = make_row(0, "moment", truth=[[2.0, 4.0]], prediction=[1.0, 2.0])
    found = page(make_entry([row]), footage_of=lambda entry, sample_id: make_footage("moment"))
    bars = [(attrs["class"], attrs["style"]) for attrs in found.all("i") if "left" in (attrs.get("style") or "")]
    assert bars == [("truth", "left:25.0%;width:25.0%"), ("prediction", "left:12.5%;width:12.5%")]
    assert "8.0 s" in found.text
