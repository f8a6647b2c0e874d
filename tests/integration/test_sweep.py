"""Ray Tune over trials that cost nothing: who stops, who goes on, what an interrupted search repeats."""

import json
import os
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import ray

from tests.conftest import use_endpoint
from tpo_core.config.sweep import SweepConfig
from tpo_core.errors import RunFailedError, TpoError
from tpo_core.storage import uri as uris
from tpo_core.tune.loss_weights import Sweep, run_references, search
from tpo_core.tune.objective import Objective
from tpo_core.tune.packing import DRIVER
from tpo_core.tune.rounds import Book, Order, Place, Round
from tpo_core.tune.slots import Slots

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


def sweep_of(folder, *, place=None, carry_out=made_up, first=None, rungs=RUNGS, **config):
    """folder: takes what the made-up trials note, and their state too where no other place is named."""
    settings = {
        "stage": "multitask", "space": {"region": [0.5, 8.0]}, "metrics": ["region/miou"], "first_rung_steps": RUNGS[0],
        "trials": 6, "concurrent_trials": 2, "seed": 3, **config,
    }  # fmt: skip
    return Sweep(
        config=SweepConfig.model_validate(settings), rungs=rungs, folder=place or str(folder), driver=DRIVER,
        objective=OBJECTIVE, first=first,
        carry_out=partial(carry_out, folder), record=nothing, forget=partial(forget, folder),
    )  # fmt: skip


def references(chains, book, carry_out):
    return run_references(chains, book, carry_out, 2, DRIVER)


def orders(folder):
    return [json.loads(line) for line in (folder / "orders.jsonl").read_text().splitlines()]


def ends(rounds):
    return {one.trial: one.step for one in rounds}


def takes_all_that_two_drivers_leave(asked: Path, order: Order) -> Round:
    """What a round trains with is the whole machine, but for what the processes of trials reserve: there is room for
    the next round only if nobody holds anything that has ended or stands at a rung."""
    whole = ray.remote(num_cpus=ray.cluster_resources()["CPU"] - 2 * DRIVER["CPU"])(made_up)
    return ray.get(whole.options(scheduling_strategy="DEFAULT").remote(asked, order), timeout=300)


@pytest.mark.usefixtures("cluster")
def test_asha_stops_the_worse_and_they_hold_nothing_while_others_go_on(tmp_path):
    lines = []
    sweep = sweep_of(tmp_path, carry_out=takes_all_that_two_drivers_leave, first={"region": 4.0}, scheduler="asha")
    rounds = search(sweep, lines.append)
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


@pytest.mark.usefixtures("cluster")
def test_pbt_begins_with_the_weights_of_its_seed(tmp_path):
    def first_weights(name, seed):
        (tmp_path / name).mkdir()
        found = search(sweep_of(tmp_path / name, search="random", scheduler="pbt", trials=4, seed=seed), nothing)
        return {one.weights["region"] for one in found if one.step == RUNGS[0]}

    first = first_weights("one", 3)
    assert len(first) == 4
    assert first_weights("again", 3) == first
    assert not first_weights("other", 4) & first


def dies_once(asked: Path, order: Order, *, before: int = 5) -> Round:
    """The sixth round fails, once, for no fault of the weights."""
    done = len((asked / "orders.jsonl").read_text().splitlines()) if (asked / "orders.jsonl").exists() else 0
    if done == before and not (asked / "died").exists():
        (asked / "died").touch()
        raise RuntimeError("the machine went away")
    return made_up(asked, order)


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("where", ["folder", "S3"])
def test_the_same_call_repeats_no_round_that_was_finished(tmp_path, bucket, where):
    place = None if where == "folder" else f"{bucket}/exchange/sweep"
    settings = {"carry_out": dies_once, "scheduler": "none", "concurrent_trials": 1, "trials": 4, "place": place}
    sweep = sweep_of(tmp_path, **settings)
    with pytest.raises(RunFailedError, match=r"^1 of 4 trials failed, the same command tries them again: .* went away"):
        search(sweep, nothing)
    first = sweep.book.all()
    assert sorted(ends(first).values()) == [4, 16, 16, 16]
    again = search(sweep_of(tmp_path, **settings), nothing)
    assert list(ends(again).values()) == [16] * 4
    asked = [(trial, step) for trial, step, *_ in orders(tmp_path)]
    assert len(asked) == len(set(asked)) == 8
    assert [one for one in again if one in first] == first
    assert set(uris.list_names(place or tmp_path)) >= {"rounds", "tune"}


@pytest.mark.usefixtures("cluster")
def test_a_population_goes_on_without_one_that_fails_last_and_with_it_when_it_is_restored(tmp_path):
    """Three rungs: those who wait at the first are woken by nobody's coming, and a restore sets back Ray's count."""
    settings = {"carry_out": partial(dies_once, before=3), "search": "random", "scheduler": "pbt", "trials": 4,
                "concurrent_trials": 1, "rungs": (4, 8, 16), "reduction_factor": 2}  # fmt: skip
    sweep = sweep_of(tmp_path, **settings)
    with pytest.raises(RunFailedError, match=r"^1 of 4 trials failed"):
        search(sweep, nothing)
    assert sorted(ends(sweep.book.all()).values()) == [16, 16, 16]
    assert list(ends(search(sweep_of(tmp_path, **settings), nothing)).values()) == [16] * 4


class CutError(Exception):
    """What ends a search from outside."""


@pytest.mark.usefixtures("cluster")
def test_a_population_that_is_cut_off_behind_its_first_rung_comes_to_the_end(tmp_path):
    settings = {"search": "random", "scheduler": "pbt", "trials": 4, "rungs": (4, 8, 16), "reduction_factor": 2}
    cut_off_at(tmp_path, sweep_of(tmp_path, **settings), "  8/16  ")
    assert list(ends(search(sweep_of(tmp_path, **settings), nothing)).values()) == [16] * 4


def cut_off_at(folder, sweep, sign):
    """A search that ends when it has said a line with this in it; once, for Tune restores what the lines go to."""
    done = folder / "cut"

    def echo(line):
        if sign in line and not done.exists():
            done.touch()
            raise CutError(line)

    with pytest.raises(Exception, match="CutError"):
        search(sweep, echo)


@pytest.mark.usefixtures("cluster")
def test_what_is_still_to_be_drawn_after_a_cut_is_what_would_have_been_drawn(tmp_path):
    settings = {"search": "random", "scheduler": "none", "trials": 6, "concurrent_trials": 1, "first": {"region": 4.0}}
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    whole = search(sweep_of(tmp_path / "whole", **settings), nothing)
    cut = sweep_of(tmp_path / "parts", **settings)
    cut_off_at(tmp_path, cut, "(2 of 6 trials ended)")
    assert len(ends(cut.book.all())) < 6, "some are still to be drawn"
    rest = search(sweep_of(tmp_path / "parts", **settings), nothing)
    drawn = [{one.weights["region"] for one in rounds} for rounds in (whole, rest)]
    assert len(drawn[0]) == 6
    assert drawn[0] == drawn[1]
    assert len(orders(tmp_path / "parts")) == 12, "no round is carried out twice"


@ray.remote(num_cpus=0)
class Holder:
    """As the process of a trial."""

    def hold(self, slots):
        slots.__enter__()

    def tries(self, slots):
        return slots.take()

    def leave(self, slots):
        slots.__exit__()

    def die(self):
        os._exit(1)


@pytest.mark.usefixtures("cluster")
def test_the_slot_of_a_process_that_died_is_free_again():
    slots, holders = Slots(1), [Holder.remote() for _ in range(3)]
    ray.get(holders[0].hold.remote(slots))
    for _ in range(3):  # it lives, whether its process is at work or not
        assert not ray.get(holders[1].tries.remote(slots))
    holders[0].die.remote()
    ray.get(holders[1].hold.remote(slots), timeout=60)
    assert not ray.get(holders[2].tries.remote(slots))
    ray.get(holders[1].leave.remote(slots))
    assert ray.get(holders[2].tries.remote(slots))


def refuses(asked: Path, order: Order) -> Round:
    raise TpoError("the base model is not there: give another one")


@pytest.mark.usefixtures("cluster")
def test_a_mistake_of_the_user_comes_out_as_it_is(tmp_path):
    with pytest.raises(TpoError, match=r"^the base model is not there"):
        search(sweep_of(tmp_path, carry_out=refuses, trials=1), nothing)
    order, book = Order(trial="unit", weights={}, step=4), Book(str(tmp_path / "r"))
    with pytest.raises(TpoError, match=r"^the base model is not there"):
        references([[order]], book, partial(refuses, tmp_path))


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


def chain(name, steps=RUNGS):
    weights = {"region": 1.0}
    places = [None, *(Place(trial=name, step=step, weights=weights) for step in steps)]
    return [Order(trial=name, weights=weights, step=step, origin=at) for at, step in zip(places, steps, strict=False)]


@pytest.mark.usefixtures("cluster")
def test_references_run_once_from_rung_to_rung(tmp_path):
    names = ("unit", "gradnorm", "uncertainty")
    book = Book(str(tmp_path / "rounds"))
    first = references([chain(name) for name in names], book, partial(made_up, tmp_path))
    assert {name: [one.step for one in rounds] for name, rounds in first.items()} == {name: [4, 16] for name in names}
    assert references([chain(name) for name in names], book, partial(refuses, tmp_path)) == first
    assert len(orders(tmp_path)) == 6


def always_diverges(asked: Path, order: Order) -> Round:
    return Round(**{**vars(made_up(asked, order)), "metrics": {}, "failed": "total nan"})


@pytest.mark.usefixtures("cluster")
def test_a_reference_that_diverges_goes_no_further_and_is_not_tried_again(tmp_path):
    book = Book(str(tmp_path / "rounds"))
    for _ in range(2):
        found = references([chain("gradnorm")], book, partial(always_diverges, tmp_path))
        assert [(one.step, one.failed) for one in found["gradnorm"]] == [(4, "total nan")]
    assert len(orders(tmp_path)) == 1


def loses_its_process(asked: Path, order: Order) -> Round:
    os._exit(1)


def loses_its_workers(asked: Path, order: Order) -> Round:
    raise RunFailedError("workers died more often than train.max_failures (3) allows")


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("how", "told"), [(loses_its_process, "a process of the sweep was lost .*the same command"),
                      (loses_its_workers, "^workers died more often")])  # fmt: skip
def test_what_was_lost_is_one_line_and_tried_again(tmp_path, how, told):
    book = Book(str(tmp_path / "rounds"))
    with pytest.raises(RunFailedError, match=told):
        references([chain("unit")], book, partial(how, tmp_path))
    assert [one.step for one in references([chain("unit")], book, partial(made_up, tmp_path))["unit"]] == [4, 16]
