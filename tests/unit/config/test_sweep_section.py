"""The section `sweep` of a recipe, and the balance of a stage: what is refused, and what enters a fingerprint."""

import pytest

from tpo_core.config.load import load_recipe
from tpo_core.config.schema import identity
from tpo_core.errors import TpoError

STEPS = "stages.multitask.phases.multitask.steps=64"
SWEEP = (
    "sweep.stage=multitask",
    "sweep.space={region: [0.1, 10], lm: [0.5, 2]}",
    "sweep.metrics=[region/miou, moment/miou]",
    "sweep.first_rung_steps=4",
    STEPS,
)


def load(*overrides):
    return load_recipe("quickstart", ["sweep=null", *SWEEP, *overrides])


def load_fitting(*overrides):
    """With what the sweep's own command checks."""
    recipe = load(*overrides)
    recipe.sweep.require_fit(recipe.stages)
    return recipe


def test_rungs_grow_by_the_factor_up_to_the_end():
    for overrides, rungs in {
        (): [4, 16, 64],
        ("sweep.steps=60", "sweep.reduction_factor=2"): [4, 8, 16, 32, 60],
        ("sweep.first_rung_steps=64",): [64],
        ("sweep.first_rung_steps=null", "sweep.scheduler=none"): [64],
    }.items():
        recipe = load(*overrides)
        assert recipe.sweep.rungs(recipe.sweep.phase_of(recipe.stages)) == rungs


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sweep.stage=multitsk", r"no stage 'multitsk'; did you mean 'multitask'"),
        ("sweep.phase=other", r"has the phases multitask: name one"),
        ("sweep.space.regio=[1, 2]", r"unknown loss 'regio'; did you mean 'region'"),
        ("sweep.space.region=[0, 1]", r"region \[0, 1\]: .* 0 < low < high"),
        ("sweep.space.region=[-1, 1]", r"region \[-1, 1\]: .* 0 < low < high"),
        ("sweep.space.region=[2, 1]", r"0 < low < high"),
        ("sweep.space={}", r"sweep\.space"),
        ("stages.multitask.phases.multitask.mixture.region=null", r"multitask"),
        ("sweep.first_rung_steps=65", r"65 lies behind the end of a trial, 64 steps"),
        ("sweep.first_rung_steps=null", r"scheduler asha needs rungs"),
        ("sweep.trials=0", r"sweep\.trials = 0: must be >= 1"),
        ("sweep.search=tpe_multi", r"no single objective that scheduler asha could stop by"),
        ("sweep.scheduler=pbt", r"search tpe has no say: set random"),
        ("sweep.metrics=[regio/miou]", r"unknown task of sweep 'regio'; did you mean 'region'"),
        ("sweep.limit_by_task={regio: 3}", r"unknown task of sweep 'regio'"),
        ("sweep.qa_tolerance=-0.1", r"sweep\.qa_tolerance = -0\.1: must be >= 0"),
        ("stages.multitask.balance=gradnorm", r"balance gradnorm sets the weights: set fixed"),
    ],
)
def test_a_mistake_is_told_in_one_line(override, message):
    with pytest.raises((TpoError, ValueError), match=message) as caught:
        load_fitting(override)
    assert "\n" not in str(caught.value)


def test_a_loss_that_the_phase_does_not_have_is_refused():
    without = ("stages.multitask.phases.multitask.mixture", "stages.multitask.phases.multitask.micro_batch_sizes")
    changes = [f"{without[0]}.region=null", f"{without[1]}.region=null"]
    with pytest.raises(ValueError, match=r"has no loss 'region'; it has lm, kl, temporal, mask"):
        load_fitting(*changes)
    load(*changes)  # which is nothing to any other command


def test_a_population_is_large_enough():
    small = ("sweep.scheduler=pbt", "sweep.search=random", "sweep.trials=3")
    with pytest.raises(TpoError, match=r"needs a population of 4"):
        load(*small)
    assert load(*small, "sweep.trials=4").sweep.trials == 4


def test_steps_must_be_told_of_a_phase_in_epochs():
    epochs = [f"stages.multitask.phases.multitask.{change}" for change in ("steps=null", "epochs=1")]
    with pytest.raises(ValueError, match=r"given in epochs, so say how many steps"):
        load_fitting(*epochs)
    assert load(*epochs, "sweep.steps=8").sweep.steps == 8


def test_neither_a_sweep_nor_a_fixed_balance_changes_a_fingerprint():
    plain = load_recipe("quickstart", ["sweep=null", STEPS])
    assert identity(load()) == identity(plain)
    stage = identity(plain.stages["multitask"])
    assert "balance" not in stage
    changed = load_recipe("quickstart", ["sweep=null", STEPS, "stages.multitask.balance=uncertainty"])
    assert identity(changed.stages["multitask"]) == stage | {"balance": "uncertainty"}
