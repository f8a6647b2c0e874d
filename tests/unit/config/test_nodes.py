"""Groups of nodes: what they become in Ray, and that they enter no fingerprint."""

import pytest

from tpo_core.config.load import load_recipe
from tpo_core.config.nodes import group_of, group_resources
from tpo_core.config.schema import identity
from tpo_core.errors import TpoError


def test_a_group_is_a_grain_of_a_custom_resource():
    assert group_resources(None) == {}
    [(resource, amount)] = group_resources("gpu-a").items()
    assert 0 < amount <= 1 / 1000
    assert round(amount / 1e-4) * 1e-4 == pytest.approx(amount)  # Ray counts in ten-thousandths
    assert group_of(resource) == "gpu-a"
    assert group_of("CPU") is None


def test_groups_change_no_fingerprint():
    overrides = ["nodes.train=gpu", "nodes.preprocess=cpu", "nodes.evaluate=gpu", "nodes.decode_workers=4"]
    assert identity(load_recipe("quickstart", overrides)) == identity(load_recipe("quickstart"))


@pytest.mark.parametrize("group", ["GPU", "a b", "-x", "''"])
def test_a_group_is_named_as_kubernetes_names_groups(group):
    with pytest.raises(TpoError, match=r"^recipe quickstart: nodes.train = "):
        load_recipe("quickstart", [f"nodes.train={group}"])
