"""Which Ray a pipeline runs on, and what it says when that Ray is not there or too small."""

import socket

import pytest
import ray

from pipelines import cluster
from pipelines.cluster import connect, joins, wait_for_room
from tpo_core.config.load import load_recipe
from tpo_core.errors import TpoError


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("address", [f"127.0.0.1:{free_port()}", "http://127.0.0.1:8265", "nonsense"])
def test_a_stale_address_is_one_line_at_once(address, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(TpoError) as caught, connect(load_recipe("quickstart")):
        pytest.fail("there is no Ray")
    message = str(caught.value)
    assert message.startswith(f"no Ray at RAY_ADDRESS={address} (")
    assert "unset it to run on this machine" in message
    assert "\n" not in message


def test_an_empty_address_is_none(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert not joins()
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    assert joins()


def nodes(*resources):
    return [{"Alive": True, "Resources": each} for each in resources]


@pytest.fixture
def small(monkeypatch):
    """A Ray of two nodes, each with two CPUs and one GPU, and a third that died."""
    there = nodes({"CPU": 2.0, "GPU": 1.0}, {"CPU": 2.0, "GPU": 1.0})
    monkeypatch.setattr(ray, "nodes", lambda: [*there, {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}}])
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 4.0, "GPU": 2.0})
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(cluster, "SHOW_EVERY_S", 0.01)
    return there


def test_a_node_that_is_large_enough_is_all_that_is_asked(small):
    lines = []
    wait_for_room({"CPU": 1.0, "GPU": 1.0}, lines.append)
    wait_for_room({"CPU": 1.0, "GPU": 0.0}, lines.append)
    assert lines == []


def test_a_ray_of_our_own_that_is_too_small_is_refused_at_once(small):
    with pytest.raises(TpoError) as caught:
        wait_for_room({"CPU": 1.0, "GPU": 2.0}, pytest.fail)
    assert str(caught.value) == (
        "Ray found no room for an evaluation, 1 CPU and 2 GPU (train.gpus_per_worker) on one node: the cluster has"
        " 4 CPU, 2 GPU in all; ask for less or add such a node"
    )


def test_a_cluster_that_was_joined_may_grow_and_is_given_time(small, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    lines = []

    def echo(line):
        lines.append(line)
        small.extend(nodes({"CPU": 8.0, "GPU": 2.0}))  # what an autoscaler does

    wait_for_room({"CPU": 1.0, "GPU": 2.0}, echo)
    assert lines == ["no node has 1 CPU and 2 GPU yet: waiting up to 20 min for an autoscaler to bring one"]
    monkeypatch.setattr(cluster, "ROOM_WAIT_S", 0.05)
    with pytest.raises(TpoError, match="Ray found no room for an evaluation, 1 CPU and 4 GPU"):
        wait_for_room({"CPU": 1.0, "GPU": 4.0}, lines.append)
