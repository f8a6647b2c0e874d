import pytest

from tpo_core.config.schema import GateConfig
from tpo_core.tracking.gates import check

METRIC = "test/region/acc@0.5"
NAN = float("nan")


@pytest.mark.parametrize(
    ("value", "reference", "rule", "ok", "reason"),
    [
        (0.80, 0.70, {}, True, "at least 0.7000"),
        (0.70, 0.70, {}, True, "at least 0.7000"),
        (0.69, 0.70, {}, False, "below 0.7000"),
        (0.69, 0.70, {"max_drop": 0.02}, True, "at least 0.6800"),
        (0.71, 0.70, {"max_drop": -0.05}, False, "below 0.7500"),
        (0.80, 0.70, {"min_value": 0.9}, False, "below the floor 0.9"),
        (None, 0.70, {}, False, "challenger: not measured"),
        (NAN, 0.70, {}, False, "challenger: is nan"),
        (0.80, None, {}, False, "champion: not measured"),
        (0.80, float("inf"), {}, False, "champion: is inf"),
        (0.80, NAN, {"against": "base"}, False, "base: is nan"),
    ],
)
def test_one_gate(value, reference, rule, ok, reason):
    challenger = {} if value is None else {METRIC: value}
    other = {} if reference is None else {METRIC: reference}
    (result,) = check([GateConfig(metric=METRIC, **rule)], challenger, other)
    assert (result.ok, result.reason) == (ok, reason)


def test_without_a_reference_the_floor_decides():
    gates = [GateConfig(metric=METRIC, min_value=0.5), GateConfig(metric=METRIC, min_value=0.9)]
    assert [result.ok for result in check(gates, {METRIC: 0.7}, None)] == [True, False]
