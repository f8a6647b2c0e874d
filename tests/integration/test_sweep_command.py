"""A sweep as a user runs it, killed in the middle and gone on with, on a random base of a few thousand parameters."""

import json
import os
import shutil
import signal

import pytest
import yaml
from mlflow import MlflowClient

from tests.integration.test_full_chain import ROOT, overrides, run, start
from tests.unit.models.conftest import base  # noqa: F401 (fixture)
from tpo_core.config.load import load_recipe

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SWEEP = {
    "sweep": "null",
    "stages.task_assignment": "null",  # so that the swept phase is the first one
    "stages.multitask": "null",
    "sweep.stage": "vision_task",
    "sweep.space": "{region: [0.5, 4.0], lm: [0.3, 1.2]}",
    "sweep.metrics": "[region/miou, moment/miou]",
    "sweep.trials": 2,
    "sweep.concurrent_trials": 2,
    "sweep.workers": 1,
    "sweep.torch_threads": 1,
    "sweep.first_rung_steps": 2,
    "sweep.reduction_factor": 2,
    "sweep.limit_per_task": 2,
    "stages.vision_task.phases.vision_task.steps": 4,
}
RUNGS = (2, 4)


@pytest.fixture(scope="module")
def arguments(tmp_path_factory, base):  # noqa: F811
    """Of every command here; the recipe is a copy, so that nobody edits it between two runs that must agree."""
    folder = tmp_path_factory.mktemp("sweep")
    recipe = shutil.copy(ROOT / "pipelines" / "recipes" / "quickstart.yaml", folder)
    swept = [f"{key}={value}" for key, value in SWEEP.items()]
    return folder / "work", ["--recipe", str(recipe), *overrides(folder / "work", base), *swept]


def kill_at(arguments, sign):
    """Starts the command and kills it, with all of its processes, at the first line that holds `sign`."""
    process, lines = start("sweep_loss_weights.py", arguments), []
    for line in process.stdout:
        lines.append(line)
        if sign in line:
            os.killpg(process.pid, signal.SIGKILL)
            break
    process.stdout.close()
    process.wait()
    return "".join(lines)


@pytest.fixture(scope="module")
def swept(arguments):
    """What the command printed that went on, and the rounds that were there before."""
    work, command = arguments
    killed = kill_at(command, f"  {RUNGS[0]}/{RUNGS[1]}  objective")
    assert f"  {RUNGS[0]}/{RUNGS[1]}  objective" in killed, killed
    before = {path: path.read_bytes() for path in work.glob("sweep/*.partial/r*/*/*.json")}
    status, output = run("sweep_loss_weights.py", command)
    assert status == 0, output
    return output, {path.relative_to(path.parents[2]): data for path, data in before.items()}


def result(work):
    (folder,) = [path for path in work.glob("sweep/*") if path.is_dir()]
    return folder, json.loads((folder / "sweep.json").read_text())


def test_what_was_measured_before_the_kill_is_not_measured_again(swept, arguments):
    _, before = swept
    folder, found = result(arguments[0])
    assert {path.parts[1] for path in before} >= {"base", "unit"}
    assert all(path.parts[0] in ("rounds", "references") for path in before)
    kept = {path: (folder / path).read_bytes() for path in before if (folder / path).exists()}
    assert kept == before
    assert found["trials"] == 2
    steps = [(one["trial"], one["step"]) for one in found["rounds"]]
    assert len(steps) == len(set(steps))
    assert set(found["references"]) == {"base", "unit"}


def test_the_winner_is_a_file_of_overrides_that_a_recipe_takes(swept, arguments):
    output, _ = swept
    work, command = arguments
    folder, found = result(work)
    best = yaml.safe_load((work / "best_overrides.yaml").read_text())
    assert best == {f"stages.vision_task.loss_weights.{name}": weight for name, weight in found["weights"].items()}
    recipe = load_recipe(command[1], [*command[2:], f"@{work / 'best_overrides.yaml'}"])
    assert {name: recipe.stages["vision_task"].loss_weights[name] for name in found["weights"]} == found["weights"]
    assert f"full_tpo.py --recipe {command[1]}" in output
    assert all((folder / name).read_bytes().startswith(b"\x89PNG") for name in ("parallel.png", "pareto.png"))
    assert "| winner |" in (folder / "report.md").read_text()


def test_it_tells_what_it_cost(swept, arguments):
    _, found = result(arguments[0])
    assert set(found["worker_seconds_by_rung"]) == {str(rung) for rung in RUNGS}
    assert all(spent > 0 for spent in found["worker_seconds_by_rung"].values())
    assert 0 <= found["idle_share"] < 1
    assert 0 < found["start_up_share"] < 1


def test_every_trial_is_a_run_below_that_of_the_sweep(swept, arguments):
    client = MlflowClient(f"sqlite:///{arguments[0]}/mlflow/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("tpo").experiment_id])
    (parent,) = [one for one in runs if "tpo_sweep" in one.data.tags]
    trials = {one.info.run_name: one for one in runs if one.data.tags.get("mlflow.parentRunId") == parent.info.run_id}
    _, found = result(arguments[0])
    assert set(trials) == {*found["values"], *found["references"]}
    for name, values in found["values"].items():
        assert trials[name].data.metrics["score"] == pytest.approx(values["score"])
        assert "weight/region" in trials[name].data.metrics
        assert "total" in trials[name].data.metrics, "rows of training are in the same run"
    assert {entry.path for entry in client.list_artifacts(parent.info.run_id, "sweep")} >= {
        "sweep/best_overrides.yaml", "sweep/pareto.png", "sweep/parallel.png",
    }  # fmt: skip
    assert parent.info.status == "FINISHED"


def test_the_same_command_has_nothing_left_to_do(swept, arguments):
    status, output = run("sweep_loss_weights.py", [*arguments[1], "--dry-run"])
    assert status == 0, output
    assert [line.split()[0] for line in output.splitlines() if " sweep " in line and "finished" in line] == ["SKIP"]


def test_a_sweep_that_is_larger_than_the_machine_is_refused(swept, arguments):
    status, output = run("sweep_loss_weights.py", [*arguments[1], "sweep.seed=9", "sweep.concurrent_trials=400"])
    assert status == 2, output
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "the sweep is larger than the cluster: 400 trials x 1 workers" in line
    assert "set sweep.concurrent_trials=" in line
