"""Ray Tune over trials that cost nothing: who stops, who goes on, what an interrupted search repeats."""

import json
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import ray

from tests.conftest import use_endpoint
from tpo_core.config.sweep import SweepConfig
from tpo_core.errors import TpoError
from tpo_core.storage import uri as uris
from tpo_core.tune.loss_weights import Sweep, run_references, search
from tpo_core.tune.objective import Objective
from tpo_core.tune.packing import DRIVER
from tpo_core.tune.rounds import Book, Order, Round

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import the tests

pytestmark = [pytest.mark.ray, pytest.mark.slow]

RUNGS = (4, 16)
OBJECTIVE = Objective(metrics=("val/region/miou",), unit={"val/region/miou": 0.5}, qa="val/qa/accuracy", qa_floor=0.8)


@pytest.fixture(scope="module")
def cluster(s3_endpoint):
    """Its workers know the S3 server."""
    with pytest.MonkeyPatch.context() as patch:
        use_endpoint(patch, s3_endpoint)
        ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield
        ray.shutdown()


def made_up(asked: Path, order: Order) -> Round:
    """Region rises with its weight and with steps, QA falls with the weight; notes what it was asked."""
    with (asked / "orders.jsonl").open("a") as file:
        file.write(json.dumps([order.trial, order.step, order.weights, order.forks]) + "\n")
    weight, now_s = order.weights.get("region", 1.0), time.time()
    metrics = {"val/region/miou": 0.1 * weight * order.step / RUNGS[-1], "val/qa/accuracy": 1.0 - 0.04 * weight}
    return Round.of(order, metrics=metrics, failed=None, began_s=now_s, ended_s=time.time(), training_s=0.0,
                    measuring_s=0.0, workers=1)  # fmt: skip


def nothing(*args):
    """Neither record nor forget."""


def forget(asked: Path, trial: str) -> None:
    (asked / f"forgotten-{trial}").touch()


def sweep_of(folder, *, place=None, carry_out=made_up, first=None, **config):
    """folder: takes what the made-up trials note, and their state too where no other place is named."""
    settings = {
        "stage": "multitask", "space": {"region": [0.5, 8.0]}, "metrics": ["region/miou"], "first_rung_steps": RUNGS[0],
        "trials": 6, "concurrent_trials": 2, "seed": 3, **config,
    }  # fmt: skip
    return Sweep(
        config=SweepConfig.model_validate(settings), rungs=RUNGS, folder=place or str(folder), driver=DRIVER,
        objective=OBJECTIVE, first=first,
        carry_out=partial(carry_out, folder), record=nothing, forget=partial(forget, folder),
    )  # fmt: skip


def orders(folder):
    return [json.loads(line) for line in (folder / "orders.jsonl").read_text().splitlines()]


def ends(rounds):
    return {one.trial: one.step for one in rounds}


@pytest.mark.usefixtures("cluster")
def test_asha_stops_the_worse_and_frees_all_that_they_held(tmp_path):
    lines = []
    rounds = search(sweep_of(tmp_path, first={"region": 4.0}), lines.append)
    assert len(ends(rounds)) == 6
    stopped = [trial for trial, step in ends(rounds).items() if step == RUNGS[0]]
    assert 1 <= len(stopped) < 6
    at_first = {one.trial: OBJECTIVE.value(one.metrics) for one in rounds if one.step == RUNGS[0]}
    assert min(at_first.values()) in [at_first[trial] for trial in stopped]
    assert 4.0 in {one.weights["region"] for one in rounds}, "the weights to begin with are a trial"
    assert all(0.5 <= one.weights["region"] <= 8.0 for one in rounds)
    assert len(orders(tmp_path)) == len(rounds), "no round is carried out twice"
    assert {path.name for path in tmp_path.glob("forgotten-*")} == {f"forgotten-{trial}" for trial in ends(rounds)}
    assert any("16/16  objective" in line for line in lines)
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != 2.0:
        assert time.monotonic() < deadline, "a trial that has ended still holds CPUs"
        time.sleep(0.1)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("kind", ["tpe", "tpe_multi"])
def test_without_a_scheduler_all_come_to_the_end(tmp_path, kind):
    rounds = search(sweep_of(tmp_path, search=kind, scheduler="none", trials=4), nothing)
    assert list(ends(rounds).values()) == [RUNGS[-1]] * 4
    assert len({one.weights["region"] for one in rounds}) == 4


@pytest.mark.usefixtures("cluster")
def test_pbt_goes_on_from_the_place_of_a_better_one_with_other_weights(tmp_path):
    rounds = search(sweep_of(tmp_path, search="random", scheduler="pbt", trials=4), nothing)
    forks = [one for one in rounds if one.origin is not None and one.origin["trial"] != one.trial]
    assert forks, "nobody took over"
    for one in forks:
        assert one.step > one.origin["step"]
        assert one.weights != one.origin["weights"]
        assert 0.5 <= one.weights["region"] <= 8.0
    assert [order[3] for order in orders(tmp_path)].count(True) >= len(forks)
    assert RUNGS[-1] in ends(rounds).values()


def dies_once(asked: Path, order: Order) -> Round:
    """The sixth round fails, once, for no fault of the weights."""
    done = len((asked / "orders.jsonl").read_text().splitlines()) if (asked / "orders.jsonl").exists() else 0
    if done == 5 and not (asked / "died").exists():
        (asked / "died").touch()
        raise RuntimeError("the machine went away")
    return made_up(asked, order)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("where", ["folder", "S3"])
def test_the_same_call_repeats_no_round_that_was_finished(tmp_path, bucket, where):
    place = None if where == "folder" else f"{bucket}/exchange/sweep"
    settings = {"carry_out": dies_once, "scheduler": "none", "concurrent_trials": 1, "trials": 4, "place": place}
    lines = []
    first = search(sweep_of(tmp_path, **settings), lines.append)
    assert any("1 of 4 trials failed, the same command tries them again" in line for line in lines)
    assert sorted(ends(first).values()) == [4, 16, 16, 16]
    again = search(sweep_of(tmp_path, **settings), nothing)
    assert list(ends(again).values()) == [16] * 4
    asked = [(trial, step) for trial, step, *_ in orders(tmp_path)]
    assert len(asked) == len(set(asked)) == 8
    assert [one for one in again if one in first] == first
    assert set(uris.list_names(place or tmp_path)) >= {"rounds", "tune"}


def refuses(asked: Path, order: Order) -> Round:
    raise TpoError("the base model is not there: give another one")


@pytest.mark.usefixtures("cluster")
def test_a_mistake_of_the_user_comes_out_as_it_is(tmp_path):
    with pytest.raises(TpoError, match=r"^the base model is not there"):
        search(sweep_of(tmp_path, carry_out=refuses, trials=1), nothing)
    order, book = Order(trial="unit", weights={}, step=4), Book(str(tmp_path / "r"))
    with pytest.raises(TpoError, match=r"^the base model is not there"):
        run_references([order], book, partial(refuses, tmp_path), 1, DRIVER)


def diverges(asked: Path, order: Order) -> Round:
    """Large weights do."""
    one = made_up(asked, order)
    return one if order.weights["region"] < 4 else Round(**{**vars(one), "metrics": {}, "failed": "total nan"})


@pytest.mark.usefixtures("cluster")
def test_a_trial_that_diverges_is_a_result_and_goes_no_further(tmp_path):
    rounds = search(sweep_of(tmp_path, carry_out=diverges, scheduler="none", search="random"), nothing)
    failed = {one.trial for one in rounds if one.failed}
    assert failed
    assert {step for trial, step in ends(rounds).items() if trial in failed} == {RUNGS[0]}
    assert {step for trial, step in ends(rounds).items() if trial not in failed} == {RUNGS[-1]}


@pytest.mark.usefixtures("cluster")
def test_references_run_once(tmp_path):
    wanted = [Order(trial=name, weights={"region": 1.0}, step=16) for name in ("unit", "gradnorm", "uncertainty")]
    book = Book(str(tmp_path / "rounds"))
    first = run_references(wanted, book, partial(made_up, tmp_path), 2, DRIVER)
    assert list(first) == ["unit", "gradnorm", "uncertainty"]
    assert run_references(wanted, book, partial(refuses, tmp_path), 2, DRIVER) == first
    assert len(orders(tmp_path)) == 3
