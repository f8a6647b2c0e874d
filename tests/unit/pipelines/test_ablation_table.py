"""The written results: means and spreads, claims by seed, notes that stay."""

import json
from dataclasses import replace

import pytest

from pipelines.ablation_claims import CLAIMS, Claim, gains, spread, verdict
from pipelines.ablation_rows import ROWS
from pipelines.ablation_table import COLUMNS, MARKER, Result, Setting, by_row, document, table, write_results

SETTING = Setting(
    command="python pipelines/ablate.py --recipe ablation_quickstart",
    recipe="ablation_quickstart",
    base="assets/quickstart_base",
    equal="steps",
    steps={"task_assignment": 60, "vision_task": 260},
    requests={"qa": 400, "region": 200},
    parts=["test", "unseen"],
)
CONSTANT = {"test/region/acc@0.5": 0.02, "test/qa/accuracy": 0.27}


def result(row, seed, *, part="test", seconds=100.0, **numbers):
    names = {"qa": "qa/accuracy", "region": "region/acc@0.5", "mask": "mask/j", "false": "activation/false"}
    metrics = {f"{part}/{names[name]}": value for name, value in numbers.items()}
    return Result(row, seed, metrics, seconds, "Some CPU, 2 cores", "0123456789ab")


RESULTS = [
    result("base", 1, qa=0.9, region=0.0, false=0.0, seconds=50),
    result("R", 1, qa=0.5, region=0.60, false=0.5),
    result("R", 2, qa=0.6, region=0.70, false=0.5, seconds=140),
    result("TPO", 1, qa=0.91, region=0.80, mask=0.5, false=0.0),
    result("TPO", 2, qa=0.88, region=0.82, mask=0.6, false=0.0),
]


def cells(lines, label):
    line = next(line for line in lines if line.startswith(f"| {label} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_cell_is_mean_and_spread_over_seeds_in_percent():
    lines = table(RESULTS, "test", CONSTANT)
    assert cells(lines, "row")[:4] == ["row", "seeds", "QA", "region Acc@0.5"]
    assert cells(lines, "R")[:4] == ["R", "2", "55.0 \u00b1 7.1", "65.0 \u00b1 7.1"]
    assert cells(lines, "T+R+M+conversation (TPO)")[5] == "55.0 \u00b1 7.1"
    assert cells(lines, "best constant answer")[:4] == ["best constant answer", "-", "27.0", "2.0"]


def test_a_row_measured_once_has_no_spread_and_what_it_was_not_taught_is_a_dash():
    base = cells(table(RESULTS, "test", CONSTANT), "base")
    assert base == ["base", "1", "90.0", "-", "-", "-", "-", "0.0"]
    assert cells(table(RESULTS, "test", CONSTANT), "R")[5] == "-"


def test_rows_that_were_not_measured_are_not_there():
    lines = table(RESULTS, "test", CONSTANT)
    assert not any(line.startswith("| M |") for line in lines)


QA = Claim("", "qa/accuracy", "TPO", "R", None)


def test_a_claim_is_judged_seed_by_seed():
    measured = by_row(RESULTS, "test")
    assert gains(QA, measured) == pytest.approx([0.41, 0.28])
    assert verdict(gains(QA, measured)) == "holds (2 of 2 seeds)"
    assert verdict([-0.1, -0.2]) == "does not hold (0 of 2 seeds)"
    assert verdict([0.1, 0.0, 0.2]) == "open (2 of 3 seeds)"
    assert verdict([]) == "not measured"


def test_the_base_which_has_no_seed_is_compared_with_each():
    against = Claim("", "qa/accuracy", "TPO", "base", None)
    assert gains(against, by_row(RESULTS, "test")) == pytest.approx([0.01, -0.02])


def test_only_seeds_that_both_rows_have_are_compared():
    fewer = [one for one in RESULTS if (one.row, one.seed) != ("R", 2)]
    assert gains(QA, by_row(fewer, "test")) == pytest.approx([0.41])
    assert gains(Claim("", "mask/j", "TPO", "M", None), by_row(fewer, "test")) == []


def test_the_spread_is_that_of_a_sample():
    assert spread([0.5, 0.6]) == pytest.approx(0.0707, abs=1e-4)
    assert spread([0.5]) is None


def test_claims_name_rows_and_numbers_that_there_are():
    names = {row.name for row in ROWS}
    assert {claim.better for claim in CLAIMS} | {claim.worse for claim in CLAIMS} <= names
    assert {claim.metric for claim in CLAIMS} <= set(COLUMNS.values())


def test_the_document_says_how_it_was_measured_and_what_holds():
    text = document(SETTING, RESULTS, CONSTANT)
    assert "the same number of optimizer steps (60 of task_assignment, 260 of vision_task)" in " ".join(text.split())
    other = document(replace(SETTING, equal="samples"), RESULTS, CONSTANT)
    assert "sees in its steps (60 of task_assignment, 260 of vision_task): a row with" in " ".join(other.split())
    assert SETTING.command in text
    assert "60 of task_assignment, 260 of vision_task" in text
    assert "400 qa, 200 region" in text
    assert "Some CPU, 2 cores" in text
    assert "base 0:50, R 2:00, T+R+M+conversation (TPO) 1:40" in text
    assert text.index("## Part `test`") < text.index("## Part `unseen`") < text.index("## The paper's claims")
    line = next(line for line in text.splitlines() if line.startswith("| TPO talks better than its base |"))
    assert "| -0.5 \u00b1 2.1 | open (1 of 2 seeds) |" in line
    heads = next(line for line in text.splitlines() if line.startswith("| claim |"))
    assert heads.count("verdict") == len(SETTING.parts) == 2, "unseen combinations are judged too"


def test_notes_below_the_marker_stay_and_numbers_above_are_new(tmp_path):
    path = tmp_path / "docs" / "results.md"
    write_results(path, SETTING, RESULTS[:3], CONSTANT)
    assert path.read_text().endswith(f"{MARKER}\n\n## Notes\n")
    path.write_text(path.read_text() + "\nWhat we make of it.\n")
    write_results(path, SETTING, RESULTS, CONSTANT)
    text = path.read_text()
    assert text.endswith("## Notes\n\nWhat we make of it.\n")
    assert text.count(MARKER) == 1
    assert "(TPO) | 2 |" in text
    numbers = json.loads((tmp_path / "docs" / "results.json").read_text())
    assert [Result(**one) for one in numbers] == list(RESULTS)
    again = text
    write_results(path, SETTING, RESULTS, CONSTANT)
    assert path.read_text() == again
