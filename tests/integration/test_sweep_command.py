"""A sweep as a user runs it, killed in the middle and gone on with, on a random base of a few thousand parameters.
Machines share nothing but S3."""

import os
import shutil
import signal
from dataclasses import asdict

import pytest
import yaml
from mlflow import MlflowClient

from tests.conftest import use_endpoint
from tests.integration.test_full_chain import ROOT, overrides, run, start
from tests.unit.models.conftest import base  # noqa: F401 (fixture)
from tpo_core.config.load import load_recipe
from tpo_core.storage import s3
from tpo_core.storage.uri import join, list_names, read_bytes, read_json
from tpo_core.tune.rounds import Book

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
def work(s3_endpoint):
    """Of all commands here."""
    with pytest.MonkeyPatch.context() as patch:
        use_endpoint(patch, s3_endpoint)
        s3.client().create_bucket(Bucket="sweeps")
        yield "s3://sweeps/work"


@pytest.fixture(scope="module")
def tracking(tmp_path_factory):
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


@pytest.fixture(scope="module")
def command(tmp_path_factory, base, work, tracking):  # noqa: F811
    """Arguments of every command here; the recipe is a copy, so that nobody edits it between two runs that must
    agree."""
    recipe = shutil.copy(ROOT / "pipelines" / "recipes" / "quickstart.yaml", tmp_path_factory.mktemp("sweep"))
    swept = [f"{key}={value}" for key, value in SWEEP.items()]
    return ["--recipe", str(recipe), *overrides(work, base), *swept, f"tracking.uri={tracking}"]


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
def swept(command, work):
    """What the command printed that went on, and the rounds that were there before."""
    killed = kill_at(command, f"  {RUNGS[0]}/{RUNGS[1]}  objective")
    assert f"  {RUNGS[0]}/{RUNGS[1]}  objective" in killed, killed
    (state,) = folders(join(work, "exchange", "sweep"))
    before = {name: Book(join(state, name)).all() for name in ("references", "rounds")}
    status, output = run("sweep_loss_weights.py", command)
    assert status == 0, output
    return output, before


def folders(uri):
    return [join(uri, name) for name in list_names(uri) if "." not in name]


@pytest.fixture
def found(swept, work):
    """What came of it."""
    (folder,) = folders(join(work, "sweep"))
    return read_json(join(folder, "sweep.json"))


def test_what_was_measured_before_the_kill_is_not_measured_again(swept, found):
    _, before = swept
    assert {one.trial for one in before["references"]} == {"base", "unit"}
    assert before["rounds"]
    assert found["references"] == {one.trial: asdict(one) for one in before["references"] if one.step in (0, RUNGS[-1])}
    assert found["early"] == [asdict(one) for one in before["references"] if one.step == RUNGS[0]]
    assert [asdict(one) for one in before["rounds"] if asdict(one) not in found["rounds"]] == []
    assert found["trials"] == 2
    steps = [(one["trial"], one["step"]) for one in found["rounds"]]
    assert len(steps) == len(set(steps))
    assert {one["step"] for one in found["rounds"]} == set(RUNGS)
    assert all(one["metrics"] and one["training_s"] > 0 for one in found["rounds"])


def test_the_winner_is_a_file_of_overrides_that_a_recipe_takes(swept, found, command, work, tmp_path):
    output, _ = swept
    best = tmp_path / "best_overrides.yaml"
    best.write_bytes(read_bytes(join(work, best.name)))
    recipe = load_recipe(command[1], [*command[2:], f"@{best}"])
    assert {name: recipe.stages["vision_task"].loss_weights[name] for name in found["weights"]} == found["weights"]
    (line,) = [line for line in output.splitlines() if f"full_tpo.py --recipe {command[1]}" in line]
    assert all(f"{key}={weight}" in line for key, weight in yaml.safe_load(best.read_text()).items())
    (folder,) = folders(join(work, "sweep"))
    assert all(read_bytes(join(folder, name)).startswith(b"\x89PNG") for name in ("parallel.png", "pareto.png"))
    assert "| winner |" in read_bytes(join(folder, "report.md")).decode()


def test_what_only_served_to_go_on_is_gone(swept):
    below = s3.client().list_objects_v2(Bucket="sweeps", Prefix="work/exchange/sweep").get("Contents", [])
    assert [each["Key"] for each in below if not each["Key"].endswith("/")] == []  # those are marks of folders


def test_it_tells_what_it_cost(found):
    assert set(found["worker_seconds_by_rung"]) == {str(rung) for rung in RUNGS}
    assert all(spent > 0 for spent in found["worker_seconds_by_rung"].values())
    assert 0 <= found["idle_share"] < 1
    assert 0 < found["start_up_share"] < 1


def test_every_trial_is_a_run_below_that_of_the_sweep(found, tracking):
    client = MlflowClient(tracking)
    runs = client.search_runs([client.get_experiment_by_name("tpo").experiment_id])
    (parent,) = [one for one in runs if "tpo_sweep" in one.data.tags]
    below = [one for one in runs if one.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    trials = {one.info.run_name.partition(":")[0]: one for one in below}
    assert set(trials) == {*found["values"], *found["references"]}
    for name, values in found["values"].items():
        assert trials[name].data.metrics["score"] == pytest.approx(values["score"])
        assert "weight/region" in trials[name].data.metrics
        assert "weight/region" in trials[name].data.tags
        assert "region " in trials[name].info.run_name
        assert "total" in trials[name].data.metrics, "rows of training are in the same run"
    assert {entry.path for entry in client.list_artifacts(parent.info.run_id, "sweep")} >= {
        "sweep/best_overrides.yaml", "sweep/pareto.png", "sweep/parallel.png",
    }  # fmt: skip
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["winner"] == found["winner"]
    assert f"The winner is `{found['winner']}`" in parent.data.tags["mlflow.note.content"]


@pytest.mark.usefixtures("swept")
def test_the_same_command_has_nothing_left_to_do(command):
    status, output = run("sweep_loss_weights.py", [*command, "--dry-run"])
    assert status == 0, output
    assert [line.split()[0] for line in output.splitlines() if " sweep " in line and "finished" in line] == ["SKIP"]


@pytest.mark.usefixtures("swept")
def test_a_sweep_that_is_larger_than_the_machine_is_refused(command):
    status, output = run("sweep_loss_weights.py", [*command, "sweep.seed=9", "sweep.concurrent_trials=400"])
    assert status == 2, output
    (line,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert "the sweep is larger than the cluster: 400 trials x 1 workers" in line
    assert "set sweep.concurrent_trials=" in line
