"""Mistakes about a sweep, through its command line, and what its plan says, before a cluster is touched."""

import pytest
import ray
import yaml

from pipelines import sweep_loss_weights
from pipelines.sweep_loss_weights import main, plan_of, require_cluster
from pipelines.sweep_report import report, warning, write_outputs
from tests.unit.tune.made_sweep import made, measured, outcome, rounds
from tpo_core.config.load import load_recipe
from tpo_core.errors import TpoError


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    def refuse(*args, **named):
        raise AssertionError("a cluster was touched")

    monkeypatch.setattr(sweep_loss_weights, "connect", refuse)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["sweep=null"], r"recipe quickstart has no section sweep"),
        (["sweep.space.regio=[1, 2]"], r"unknown loss 'regio'; did you mean 'region'"),
        (["sweep.space.region=[0, 2]"], r"region \[0, 2\].* 0 < low < high"),
        (["sweep.stage=task_assignment", "sweep.steps=60"], r"has no loss 'region'; it has lm, kl$"),
        (["stages.vision_task=null"], r"the recipe has no stage 'vision_task'"),
        (["sweep.part=val", "sweep.workers=3"], r"train\.workers 3 must divide"),
        (["sweep.metrics=[regio/miou]"], r"unknown task of sweep 'regio'"),
        (["@gone.yaml"], r"there is no file gone\.yaml"),
    ],
)  # fmt: skip
def test_one_line_says_what_to_do(changes, message, tmp_path):
    with pytest.raises(TpoError, match=message) as caught:
        main(["--recipe", "quickstart", f"work_uri={tmp_path}", *changes])
    assert "\n" not in str(caught.value)


def test_a_part_that_no_source_feeds_is_refused(tmp_path):
    recipe = load_recipe("quickstart", [f"work_uri={tmp_path}"])
    only = [source for source in recipe.data.sources if source.part != "val"]
    without = recipe.model_copy(update={"data": recipe.data.model_copy(update={"sources": only})})
    with pytest.raises(TpoError, match=r"sweep\.part val: no source feeds it; data\.sources feed test, train, unseen"):
        sweep_loss_weights.check(plan_of(without), None)


def test_a_dry_run_tells_the_plan_and_touches_nothing(tmp_path, capsys):
    assert main(["--recipe", "quickstart", f"work_uri={tmp_path / 'work'}", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "12 trials of vision_task, 2 at a time, measured on part val after 30, 120 steps; tpe and asha" in told
    assert [line.split()[1] for line in told.splitlines() if line.startswith("RUN")] == [
        "render", "preprocess", "task_assignment", "sweep",
    ]  # fmt: skip
    assert not (tmp_path / "work").exists()


def test_a_sweep_that_is_larger_than_the_cluster(monkeypatch):
    monkeypatch.setattr(ray, "nodes", lambda: [{"Alive": True, "Resources": {"CPU": 2.0}}])
    plan = plan_of(load_recipe("quickstart", ["sweep.concurrent_trials=9"]))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(TpoError, match=r"larger than the cluster: 9 trials x 1 workers.*concurrent_trials=3"):
        require_cluster(plan.trial)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    require_cluster(plan.trial)  # which may have an autoscaler


def test_the_weights_of_the_recipe_come_first_where_they_are_in_the_space():
    assert plan_of(load_recipe("quickstart")).first() == {"lm": 0.6, "region": 4.0, "temporal": 6.0, "mask": 3.0}
    assert plan_of(load_recipe("quickstart", ["sweep.space.region=[5, 9]"])).first() is None


class Runs:
    """Keeps what goes to MLflow."""

    def finish(self, params, metrics, files, note, tags):
        self.params, self.metrics, self.files = params, metrics, [path.name for path in files]
        self.note, self.tags = note, tags
        return "one record lost"


def test_files_of_a_sweep(tmp_path):
    recipe, runs, lines = load_recipe("quickstart"), Runs(), []
    write_outputs(recipe, "vision_task", outcome(), tmp_path, runs, lines.append)
    best = yaml.safe_load((tmp_path / "best_overrides.yaml").read_text())
    assert best == {"stages.vision_task.loss_weights.mask": 0.5, "stages.vision_task.loss_weights.region": 2.0}
    assert load_recipe("quickstart", [f"@{tmp_path / 'best_overrides.yaml'}"]).stages["vision_task"].loss_weights[
        "mask"] == 0.5  # fmt: skip
    assert runs.metrics["worker_seconds/40"] == 36.0
    assert runs.metrics["winner/score"] == pytest.approx(1.2)
    assert runs.files == ["best_overrides.yaml", "report.md", "sweep.json", "parallel.png", "pareto.png"]
    assert lines == ["one record lost"]
    text = (tmp_path / "report.md").read_text()
    assert runs.note.endswith("The winner is `b` (region 2, mask 0.5): score 1.200, where 1 is as good as all searched"
                              " weights at 1.")  # fmt: skip
    assert runs.tags == {"winner": "b", "winner/weight/region": "2", "winner/weight/mask": "0.5"}
    assert "worker-seconds of training and measuring in trials: 60 up to step 10, 36 up to step 40" in text
    assert "Warning" not in text
    assert "step 10 against 40: -0.50 (3 trials)" in text
    assert "slots were idle 55 % of the 100 s" in text


def test_without_a_winner_there_is_no_file_of_overrides(tmp_path):
    poor, runs = [one for one in rounds() if one.trial == "a"], Runs()
    write_outputs(load_recipe("quickstart"), "vision_task", outcome(rounds=poor), tmp_path, runs, print)
    assert (runs.tags, runs.note.rpartition(": ")[2]) == ({}, "no winner.")
    assert not (tmp_path / "best_overrides.yaml").exists()
    assert "QA too low" in (tmp_path / "report.md").read_text()


def test_a_winner_that_is_worse_than_a_reference_is_told(tmp_path):
    balanced = {**outcome().references, "uncertainty": made("uncertainty", 40, measured(0.8, 0.3, 0.85))}
    found, runs = outcome(references=balanced), Runs()
    told = "no trial beats uncertainty (1.400): the best one has 1.200"
    assert warning(found).startswith(told)
    write_outputs(load_recipe("quickstart"), "vision_task", found, tmp_path, runs, print)
    assert f"**Warning**: {told}" in (tmp_path / "report.md").read_text()
    assert told in runs.note
    assert warning(outcome()) is None


@pytest.mark.parametrize(
    ("gpus", "line"), [("0", "worker-seconds {}: 60 up"), ("1", "GPU-seconds {}: 60 up"), ("0.5", "GPU-seconds {}: 30")]
)
def test_what_is_counted_has_its_name(gpus, line):
    recipe = load_recipe("quickstart", ["train.workers=1", f"train.gpus_per_worker={gpus}"])
    told = line.format("of training and measuring in trials")
    assert any(told in each for each in report(recipe, outcome()))
