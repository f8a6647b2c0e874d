import pytest

from tests.unit.train.checkpoints.made import checkpointer, save_at, steps_at, trained
from tests.unit.train.stub import stub_recipe
from tpo_core.train.checkpoints.retention import Retention, drop_ephemeral, kept

LOSSES = {10: 3.0, 20: 1.0, 30: 2.0, 40: 1.0, 50: 4.0}


@pytest.mark.parametrize(
    ("every", "best", "newest", "expected"),
    [
        (None, 0, 2, {40, 50}),
        (None, 0, 9, {10, 20, 30, 40, 50}),
        (None, 0, 0, set()),
        (20, 0, 2, {20, 40, 50}),
        (20, 0, 0, {20, 40}),
        (None, 1, 2, {20, 40, 50}),  # of two with the same loss the earlier one
        (None, 3, 0, {20, 30, 40}),
        (30, 1, 0, {20, 30}),
        (None, 9, 0, {10, 20, 30, 40, 50}),
    ],
)
def test_what_is_kept(every, best, newest, expected):
    saved = {step: {"total": loss} for step, loss in LOSSES.items()}
    assert kept(saved, Retention(permanent_every=every, best=best, metric="total"), newest=newest) == expected


def test_a_checkpoint_without_the_loss_is_never_among_the_best():
    saved = {1: {}, 2: {"kind/region": 5.0}, 3: {"total": 1.0}, 4: {}, 5: {}}
    assert kept(saved, Retention(permanent_every=None, best=2, metric="kind/region")) == {2, 4, 5}


def test_the_recipe_says_what_is_kept():
    train = stub_recipe(permanent_checkpoint_every_steps=50, keep_best=1, best_metric="kind/region").train
    assert Retention.of(train) == Retention(permanent_every=50, best=1, metric="kind/region")


def test_a_run_keeps_the_best_across_a_restart_and_at_its_end_drops_the_rest(tmp_path):
    run = trained(1)
    totals = {5: 2.0, 10: 0.5, 15: 3.0, 20: 1.0, 25: 9.0, 30: 8.0}
    for steps in ((5, 10, 15), (20, 25, 30)):
        saver = checkpointer(tmp_path / "c", run.strategy, best=2, every=15)
        saver.resume()
        for step in steps:
            saver.logged({"total": totals[step], "samples_per_s": 0.1, "step": step})
            save_at(saver, run, step)
    assert steps_at(tmp_path / "c") == [10, 15, 20, 25, 30]
    drop_ephemeral(str(tmp_path / "c"), Retention(permanent_every=15, best=1, metric="total"))
    assert steps_at(tmp_path / "c") == [10, 15, 30]
    drop_ephemeral(str(tmp_path / "c"), Retention(permanent_every=None, best=0, metric="total"))
    assert not (tmp_path / "c").exists()
    drop_ephemeral(str(tmp_path / "c"), Retention(permanent_every=None, best=0, metric="total"))


def test_what_a_resumed_run_no_longer_keeps_is_told(tmp_path):
    run, root = trained(1), tmp_path / "c"
    save_at(checkpointer(root, run.strategy, every=5), run, 5, 10, 15, 20)
    _, lines = checkpointer(root, run.strategy, every=10).resume()
    [line] = [line for line in lines if "keeps no checkpoint" in line]
    assert line.startswith("the recipe keeps no checkpoint of step 5 (train.keep_best, ")
    assert steps_at(root) == [10, 15, 20]
    _, lines = checkpointer(root, run.strategy, every=10).resume()
    assert lines == ["resuming at step 20 from step-00000020"]


def test_checkpoints_on_another_disk_behind_a_link_go_too(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "c").symlink_to(tmp_path / "disk")
    run = trained(1)
    save_at(checkpointer(tmp_path / "c", run.strategy), run, 5, 10)
    assert steps_at(tmp_path / "disk") == [5, 10]
    drop_ephemeral(str(tmp_path / "c"), Retention(permanent_every=None, best=0, metric="total"))
    assert [path.name for path in tmp_path.rglob("*")] == ["disk"]
