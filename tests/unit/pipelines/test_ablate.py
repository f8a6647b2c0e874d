"""The command: what it plans, tells and writes, with steps that compute nothing."""

import json
from dataclasses import replace

import pytest

from pipelines import ablate
from pipelines.ablation_progress import Planned, Progress
from pipelines.ablation_rows import ROWS
from tpo_core.config.load import load_recipe
from tpo_core.errors import TpoError
from tpo_core.execution.runner import run_steps

NAME = ["--recipe", "ablation_quickstart"]
METRICS = {"test/qa/accuracy": 0.5, "test/region/acc@0.5": 0.25, "test/activation/false": 0.0}


def fake(step, ran):
    """A step that leaves what the real one would, but for the files."""

    def fn(ctx):
        ran.append(step.name)
        if not step.name.startswith("evaluate"):
            return {}
        return {"metrics": METRICS, "baseline": {"test/qa/accuracy": 0.1}, "counts": {"test": {"qa": 4, "region": 4}}}

    return replace(step, fn=fn)


@pytest.fixture
def launch(tmp_path, monkeypatch, capsys):
    """Runs the command with fake steps and no Ray; gives the names of the steps that ran, and what was printed."""
    real = ablate.build_chain

    class NoRay:
        def __init__(self, recipe):
            pass

        def __enter__(self):
            pass

        def __exit__(self, *about):
            pass

    def run(*arguments):
        ran = []
        monkeypatch.setattr(ablate, "connect", NoRay)
        monkeypatch.setattr(ablate, "check_workers", lambda recipe, echo: None)
        monkeypatch.setattr(ablate, "check_phases", lambda recipe, shards: None)
        monkeypatch.setattr(ablate, "build_chain", lambda *about: [fake(step, ran) for step in real(*about)])
        more = [f"work_uri={tmp_path / 'work'}", "--output", str(tmp_path / "results.md")]
        assert ablate.main([*NAME, *arguments, *more]) == 0
        return ran, capsys.readouterr().out

    return run


def test_shared_steps_run_once_and_the_same_command_runs_nothing(launch, tmp_path):
    ran, out = launch("--rows", "base,R,TPO", "--seeds", "1,2")
    assert ran.count("render") == ran.count("preprocess") == ran.count("evaluate_base") == 1
    assert ran.count("task_assignment") == 2, "of each seed, for R and TPO"
    assert ran.count("vision_task") == ran.count("multitask") == ran.count("evaluate") == 4
    assert "register" not in ran
    assert "5 of 17 rows and seeds measured" in out
    text = (tmp_path / "results.md").read_text()
    assert "| R | 2 | 50.0 \u00b1 0.0 | 25.0 \u00b1 0.0 |" in text
    again, out = launch("--rows", "base,R,TPO", "--seeds", "1,2")
    assert again == []
    assert out.count("SKIP") == 3 + 4 * 6


def test_more_rows_and_seeds_add_to_the_table(launch, tmp_path):
    launch("--rows", "R", "--seeds", "1")
    ran, _ = launch("--rows", "R,text", "--seeds", "1,2")
    assert ran.count("vision_task") == 3
    assert ran.count("render") == 0
    numbers = json.loads((tmp_path / "results.json").read_text())
    assert sorted((one["row"], one["seed"]) for one in numbers) == [("R", 1), ("R", 2), ("text", 1), ("text", 2)]
    assert all(one["metrics"] == METRICS for one in numbers)
    assert numbers[0]["machine"].endswith("cores")


def test_each_line_says_whose_it_is_and_the_table_where_it_stands(launch):
    _, out = launch("--rows", "base,R", "--seeds", "7")
    lines = out.splitlines()
    assert any(line.startswith("R seed 7              RUN     vision_task") for line in lines)
    told = [line for line in lines if line.startswith("table  ")]
    assert [line.split()[2] for line in told] == [f"{number}/7" for number in range(1, 8)]


def test_a_dry_run_shows_changes_and_steps_and_touches_nothing(launch, tmp_path):
    ran, out = launch("--rows", "base,M,TPO", "--seeds", "1", "--dry-run")
    assert ran == []
    assert list(tmp_path.iterdir()) == []
    steps = {name: stage.phases[0].steps for name, stage in load_recipe(NAME[1]).stages.items()}
    told = ", ".join(f"{count} of {name}" for name, count in steps.items())
    assert out.startswith(f"{sum(steps.values())} optimizer steps a row: {told}\n")
    assert "  stages.vision_task.heads=[mask]\n" in out
    lines = out.splitlines()
    assert any(line.startswith("M seed 1") and line.endswith("multitask RUN, evaluate RUN") for line in lines)
    assert any(line.startswith("TPO seed 1") and "task_assignment shared, vision_task RUN" in line for line in lines)
    assert lines[-1].startswith("10 steps to run: ")


def test_seeds_run_one_after_the_other_and_the_base_first():
    found = [(row.name, seed) for row, seed in ablate.pairs([3, 1])]
    assert found[0] == ("base", 3)
    assert [seed for _, seed in found[1:]] == [3] * (len(ROWS) - 1) + [1] * (len(ROWS) - 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "TPX"], r"no row 'TPX'; did you mean 'TPO'\?"),
        (["--seeds", "1,x"], r"--seeds 1,x: give different whole numbers"),
        (["--seeds", "1,1"], r"--seeds 1,1: give different whole numbers"),
        (["evaluation.limit=3"], r"unknown key 'limit' in evaluation"),
        (["data.root=/none/here"], r"source 'refcoco-train': there is no /none/here/train"),
    ],
)
def test_a_mistake_is_told_before_a_cluster_is_touched(arguments, message, launch):
    with pytest.raises(TpoError, match=message):
        launch(*arguments)


def test_help_teaches_rows_and_what_the_recipe_decides(capsys):
    with pytest.raises(SystemExit) as ended:
        ablate.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for words in ("conversation (conversation only)", "TPO (T+R+M+conversation (TPO))", "null takes an entry out",
                  "same number of optimizer steps", "exit status: 0 done"):  # fmt: skip
        assert words in text


def test_the_estimate_is_of_other_seeds_of_the_row_or_else_of_other_rows():
    steps = [
        Planned("a", "R", "train", True, 100.0),
        Planned("b", "M", "train", False, None),
        Planned("c", "R", "train", False, None),
        Planned("a", "T", "train", True, 100.0),
        Planned("d", "R", "evaluate", False, None),
    ]
    progress = Progress(steps, clock=lambda: 0.0)
    assert progress.before("b") == "[##........] 2/4  0:00 so far, more than 3:20 to go"
    progress.finished("b", 60.0)
    assert progress.before("c") == "[#####.....] 3/4  0:00 so far, more than 1:40 to go", "R took 100, M 60"
    progress.finished("c", 120.0)
    progress.finished("d", 5.0)
    assert progress.within("d") == "[#######...] 4/4  0:00 so far"


def test_what_is_left_unfinished_is_resumed_and_not_timed(launch, tmp_path):
    launch("--rows", "base", "--seeds", "1")
    runs = [ablate.plan(ablate.parse([*NAME, f"work_uri={tmp_path / 'work'}"]), ROWS[0], 1, print)]
    there = run_steps(runs[0].steps, str(tmp_path / "work"), dry_run=True, echo=lambda line: None)
    assert ablate.took_s(there["render"]) is not None
    resumed = replace(there["render"], provenance=there["render"].provenance | {"resumed": True})
    assert ablate.took_s(resumed) is None
    assert ablate.took_s(None) is None
