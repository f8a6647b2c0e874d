import numpy as np
import pytest
from scipy.stats import beta, binom

from tpo_core.config.schema import GateConfig
from tpo_core.tracking.gates import Measured, check
from tpo_core.tracking.paired import difference

METRIC = "test/region/acc@0.5"
NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "reference", "rule", "ok", "reason"),
    [
        (0.80, 0.70, {}, True, "at least 0.7000"),
        (0.70, 0.70, {}, True, "at least 0.7000"),
        (0.69, 0.70, {}, False, "below 0.7000 by 0.0100"),
        (0.69, 0.70, {"max_drop": 0.02}, True, "at least 0.6800"),
        (0.71, 0.70, {"max_drop": -0.05}, False, "below 0.7500 by 0.0400"),
        (0.80, 0.70, {"min_value": 0.9}, False, "below the floor 0.9 by 0.1000"),
        (1.80, 0.70, {"max_value": 2.0}, True, "at most 2"),
        (2.25, 0.70, {"max_value": 2.0}, False, "above the ceiling 2 by 0.2500"),
        (None, 0.70, {"max_value": 2.0}, False, "challenger: not measured"),
        (None, 0.70, {}, False, "challenger: not measured"),
        (NAN, 0.70, {}, False, "challenger: is nan"),
        (0.80, None, {}, False, "champion: not measured"),
        (0.80, float("inf"), {}, False, "champion: is inf"),
        (0.80, NAN, {"against": "base"}, False, "base: is nan"),
        (0.80, 0.70, {"worst_drop": 0.1}, False, "no values by sample of the challenger"),
    ],
)
def test_one_gate(value, reference, rule, ok, reason):
    challenger = Measured({} if value is None else {METRIC: value})
    other = Measured({} if reference is None else {METRIC: reference})
    (result,) = check([GateConfig(metric=METRIC, **rule)], challenger, other)
    assert result.ok == ok
    assert result.reason.startswith(reason)


def test_without_a_reference_the_floor_decides():
    gates = [GateConfig(metric=METRIC, min_value=0.5), GateConfig(metric=METRIC, min_value=0.9)]
    assert [result.ok for result in check(gates, Measured({METRIC: 0.7}), None)] == [True, False]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"max_value": 1.0, "min_value": 0.1}, "stands alone"),
        ({"max_value": 1.0, "max_drop": 0.1}, "stands alone"),
        ({"max_drop": 0.2, "worst_drop": 0.1}, r"worst_drop 0\.1 is below max_drop 0\.2"),
    ],
)
def test_rules_that_contradict_each_other(rule, told):
    with pytest.raises(ValueError, match=told):
        GateConfig(metric=METRIC, **rule)


def measured(right):
    """A model that got these samples right (1) or wrong (0)."""
    return Measured({METRIC: float(np.mean(right))}, {METRIC: {f"s{i}": float(one) for i, one in enumerate(right)}})


def judge(challenger, reference, **rule):
    gate = GateConfig(metric=METRIC, **({"max_drop": 0.01, "worst_drop": 0.05} | rule))
    return check([gate], measured(challenger), measured(reference))[0]


def flipped(answers, count, to):
    """The answers with `count` of those that are not `to` made it."""
    places = [i for i, one in enumerate(answers) if one != to][:count]
    return [to if i in places else one for i, one in enumerate(answers)]


HALF = [1, 0] * 200


def test_a_drop_within_the_noise_does_not_block():
    """Three of 400 samples lost and one won are half a point, and with 400 samples no more than noise."""
    result = judge(flipped(HALF, 6, 0), HALF)
    assert result.value == pytest.approx(0.485)  # below the reference by more than max_drop
    assert result.ok
    assert -0.05 < result.low < -0.01 < result.high


def test_a_drop_beyond_the_noise_is_refused_and_by_how_much():
    result = judge(flipped(HALF, 40, 0), HALF)
    assert not result.ok
    assert result.high < -0.01
    assert result.reason.startswith("dropped by more than 0.01 allows, by 0.0")


def test_few_samples_do_not_pass_by_luck_and_say_how_many_would_do():
    """Equal numbers, but a quarter of the 40 answers changed: the interval is as wide as it is."""
    reference = [1, 0] * 20
    challenger = flipped(flipped(reference, 5, 0), 0, 1)
    challenger = [1 if i in (31, 33, 35, 37, 39) else one for i, one in enumerate(challenger)]
    result = judge(challenger, reference)
    assert result.value == result.reference
    assert not result.ok
    assert "cannot exclude a drop of 0.05" in result.reason
    asked = int(result.reason.rsplit("about ", 1)[1].split()[0])
    assert asked > 40
    more = judge(challenger * (asked // 40 + 2), reference * (asked // 40 + 2))
    assert more.ok, more.reason


def test_equal_answers_hold_but_not_of_a_handful():
    assert judge(HALF, HALF).ok
    assert "10 samples, fewer than the 30" in judge(HALF[:10], HALF[:10]).reason
    few = judge(HALF[:60], HALF[:60])
    assert not few.ok  # models that differ by 0.05 answer 60 samples alike once in 20 times
    assert few.reason.endswith("about 74 samples would")
    assert judge(HALF[:74], HALF[:74]).ok
    assert judge([1] * 60, HALF[:60]).ok


def test_other_samples_do_not_compare():
    assert "answered other samples" in judge(HALF[:100], HALF[:98]).reason


def test_each_error_is_rare():
    """Models exactly as good as the reference, and models worse than worst_drop, judged on 300 fresh samples each."""
    random, refused, passed = np.random.default_rng(7), 0, 0
    for _ in range(60):
        reference = (random.random(300) < 0.6).astype(int)
        noise = random.random(300) < 0.05  # answers that change for no reason
        same = np.where(noise, random.random(300) < 0.6, reference)
        worse = np.where(random.random(300) < 0.22, 0, reference)  # loses 0.13 on average
        refused += judge(same.tolist(), reference.tolist(), worst_drop=0.08).ok is False
        passed += judge(worse.tolist(), reference.tolist(), worst_drop=0.08).ok
    assert refused <= 4
    assert passed <= 2


@pytest.mark.parametrize(("samples", "worst"), [(30, 0.02), (30, 0.05), (100, 0.02), (100, 0.05), (200, 0.02)])
def test_a_drop_beyond_the_worst_passes_in_no_more_than_a_fortieth_of_evaluations(samples, worst):
    """Exactly, over how many samples a model loses that is worse by 5 % more than allowed."""
    passes = [
        judge([0] * lost + [1] * (samples - lost), [1] * samples, max_drop=0.0, worst_drop=worst).ok
        for lost in range(12)
    ]
    assert not passes[-1]
    assert sum(binom.pmf(lost, samples, 1.05 * worst) for lost, ok in enumerate(passes) if ok) <= 0.025


@pytest.mark.parametrize(("samples", "lost"), [(30, 0), (60, 1), (200, 3), (200, 20)])
def test_the_ends_for_samples_that_are_lost_or_kept_are_those_of_clopper_and_pearson(samples, lost):
    reference = {f"s{i}": 1.0 for i in range(samples)}
    found = difference(reference | {f"s{i}": 0.0 for i in range(lost)}, reference)
    assert found.low == pytest.approx(-beta.ppf(0.975, lost + 1, samples - lost), rel=0.02)


def test_a_fair_model_is_not_called_worse_for_a_handful_of_losses():
    """Of models that win as often as they lose, one in 32 loses all of the 5 samples that differ; of 6, one in 64."""
    assert not judge([0] * 5 + [1] * 295, [1] * 300, max_drop=0.0, worst_drop=0.01).reason.startswith("dropped")
    assert judge([0] * 6 + [1] * 294, [1] * 300, max_drop=0.0, worst_drop=0.01).reason.startswith("dropped")


@pytest.mark.parametrize("odd", [NAN, float("inf"), 57.0])
def test_a_sample_that_is_no_share_refuses(odd):
    """A metric of 0 to 100 has no worst loss of 1, and NaN no place in a mean."""
    gate = GateConfig(metric=METRIC, max_drop=0.01, worst_drop=0.05)
    whole = measured(HALF)
    broken = Measured(whole.metrics, {METRIC: whole.samples[METRIC] | {"s7": odd}})
    (result,) = check([gate], broken, whole)
    assert not result.ok
    assert result.reason.startswith(f"challenger: 1 of 400 samples are not from 0 to 1, s7 is {odd}")
    (result,) = check([gate], whole, broken)
    assert result.reason.startswith("champion: 1 of 400")


def test_pairs_tell_what_two_intervals_cannot():
    """The same gain on every sample is certain but for what was not seen, however much the samples differ."""
    hard = 0.9 * np.random.default_rng(0).random(400)
    found = difference(
        {f"s{i}": value + 0.01 for i, value in enumerate(hard)}, {f"s{i}": value for i, value in enumerate(hard)}
    )
    assert found.mean == pytest.approx(0.01)
    unseen = 3.7 / 400
    assert found.mean - 1.05 * unseen < found.low < found.mean < found.high < found.mean + 1.05 * unseen
    assert found.samples == 400


def test_the_interval_is_that_of_the_normal_law_where_it_holds():
    gains = np.random.default_rng(1).normal(0.02, 0.3, 2000)
    found = difference({f"s{i}": g for i, g in enumerate(gains)}, {f"s{i}": 0.0 for i in range(2000)})
    half = 1.96 * gains.std() / np.sqrt(2000)
    assert found.low == pytest.approx(gains.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(gains.mean() + half, abs=0.1 * half)
    assert found == difference({f"s{i}": g for i, g in enumerate(gains)}, {f"s{i}": 0.0 for i in range(2000)})
