import math

import pytest

from tests.unit.evaluation.report.made_results import make_entry
from tpo_core.evaluation.report.table import flat_numbers, headlines, labels_of, lines_of, markdown, percent, shown

TPO, CONTROL = "VideoChat-TPO", "SAM2 control"


def line(labels=(TPO,), **more):
    (found,) = lines_of(make_entry(**more), list(labels))
    return found


def test_a_difference_is_ours_minus_theirs_with_the_decimals_of_the_line():
    found = line(metrics={"AUC": 66.81}, references={TPO: {"AUC": 69.4}, CONTROL: {"AUC": 66.0}}, labels=(TPO, CONTROL))
    assert found.value == "66.8"
    assert [(one.value, one.difference) for one in found.compared] == [("69.4", "-2.6"), ("66.0", "+0.8")]
    share = line(metrics={"ACC": 0.7504}, references={TPO: {"ACC": 0.75}})
    assert (share.value, share.compared[0].difference) == ("0.750", "0.000")


def test_what_was_not_published_has_no_difference():
    found = line(metrics={"AUC": 66.8}, references={TPO: {}}, labels=(TPO, CONTROL))
    assert [(one.value, one.difference) for one in found.compared] == [("-", ""), ("-", "")]
    assert not found.has_reference


def test_what_was_not_measured_is_shown_with_the_published_number():
    found = line(metrics={}, references={TPO: {"HIT@1": 65.4}})
    assert (found.metric, found.value, found.compared[0].value, found.compared[0].difference) == (
        "HIT@1", "-", "65.4", "",
    )  # fmt: skip


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (math.nan, "n/a"), (math.inf, "n/a"), (0.12345, "0.123")])
def test_a_number_that_is_none_is_told(value, text):
    assert shown(value, 3) == text
    assert percent(value) == ("12.3 %" if text == "0.123" else text)


def test_a_nan_has_no_difference_and_does_not_set_the_decimals():
    found = line(metrics={"ACC": math.nan}, references={TPO: {"ACC": 0.5}})
    assert (found.value, found.compared[0].value, found.compared[0].difference) == ("n/a", "0.500", "")


def test_the_table_over_all_shows_what_can_be_compared():
    many = {f"m{number}": 1.0 for number in range(30)}
    lines = lines_of(make_entry(metrics=many, references={TPO: {"m7": 2.0}}), [TPO])
    assert len(lines) == 30
    assert [one.metric for one in headlines(lines)] == ["m7"]
    alone = lines_of(make_entry(metrics=many), [])
    assert [one.metric for one in headlines(alone)] == [f"m{number}" for number in range(7)]
    published = lines_of(make_entry(metrics=many, references={TPO: {"m29": 1.0} | many}), [TPO])
    assert [one.metric for one in headlines(published)] == ["m29", *(f"m{number}" for number in range(6))]
    other = lines_of(make_entry(metrics={"R1": 50.0}, references={TPO: {"HIT@1": 65.4}}), [TPO])
    assert [one.metric for one in headlines(other)] == ["R1", "HIT@1"]


def test_an_entry_without_a_number_keeps_its_line():
    assert [one.value for one in lines_of(make_entry(metrics={}), [])] == ["-"]


def test_references_come_in_the_order_of_the_entries():
    entries = [make_entry(references={"b": {"x": 1.0}}), make_entry(references={"a": {"x": 1.0}, "b": {"x": 1.0}})]
    assert labels_of(entries) == ["b", "a"]


def cells(text):
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in text.splitlines() if row[:1] == "|"]


def test_markdown_is_a_table_with_a_column_for_each_reference():
    entries = [
        make_entry(
            metrics={"ACC": 0.5, "mIoU": 0.4}, references={TPO: {"ACC": 0.7, "mIoU": 0.6}}, asked=1200, scored=1100,
            activation={"missed": 0.25}, rejected={"missing": 100, "reversed": 3},
        ),
        make_entry(title="SEED", metrics={"all": 0.1}),
    ]  # fmt: skip
    text = markdown("Mine", entries)
    head, rule, *rows = cells(text)
    assert head[:5] == ["benchmark", "metric", "this model", TPO, "diff"]
    assert rule[1:3] == ["---", "---:"]
    assert rows[0] == ["RefCOCO val", "ACC", "0.500", "0.700", "-0.200", "1,100/1,200", "-", "25.0 %"]
    assert rows[1][:2] == ["", "mIoU"]
    assert {len(row) for row in (head, rule, *rows)} == {8}
    assert "- RefCOCO val: 100 missing, 3 reversed" in text


def test_a_part_of_a_data_set_is_marked_and_notes_stand_below():
    text = markdown("Mine", [make_entry(asked=3, scored=2, whole=False, notes=("1 of <them> is lost.",))])
    assert cells(text)[2][3] == "2/3 \\*"
    assert "\n\\* of a part of the data set (--limit, where)" in text
    assert r"RefCOCO val: 1 of \<them\> is lost." in text
    assert "part of the data set" not in markdown("Mine", [make_entry()])


def test_text_from_data_cannot_break_the_table():
    text = markdown("a\nb", [make_entry(title="x|y <script>\n# z", metrics={"`m`[1](u)": 1.0})])
    assert "<script>" not in text.replace("\\<", "")
    assert text.splitlines()[0] == "# a b"
    assert len(text.splitlines()) == 5
    assert r"x\|y \<script\> \# z" in text
    assert r"\`m\`\[1\](u)" in text


def test_numbers_for_a_tracker_are_flat_and_finite():
    entries = [
        make_entry(name="lasot", metrics={"AUC": 66.8, "x": math.nan}, activation={"missed": 0.1}, asked=3, scored=2)
    ]
    assert flat_numbers(entries) == {
        "lasot/AUC": 66.8, "lasot/activation/missed": 0.1, "lasot/asked": 3.0, "lasot/scored": 2.0,
    }  # fmt: skip
