"""One hash for what is computed, and the fields that differ between two."""

import pytest

from tpo_core.execution.fingerprint import canonical, differences, fingerprint

BASE = ("train", 1, {"lr": {"lora": 1e-4}, "seed": 0}, {"data": "abc"})


def test_a_known_fingerprint():
    """A golden value: if it moves, every finished result of every user is computed again."""
    assert fingerprint(*BASE) == "0e084e7007120d614dd54f4b4fa967d292a4f44fc058d7606062227ccd313a11"


def test_the_order_of_keys_does_not_matter():
    assert fingerprint("train", 1, {"seed": 0, "lr": {"lora": 0.0001}}, {"data": "abc"}) == fingerprint(*BASE)


@pytest.mark.parametrize(
    "other",
    [
        ("train2", *BASE[1:]),
        ("train", 2, *BASE[2:]),
        ("train", 1, {"lr": {"lora": 2e-4}, "seed": 0}, BASE[3]),
        (*BASE[:3], {"data": "abd"}),
        (*BASE[:3], {}),
        ("train", 1, {"lr": {"lora": 1e-4}, "seed": "0"}, BASE[3]),
    ],
)
def test_everything_that_determines_the_result_counts(other):
    assert fingerprint(*other) != fingerprint(*BASE)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_hold_is_refused(value):
    with pytest.raises(ValueError, match="JSON"):
        canonical({"lr": value})


def test_objects_are_refused():
    with pytest.raises(TypeError):
        canonical({"path": object()})


@pytest.mark.parametrize(
    ("old", "new", "lines"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": 0.0001}}, {"a": {"b": 0.0002}}, ["a.b 0.0001 -> 0.0002"]),
        ({"a": 1}, {"b": 2}, ["a 1 -> nothing", "b nothing -> 2"]),
        ({"a": [1, 2]}, {"a": [1, 3]}, ["a [1, 2] -> [1, 3]"]),
        ({"a": None}, {"a": {"b": 1}}, ['a null -> {"b": 1}']),
        (
            {"phases": [{"name": "mix", "steps": 1}, {"name": "old", "steps": 1}]},
            {"phases": [{"name": "mix", "steps": 2}]},
            ["phases.mix.steps 1 -> 2", 'phases.old {"name": "old", "steps": 1} -> nothing'],
        ),
        ({"a": "x" * 100}, {"a": "y"}, [f'a "{"x" * 44}... -> "y"']),
    ],
)
def test_differences_name_the_field(old, new, lines):
    assert list(differences(old, new)) == lines
