"""Which Ray a pipeline runs on, and what it says when that Ray is not there."""

import signal
import socket

import pytest

from pipelines.cluster import connect, own_sigterm
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


def test_ray_leaves_sigterm_to_those_who_had_it():
    former = signal.getsignal(signal.SIGTERM)
    with own_sigterm():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what ray.init does
    assert signal.getsignal(signal.SIGTERM) == former
