"""What Prometheus is told of the chain, with a stand-in for Ray's gauge."""

import pytest

from pipelines import gauges
from pipelines.gauges import watched
from tpo_core.execution.steps import Step


@pytest.fixture
def values(monkeypatch):
    found = {}

    class Recorded:
        def __init__(self, name, description, tag_keys):
            self.name, self.tag_keys = name, tag_keys

        def set(self, value, tags):
            assert tuple(tags) == self.tag_keys
            found[self.name, *tags.values()] = value

    monkeypatch.setattr(gauges, "Gauge", Recorded)
    return found


def test_a_step_is_told_while_it_runs_and_a_phase_as_both(values):
    seen = []
    steps = [
        Step("preprocess", seen.append, {}),
        Step("mix", lambda ctx: seen.append(dict(values)) or {"ran": ctx}, {}),
    ]
    preprocess, mix = watched(steps, {"mix"})
    preprocess.fn("context")
    assert seen == ["context"]
    assert values == {("tpo_chain_step_running", "preprocess"): 0}
    assert mix.fn("context") == {"ran": "context"}
    assert seen[1]["tpo_chain_step_running", "mix"] == seen[1]["tpo_chain_phase_running", "mix"] == 1
    assert values["tpo_chain_step_running", "mix"] == values["tpo_chain_phase_running", "mix"] == 0


def test_a_step_that_fails_runs_no_more(values):
    def fail(_):
        raise RuntimeError("no")

    [step] = watched([Step("preprocess", fail, {})], ())
    with pytest.raises(RuntimeError, match=r"^no$"):
        step.fn(None)
    assert values == {("tpo_chain_step_running", "preprocess"): 0}


def test_all_else_of_a_step_stays():
    step = Step("preprocess", print, {"data": 1}, ("render",), 7)
    [same] = watched([step], ())
    assert (same.name, same.identity, same.inputs, same.version) == ("preprocess", {"data": 1}, ("render",), 7)
