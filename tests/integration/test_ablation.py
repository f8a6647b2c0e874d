"""Two rows of the ablation table as a user runs them, on a random base of a few thousand parameters.

What is asked is that rows share what they can, that the row without heads is read from its text, and that the table is
written; two steps teach nothing.
"""

import json
import shutil

import pytest

from tests.integration.job_head import head, submit
from tests.integration.test_full_chain import ROOT, overrides, run
from tests.unit.models.conftest import base  # noqa: F401 (fixture)

pytestmark = [pytest.mark.ray, pytest.mark.slow]

STAGES = ("task_assignment", "vision_task", "multitask")


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, base):  # noqa: F811
    """Of every command here; the recipe is a copy, so that nobody edits it between two runs that must agree."""
    folder = tmp_path_factory.mktemp("ablation")
    recipe = shutil.copy(ROOT / "pipelines" / "recipes" / "ablation_quickstart.yaml", folder)
    steps = [f"stages.{stage}.phases.{stage}.steps=2" for stage in STAGES]
    rows = ["--rows", "text,TPO", "--seeds", "5", "--output", str(folder / "results.md")]
    return folder, ["--recipe", str(recipe), *overrides(folder / "work", base), *steps, *rows]


@pytest.fixture(scope="module")
def first(arguments):
    status, output = run("ablate.py", arguments[1])
    assert status == 0, output
    return output


def told(output, verb):
    """(row, step) of the lines of a verb."""
    lines = [line.split() for line in output.splitlines() if line.startswith(("text seed 5 ", "TPO seed 5 "))]
    return [(words[0], words[4]) for words in lines if words[3] == verb]


def test_rows_share_the_data_and_train_on_their_own(first, arguments):
    assert told(first, "DONE") == [
        *(("text", step) for step in ("render", "preprocess", *STAGES, "evaluate")),
        *(("TPO", step) for step in (*STAGES, "evaluate")),
    ]
    assert told(first, "SKIP") == [("TPO", "render"), ("TPO", "preprocess")]
    assert "2 of 9 rows and seeds measured" in first
    assert "table                 [#########.] 10/10" in first


def test_the_models_of_the_rows_are_what_the_rows_say(first, arguments):
    folder, _ = arguments
    saved = [json.loads(path.read_text()) for path in folder.glob("work/multitask/*/model/tpo.json")]
    assert sorted((settings["heads"], settings["model"]["heads"]) for settings in saved) == [
        ([], []),
        (["region", "temporal", "mask"], ["region", "temporal", "mask"]),
    ]
    assert [s["model"]["coordinates"] for s in saved if not s["heads"]] == ["text"]


def test_the_table_and_its_numbers_are_written(first, arguments):
    folder, _ = arguments
    text = (folder / "results.md").read_text()
    assert "2 of task_assignment, 2 of vision_task, 2 of multitask" in text
    for label in ("task data as text", "T+R+M+conversation (TPO)", "best constant answer"):
        assert text.count(f"| {label} |") == 2, "in both parts"
    numbers = json.loads((folder / "results.json").read_text())
    assert sorted(one["row"] for one in numbers) == ["TPO", "text"]
    assert all("test/region/acc@0.5" in one["metrics"] and one["seconds"] > 0 for one in numbers)


def test_the_same_command_trains_nothing(first, arguments):
    status, output = run("ablate.py", arguments[1])
    assert status == 0, output
    assert told(output, "DONE") == []
    assert len(told(output, "SKIP")) == 12


def test_it_goes_on_as_a_job_on_a_cluster(first, arguments, tmp_path):
    folder, words = arguments
    lost = max(folder.glob("work/evaluate/*/artifact.json"), key=lambda path: path.stat().st_mtime).parent  # of TPO
    shutil.rmtree(lost)
    with head(tmp_path / "ray.log") as address:
        status, output = submit(address, ["pipelines/ablate.py", *words])
    assert status == 0, output
    assert "2 of 9 rows and seeds measured" in output
    assert len(told(output, "DONE")) == 1
    assert len(told(output, "SKIP")) == 11
    assert (lost / "artifact.json").is_file()
