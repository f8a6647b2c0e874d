"""Two ways of searching through the command line, whose sweeps were run by nobody."""

from contextlib import nullcontext
from dataclasses import replace

import pytest

from pipelines import compare_sweeps
from pipelines.compare_sweeps import main, plans_of
from pipelines.sweep_loss_weights import plan_of
from tests.unit.tune.made_sweep import made, measured, outcome
from tpo_core.config.load import load_recipe
from tpo_core.errors import TpoError
from tpo_core.execution.steps import fingerprints


def finished(score, trials):
    """A sweep of so many trials, all of which got this."""
    return outcome(rounds=[made(f"t{number}", 40, measured(score, 0.25, 0.9)) for number in range(trials)])


def test_the_second_begins_what_the_same_steps_pay_for():
    first, other = plans_of("quickstart", [], seed=5)
    assert (first.recipe.sweep.search, first.recipe.sweep.scheduler, first.recipe.sweep.trials) == (
        "random",
        "none",
        12,
    )
    assert (other.recipe.sweep.search, other.recipe.sweep.scheduler, other.recipe.sweep.trials) == ("tpe", "asha", 27)
    assert first.rungs == other.rungs == [30, 120]


def test_the_two_draw_apart_and_are_not_told_the_weights_of_the_recipe():
    pairs = [plans_of("quickstart", [], seed) for seed in (1, 2)]
    assert len({plan.recipe.sweep.seed for pair in pairs for plan in pair}) == 4
    assert [plan.config.baselines for pair in pairs for plan in pair] == [[]] * 4, "nor are balancers compared"
    told = plan_of(load_recipe("quickstart", ["sweep.baselines=[]"]))
    assert told.first() is not None
    assert [plan.first() for pair in pairs for plan in pair] == [None] * 4
    prints = {fingerprints(plan.steps("/work"))["sweep"] for plan in (told, replace(told, tries_own=False))}
    assert len(prints) == 2, "one that was told is no other's result"


def test_a_row_a_seed(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(compare_sweeps, "connect", lambda recipe: nullcontext())
    monkeypatch.setattr(
        compare_sweeps,
        "outcome_of",
        lambda plan, work: finished(0.5, 3) if plan.recipe.sweep.search == "random" else finished(0.6, 4),
    )
    command = ["--recipe", "quickstart", f"work_uri={tmp_path / 'work'}", "--seeds", "4,9"]
    assert main([*command, "--output", str(tmp_path / "table.md")]) == 0
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines == capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["4", "9"]
    assert "| 90 |" in lines[2]
    assert lines[2].endswith("| 1.100 | 30 (33 % of 90) |")
    assert (tmp_path / "table.png").read_bytes().startswith(b"\x89PNG")


def test_a_recipe_without_a_sweep_is_told_before_a_cluster_is_touched():
    with pytest.raises(TpoError, match=r"has no section sweep"):
        main(["--recipe", "ablation_quickstart"])


def test_a_table_that_the_picture_would_overwrite_is_refused(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--recipe", "quickstart", "--output", "table.png"])
    assert ended.value.code == 2
    assert "table.png: the table is text" in capsys.readouterr().err
