"""A sweep that was never run: rounds with numbers of one's own."""

from tpo_core.tune.objective import Objective
from tpo_core.tune.results import Launch, Outcome
from tpo_core.tune.rounds import Order, Place, Round

RUNGS = (10, 40)
OBJECTIVE = Objective(metrics=("region/miou", "mask/j"), unit={"region/miou": 0.5, "mask/j": 0.25}, qa="qa/accuracy",
                      qa_floor=0.80)  # fmt: skip


def measured(region, mask, qa):
    return {"region/miou": region, "mask/j": mask, "qa/accuracy": qa}


def made(trial, step, metrics, *, weight=1.0, began_s=100.0, seconds=10.0, failed=None, workers=2):
    weights = {"region": weight, "mask": 1 / weight}
    order = Order(trial=trial, weights=weights, step=step, origin=origin_of(trial, step, weights))
    return Round.of(order, metrics=metrics, failed=failed, began_s=began_s, ended_s=began_s + seconds,
                    training_s=0.5 * seconds, measuring_s=0.2 * seconds, workers=workers)  # fmt: skip


def origin_of(trial, step, weights):
    return Place(trial=trial, step=RUNGS[0], weights=weights) if step == RUNGS[1] else None


def rounds():
    """a is best but loses QA, b wins, c is stopped, d diverges, e ends last."""
    return [
        made("a", 10, measured(0.5, 0.3, 0.9), weight=4.0), made("a", 40, measured(0.9, 0.5, 0.7), weight=4.0),
        made("b", 10, measured(0.4, 0.25, 0.9), weight=2.0), made("b", 40, measured(0.6, 0.3, 0.9), weight=2.0),
        made("c", 10, measured(0.1, 0.1, 0.9), weight=0.5),
        made("d", 10, {}, weight=8.0, failed="step 3: total nan"),
        made("e", 10, measured(0.3, 0.25, 0.85), weight=1.0), made("e", 40, measured(0.5, 0.25, 0.95), weight=1.0),
    ]  # fmt: skip


def outcome(**changes):
    references = {"base": made("base", 0, measured(0.0, 0.0, 0.82), began_s=50.0),
                  "unit": made("unit", 40, measured(0.5, 0.25, 0.85), began_s=100.0)}  # fmt: skip
    launch = Launch(began_s=100.0, ended_s=200.0, slots=2)
    settings = {"objective": OBJECTIVE, "rungs": RUNGS, "rounds": rounds(), "references": references, "launch": launch}
    return Outcome(**{**settings, **changes})
