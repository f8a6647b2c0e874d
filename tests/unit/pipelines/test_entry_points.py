"""What the scripts have in common: they find the platform wherever they are started from, and their --help teaches."""

import ast
import re
from pathlib import Path

import pytest

from pipelines import evaluate, full_tpo, promote, train_stage
from pipelines.chain import build_chain
from pipelines.full_tpo import run_chain
from tpo_core.config.load import load_recipe
from tpo_core.errors import TpoError
from tpo_core.tracking.publish import Publisher

PIPELINES = Path(__file__).resolve().parents[3] / "pipelines"
SCRIPTS = [path for path in sorted(PIPELINES.glob("*.py")) if '__name__ == "__main__"' in path.read_text()]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_the_path_is_set_before_the_platform_is_imported(script):
    """A script's own folder is on the path, the one above is not."""
    body = ast.parse(script.read_text()).body
    ours = [
        node.lineno
        for node in body
        if isinstance(node, ast.ImportFrom) and str(node.module).partition(".")[0] in ("tpo_core", "pipelines")
    ]
    paths = [node.lineno for node in body if ast.unparse(node).startswith("sys.path.insert(0, ")]
    assert paths, f"python pipelines/{script.name} cannot import tpo_core"
    assert paths[0] < min(ours)


MIXED = ["--recipe", "quikstart", "seed=1", "--shards", "s", "train.workers=2", "--output", "o"]


@pytest.mark.parametrize(
    ("main", "more"),
    [(evaluate.main, ["--model", "m"]), (train_stage.main, ["--stage", "multitask", "seed=2", "--init", "i"])],
    ids=["evaluate", "train_stage"],
)
def test_changes_of_the_recipe_may_stand_among_options(main, more):
    with pytest.raises(TpoError, match=r"^no recipe 'quikstart'"):  # so they were parsed; main_guard prints the line
        main([*MIXED, *more])


def chain(argv):
    return run_chain(argv, doc=full_tpo.__doc__)


@pytest.mark.parametrize(
    ("main", "teaches"),
    [
        (chain, ["steps: render, preprocess, evaluate_base, task_assignment, vision_task, multitask, evaluate, reg"]),
        (chain, ["--from-step STEP", "null takes an entry out", "exit status: 0 done"]),
        (train_stage.main, ["OUTPUT/history.jsonl", "null takes an entry out", "exit status: 0 done"]),
        (evaluate.main, ["OUTPUT/PART/metrics.json", "null takes an entry out", "exit status: 0 done"]),
        (promote.main, ["PART/TASK/NAME", "null takes an entry out", "exit status: 0 done"]),
    ],
)
def test_help_teaches_what_the_reader_needs(main, teaches, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    assert [words for words in teaches if words not in text] == []


def test_help_names_recipes_that_are_there():
    names = re.findall(r"--recipe ([a-z]\w+)(?![\w.])", "".join(script.read_text() for script in SCRIPTS))
    assert names
    assert [name for name in names if not (PIPELINES / "recipes" / f"{name}.yaml").is_file()] == []


def test_the_steps_that_help_names_are_those_of_the_chain():
    recipe = load_recipe("quickstart")
    names = ", ".join(step.name for step in build_chain(recipe, Publisher(recipe, "/nowhere"), print))
    assert full_tpo.EPILOG.startswith(f"steps: {names};")


def test_a_folder_of_another_run_is_not_taken_for_this_one(tmp_path):
    claim, output = train_stage.claim, tmp_path / "out"
    claim(output, {"seed": 1, "init": "base"}, restart=False)
    claim(output, {"seed": 1, "init": "base"}, restart=False)
    with pytest.raises(TpoError, match=r"holds another run \(seed 1 -> 2\): give another"):
        claim(output, {"seed": 2, "init": "base"}, restart=False)
    claim(output, {"seed": 2, "init": "base"}, restart=True)
    claim(output, {"seed": 2, "init": "base"}, restart=False)
