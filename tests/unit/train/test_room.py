"""What is said where a cluster is too small, and how long nodes are waited for."""

import pytest
import ray

from tpo_core.config.nodes import group_resources
from tpo_core.errors import TpoError
from tpo_core.train import room as rooms
from tpo_core.train.room import Room, fits, joins, room


def nodes(*resources):
    return [{"Alive": True, "Resources": each} for each in resources]


@pytest.fixture
def small(monkeypatch):
    """A Ray of two nodes, each with two CPUs and one GPU, and a third that died."""
    there = nodes({"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0})
    monkeypatch.setattr(ray, "nodes", lambda: [*there, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}])
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(rooms, "LOOK_EVERY_S", 0.01)
    return there


def asked(count, each, echo=pytest.fail):
    return Room(count, each, "train.workers", "ask for less", echo)


def test_an_empty_address_is_none(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert not joins()
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert joins()


@pytest.mark.parametrize(
    ("each", "count"),
    [({"CPU": 0.5}, 8), ({"CPU": 0.4}, 10), ({"GPU": 1.0}, 2), ({"CPU": 0.5, "GPU": 0.5}, 4), ({"CPU": 1.5}, 2),
     ({"CPU": 3.0}, 0), ({"TPU": 1.0}, 0)],
)  # fmt: skip
def test_room_is_counted_node_by_node(small, each, count):
    assert room(each) == count
    assert asked(count, each).there()


def test_what_asks_for_nothing_always_fits():
    assert fits({}, {}) > 10**5


@pytest.mark.parametrize(
    ("count", "each", "said"),
    [
        (1, {"CPU": 1.0, "GPU": 2.0}, "1 CPU and 2 GPU: it has 4 CPU and 2 GPU on 2 nodes together, room for 0"),
        (4, {"CPU": 1.5}, "4 x (1.5 CPU): it has 4 CPU and 2 GPU on 2 nodes together, room for 2"),
        (
            1,
            {"CPU": 1.0, **group_resources("gpu")},
            "1 CPU on a node of group gpu: it has 4 CPU and 2 GPU on 2 nodes together, room for 0, of group (none)",
        ),
    ],
)
def test_a_ray_of_our_own_that_is_too_small_is_refused_at_once(small, count, each, said):
    with pytest.raises(TpoError) as caught:
        asked(count, each).wait()
    assert str(caught.value) == f"Ray has no room for train.workers, {said}: ask for less"


def test_a_single_node_is_told_as_one(small):
    small.pop()
    with pytest.raises(TpoError, match="it has 2 CPU and 1 GPU on its node: ask for less"):
        asked(3, {"CPU": 1.0}).there()


def test_a_cluster_that_was_joined_may_grow_and_is_given_time(small, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    lines = []

    def echo(line):
        lines.append(line)
        small.extend(nodes({"CPU": 8.0, "GPU": 2.0}))  # what an autoscaler does

    asked(1, {"CPU": 1.0, "GPU": 2.0}, echo).wait()
    [line] = lines
    assert line.endswith("room for 0: waiting up to 20 min for an autoscaler to bring nodes")


def test_patience_has_an_end_and_starts_anew_when_there_was_room(small, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    lines = []
    wanted = asked(2, {"GPU": 1.0}, lines.append)
    assert wanted.there()
    lost = small.pop()
    assert not wanted.there()
    assert not wanted.there()
    small.append(lost)
    assert wanted.there()
    small.pop()
    assert not wanted.there()
    assert len(lines) == 2  # one for each loss
    monkeypatch.setattr(rooms, "ROOM_WAIT_S", 1e-9)
    with pytest.raises(TpoError, match="1 GPU on its node: ask for less"):
        wanted.wait()


def test_a_group_that_the_cluster_lacks_is_told_beside_those_that_it_has(monkeypatch):
    monkeypatch.setattr(ray, "nodes", lambda: nodes({"CPU": 4.0, "node_group_cpu": 1.0}, {"CPU": 0.0}))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(TpoError, match=r"2 x \(1 CPU on a node of group gpu\): .* room for 0, of group cpu: ask"):
        asked(2, {"CPU": 1.0, **group_resources("gpu")}).there()
    assert asked(1, {"CPU": 4.0, **group_resources("cpu")}).there()
    assert "of group" not in asked(1, {"CPU": 5.0}).shortage()
