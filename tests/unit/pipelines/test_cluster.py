"""Which Ray a pipeline runs on, and what it says when that Ray is not there."""

import platform
import signal
import socket

import pytest
import ray
from ray._private.utils import check_version_info

from pipelines import cluster
from pipelines.cluster import connect, decoders, own_sigterm
from tpo_core.config.load import load_recipe
from tpo_core.errors import TpoError


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize("address", ["127.0.0.1:{free}", "http://127.0.0.1:8265", "nonsense"])
def test_a_stale_address_is_one_line_at_once(address, monkeypatch):
    address = address.format(free=free_port())
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(TpoError) as caught, connect(load_recipe("quickstart")):
        pytest.fail("there is no Ray")
    message = str(caught.value)
    assert message.startswith(f"no Ray at RAY_ADDRESS={address} (")
    assert "unset it to run on this machine" in message
    assert "\n" not in message


def test_another_ray_than_the_cluster_has_is_one_line(monkeypatch):
    def refuse(**_):
        check_version_info({"ray_version": "2.55.1", "python_version": "3.11.7"}, "10.0.0.7")

    monkeypatch.setenv("RAY_ADDRESS", "auto")
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(TpoError) as caught, connect(load_recipe("quickstart")):
        pytest.fail("connected")
    assert str(caught.value) == (
        f"the cluster runs Ray 2.55.1 on Python 3.11.7, this process Ray {ray.__version__} on Python"
        f" {platform.python_version()}: give both the same image, or install requirements.txt on both"
    )


def test_an_image_with_another_ray_than_the_code_pins_is_one_line(tmp_path, monkeypatch):
    """There driver and cluster agree, and Ray says nothing."""
    monkeypatch.setattr(cluster, "REQUIREMENTS", tmp_path / "requirements.txt")
    monkeypatch.setattr(ray, "init", lambda **_: pytest.fail("connected"))
    cluster.REQUIREMENTS.write_text("rayon==1.0\nray[default,train]==2.55.1  # pinned\n")
    with pytest.raises(TpoError) as caught, connect(load_recipe("quickstart")):
        pytest.fail("connected")
    assert str(caught.value) == (
        f"this process has Ray {ray.__version__}, and requirements.txt of this code wants 2.55.1: build the image again"
        " from this code, or install requirements.txt"
    )


@pytest.mark.parametrize("pins", [None, "numpy==2.0\n", f"ray=={ray.__version__}\n"])
def test_the_pinned_ray_passes_and_so_does_code_that_came_without_pins(pins, tmp_path, monkeypatch):
    if pins is not None:
        (tmp_path / "requirements.txt").write_text(pins)
    monkeypatch.setattr(cluster, "REQUIREMENTS", tmp_path / "requirements.txt")
    cluster.check_version()


def test_the_pins_are_those_of_this_code():
    assert f"]=={ray.__version__}" in cluster.REQUIREMENTS.read_text(encoding="utf-8")


def test_a_recipe_says_which_nodes_decode():
    assert decoders(load_recipe("quickstart")) == {"cpus": None, "group": None}
    chosen = load_recipe("quickstart", ["nodes.preprocess=cpu", "nodes.decode_workers=64"])
    assert decoders(chosen) == {"cpus": 64, "group": "cpu"}


def test_ray_leaves_sigterm_to_those_who_had_it():
    former = signal.getsignal(signal.SIGTERM)
    with own_sigterm():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what ray.init does
    assert signal.getsignal(signal.SIGTERM) == former
