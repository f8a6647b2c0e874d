"""What a trial does in a round, without a cluster: whose checkpoint it goes on from, what it measures, how it fails."""

import json
import os
import shutil
from dataclasses import replace

import pytest

from pipelines import sweep_trial
from pipelines.sweep_trial import Trainee, trial_recipe
from tests.unit.train.in_process import run_phase_in_process
from tests.unit.train.stub import stub_recipe
from tpo_core.config.load import load_recipe
from tpo_core.errors import RunFailedError, TpoError
from tpo_core.storage import uri as uris
from tpo_core.tracking.sweep import SweepRuns
from tpo_core.train.exchange import SUMMARY, Keeper, deliver, is_delivered, output_here, pull
from tpo_core.train.gave_up import gave_up
from tpo_core.train.loop import DivergedError
from tpo_core.train.phase import Surroundings
from tpo_core.train.ray_trainer import START_TIMEOUT
from tpo_core.tune.rounds import Order, Place

WEIGHTS, OTHER = {"lm": 1.0, "region": 2.0}, {"lm": 0.5, "region": 4.0}


@pytest.fixture(params=["folder", "S3"])
def trainee(request, tmp_path, bucket, monkeypatch):
    """Trains the stub in this process, and measures whether there is a model; all of it in a folder that the machines
    share, and on S3, where each round finds nothing on the machine that it came to."""
    folder = str(tmp_path) if request.param == "folder" else f"{bucket}/exchange/sweep"
    made = Trainee(stub_recipe(), "vision_task", "all", "none", "none", folder, SweepRuns("none", "e", "s", "f"))

    def train(self, order, job):
        monkeypatch.setenv("TPO_SCRATCH", str(tmp_path / f"machine of {order.trial} at {order.step}"))
        shutil.rmtree(uris.scratch_dir(), ignore_errors=True)
        if job.exchange is None:
            return run_phase_in_process(job)
        if is_delivered(job.exchange, order.step):
            return None
        here = replace(job, output=output_here(job.exchange))
        pull(job.exchange, here.output)
        run_phase_in_process(here, outside=Keeps(Keeper(job.exchange, here.output)))
        return deliver(job.exchange, here.output)

    def measure(self, model, place):
        assert model is None or uris.exists(uris.join(model, "weights.pt"))
        return {"qa/accuracy": 0.5}

    monkeypatch.setattr(Trainee, "train", train)
    monkeypatch.setattr(Trainee, "measure", measure)
    return made


class Keeps(Surroundings):
    """What a worker of Ray does at a checkpoint."""

    def __init__(self, keeper):
        self.keeper = keeper

    def keep(self):
        self.keeper.keep()


def told(trainee, trial, name):
    """A file of the life that a trial leads, as text."""
    place = trainee.place(trial, trainee.life(trial)["number"])
    return uris.read_bytes(uris.join(place, *([] if uris.is_local(place) else ["result"]), name)).decode()


def notes(trainee, trial):
    return told(trainee, trial, "notes.txt")


def at(trial, step, weights):
    return Place(trial=trial, step=step, weights=weights)


def test_a_trial_goes_on_from_rung_to_rung(trainee):
    first = trainee(Order(trial="a", weights=WEIGHTS, step=4))
    second = trainee(Order(trial="a", weights=WEIGHTS, step=12, origin=at("a", 4, WEIGHTS)))
    assert "resuming at step 4" in notes(trainee, "a")
    assert (first.step, second.step) == (4, 12)
    assert first.metrics == {"qa/accuracy": 0.5}
    seconds = json.loads(told(trainee, "a", "phase.json"))["seconds"]
    assert first.training_s + second.training_s == pytest.approx(seconds)
    assert trainee.job(Order(trial="a", weights=WEIGHTS, step=4), 0).stage.loss_weights["region"] == 2.0


def test_a_fork_leaves_its_own_past_behind(trainee):
    trainee(Order(trial="a", weights=WEIGHTS, step=4))
    trainee(Order(trial="b", weights=OTHER, step=4))
    order = Order(trial="b", weights={**WEIGHTS, "region": 3.0}, step=12, origin=at("a", 4, WEIGHTS))
    forked = trainee(order)
    assert "resuming at step 4" in notes(trainee, "b")
    assert "starting at step 0" not in notes(trainee, "b")
    seconds = json.loads(told(trainee, "b", "phase.json"))["seconds"]
    assert 0 < forked.training_s < seconds, "what the other trial spent is not its own"
    assert not uris.exists(trainee.place("b", 0)), "nobody goes on from there"
    again = trainee(order)  # a round that was carried out, and lost before it could be told
    assert again.weights == forked.weights
    assert notes(trainee, "b").count("resuming at step 4") == 1


def test_other_weights_without_a_checkpoint_begin_anew(trainee):
    trainee(Order(trial="a", weights=WEIGHTS, step=4))
    trainee(Order(trial="a", weights=OTHER, step=4))
    assert "starting at step 0" in notes(trainee, "a")
    assert "resuming" not in notes(trainee, "a")


def test_a_balancer_is_another_recipe_of_the_stage(trainee):
    trainee(Order(trial="uncertainty", weights=WEIGHTS, step=12, balance="uncertainty"))
    rows = told(trainee, "uncertainty", "history.jsonl").splitlines()
    assert "weight/lm" in json.loads(rows[-1])


def test_the_base_is_measured_and_not_trained(trainee):
    one = trainee(Order(trial="base", weights={}, step=0))
    assert (one.metrics, one.training_s) == ({"qa/accuracy": 0.5}, 0.0)
    assert trainee.life("base") is None


def test_divergence_is_a_result(trainee, monkeypatch):
    def diverges(self, order, job):
        raise DivergedError("step 3: total nan")

    monkeypatch.setattr(Trainee, "train", diverges)
    one = trainee(Order(trial="a", weights=WEIGHTS, step=4))
    assert (one.failed, one.metrics) == ("step 3: total nan", {})


class HealthCheckFailedError(Exception):
    """As Ray Train calls what it raises for workers that are gone."""


def test_lost_workers_say_nothing_of_the_weights(trainee, monkeypatch):
    order = Order(trial="unit", weights=WEIGHTS, step=4)
    trains = Trainee.train

    def loses_its_node(self, order, job):
        raise gave_up({0: HealthCheckFailedError("node gone")}, job)

    monkeypatch.setattr(Trainee, "train", loses_its_node)
    with pytest.raises(RunFailedError, match=r"workers died more often"):
        trainee(order)
    monkeypatch.setattr(Trainee, "train", trains)
    assert trainee(order).failed is None, "the next attempt is as good as the first"


def test_the_time_of_an_attempt_that_was_cut_off_counts(trainee, monkeypatch):
    """Up to its last checkpoint; the next attempt goes on there."""
    trains = Trainee.train

    def cut_off_behind_a_checkpoint(self, order, job):
        summary = uris.join(job.handed_over, SUMMARY)
        of_the_rung_before = uris.read_bytes(summary)
        trains(self, order, replace(job, until_step=8))
        uris.write_bytes(summary, of_the_rung_before)
        raise RunFailedError("the node is gone")

    trainee(Order(trial="a", weights=WEIGHTS, step=4))
    before_s = json.loads(told(trainee, "a", SUMMARY))["seconds"]
    second = Order(trial="a", weights=WEIGHTS, step=12, origin=at("a", 4, WEIGHTS))
    monkeypatch.setattr(Trainee, "train", cut_off_behind_a_checkpoint)
    with pytest.raises(RunFailedError):
        trainee(second)
    monkeypatch.setattr(Trainee, "train", trains)
    one = trainee(second)
    assert "resuming at step 8" in notes(trainee, "a")
    assert one.training_s == pytest.approx(json.loads(told(trainee, "a", SUMMARY))["seconds"] - before_s)
    assert one.training_s > 0


def test_the_time_of_an_attempt_that_was_cut_off_while_it_measured_counts(trainee, monkeypatch):
    """All steps are done then, and the next attempt takes none."""

    def lost(self, model, place):
        raise RunFailedError("the node is gone")

    with monkeypatch.context() as patch:
        patch.setattr(Trainee, "measure", lost)
        with pytest.raises(RunFailedError):
            trainee(Order(trial="a", weights=WEIGHTS, step=4))
    one = trainee(Order(trial="a", weights=WEIGHTS, step=4))
    assert one.training_s == json.loads(told(trainee, "a", SUMMARY))["seconds"] > 0


def test_what_only_serves_to_go_on_is_forgotten(trainee):
    trainee(Order(trial="a", weights=WEIGHTS, step=4))
    trainee.forget("a")
    assert not uris.exists(trainee.place("a", 0))
    trainee.forget("gone")


SWEEP = ["sweep=null", "sweep.stage=multitask", "sweep.space={region: [0.5, 4]}", "sweep.metrics=[region/miou]",
         "sweep.first_rung_steps=4"]  # fmt: skip


def test_trials_have_steps_workers_and_requests_of_their_own():
    changes = ["sweep.steps=32", "sweep.workers=1", "sweep.torch_threads=3", "sweep.limit_per_task=7"]
    recipe = load_recipe("quickstart", [*SWEEP, *changes])
    trial = trial_recipe(recipe)
    assert trial.stages["multitask"].phases[0].steps == 32
    assert trial.stages["vision_task"] == recipe.stages["vision_task"]
    assert (trial.train.workers, trial.train.torch_threads) == (1, 3)
    assert (trial.evaluation.parts, trial.evaluation.limit_per_task, trial.evaluation.gallery_size) == (["val"], 7, 0)
    assert trial.evaluation.max_new_tokens == recipe.evaluation.max_new_tokens
    assert trial.train.permanent_checkpoint_every_steps is None


def test_a_population_keeps_the_checkpoints_of_its_rungs():
    recipe = load_recipe("quickstart", [*SWEEP, "sweep.scheduler=pbt", "sweep.search=random"])
    assert trial_recipe(recipe).train.permanent_checkpoint_every_steps == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("sweep.workers=3", r"in trials of the sweep: train\.workers 3 must divide"),
        (
            "sweep.baselines=[gradnorm] train.strategy=zero2",
            r"baseline gradnorm: balance gradnorm needs train\.strategy",
        ),
    ],
)
def test_what_does_not_fit_is_told_before_anything_runs(change, message):
    with pytest.raises(TpoError, match=message):
        trial_recipe(load_recipe("quickstart", [*SWEEP, *change.split()]))


def test_trials_wait_for_workers_as_long_as_others_train(tmp_path, monkeypatch):
    """Ray Train, which reads this when a run starts, by default gives up after a minute."""
    monkeypatch.delenv(START_TIMEOUT, raising=False)
    seen = []
    monkeypatch.setattr(sweep_trial, "run_phase", lambda *args, **how: seen.append(float(os.environ[START_TIMEOUT])))
    trial = Trainee(
        stub_recipe(), "vision_task", "all", "none", "none", str(tmp_path), SweepRuns("none", "e", "s", "f")
    )
    order = Order(trial="a", weights=WEIGHTS, step=4)
    trial.train(order, trial.job(order, 0))
    monkeypatch.setenv(START_TIMEOUT, "7")
    trial.train(order, trial.job(order, 0))
    assert seen == [86_400.0, 7.0], "what the user has set stays"
