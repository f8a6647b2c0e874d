"""Ray nodes on this machine that share no network but a bridge: each in a network namespace of its own, so that it can
be cut off as by a broken cable, and all of its processes killed as by a power cut. Needs root."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.job_head import RAY, environment

NET = "10.77.31"
HERE = f"{NET}.1"  # of this machine, on the bridge
PREFIX = "tpo-"
BRIDGE = f"{PREFIX}bridge"
GCS_PORT, DASHBOARD_PORT = 6379, 8265
OBJECT_STORE_BYTES = 200_000_000
DEADLINE_S = 300.0


def possible() -> bool:
    """Whether this process may make network namespaces and bridges."""
    return os.getuid() == 0 and bool(shutil.which("ip")) and not subprocess.run(
        ["unshare", "--net", "true"], check=False, capture_output=True
    ).returncode  # fmt: skip


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


class Machine:
    """One of them. number: the last part of its address. folder: for its log and its scratch files."""

    def __init__(self, name: str, number: int, folder: Path) -> None:
        self.name, self.address, self.folder = name, f"{NET}.{number}", folder
        self.space, self.cable, self.plug = f"{PREFIX}{name}", f"{PREFIX}{name}", f"{PREFIX}{name}-in"
        folder.mkdir()
        ip("netns", "add", self.space)
        ip("link", "add", self.cable, "type", "veth", "peer", "name", self.plug, "netns", self.space)
        ip("link", "set", self.cable, "master", BRIDGE, "up")
        for words in (
            ["addr", "add", f"{self.address}/24", "dev", self.plug], ["link", "set", self.plug, "up"],
            ["link", "set", "lo", "up"],
        ):  # fmt: skip
            ip("-n", self.space, *words)

    def start(self, *words: str, **variables: str) -> None:
        """A Ray node there, with these arguments of `ray start`."""
        # A /tmp/ray of its own: nodes that start at once take the same names for their sockets. Processes of its own: a
        # head does not start where others are seen that follow its address.
        enter = 'mkdir -p /tmp/ray "$0" && mount --bind "$0" /tmp/ray && exec "$@"'
        command = ["ip", "netns", "exec", self.space, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
        command += ["sh", "-c", enter, str(self.folder / "ray")]
        command += [RAY, "start", "--block", f"--node-ip-address={self.address}"]
        command += ["--disable-usage-stats", f"--object-store-memory={OBJECT_STORE_BYTES}", *words]
        # Gloo would take the address that this host's name stands for, which is the loopback of each machine.
        own = {"TPO_SCRATCH": str(self.folder / "scratch"), "GLOO_SOCKET_IFNAME": self.plug}
        with (self.folder / "ray.log").open("a") as log:
            subprocess.Popen(
                command,
                env=environment() | own | variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def cut_off(self) -> None:
        """Its processes live on, and reach nobody."""
        ip("link", "set", self.cable, "down")

    def kill(self) -> None:
        """All of its processes, at once."""
        kill_all(self.space)


@contextmanager
def machines(names: list[str], folder: Path) -> Iterator[dict[str, Machine]]:
    """Machines by name, on one bridge with this one."""
    clear()  # what a test left that was killed
    ip("link", "add", BRIDGE, "type", "bridge")
    made: dict[str, Machine] = {}
    try:
        ip("addr", "add", f"{HERE}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for number, name in enumerate(names, start=10):
            made[name] = Machine(name, number, folder / name)
        yield made
    finally:
        clear()


def clear() -> None:
    """No machine, no cable and no bridge afterwards."""
    for space in [line.split()[0] for line in ip("netns", "list").splitlines()]:
        if space.startswith(PREFIX):
            kill_all(space)
            ip("netns", "del", space)
    names = [line.split()[1].rstrip(":").partition("@")[0] for line in ip("-oneline", "link").splitlines()]
    for name in names:
        if name.startswith(PREFIX):  # the kernel may be slow to take a cable away with its namespace, or just be at it
            subprocess.run(["ip", "link", "del", name], check=False, capture_output=True)


def kill_all(space: str) -> None:
    """Of a network namespace, every process."""
    for pid in ip("netns", "pids", space).split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue
    until(lambda: not ip("netns", "pids", space).split(), f"the end of what runs in {space}")


@contextmanager
def redis(folder: Path, port: int) -> Iterator[str]:
    """The address of a Redis that outlives the head."""
    command = ["redis-server", "--port", str(port), "--bind", HERE, "--protected-mode", "no", "--save", ""]
    with (folder / "redis.log").open("w") as log:
        server = subprocess.Popen([*command, "--dir", str(folder)], stdout=log, stderr=subprocess.STDOUT)
    try:
        yield f"{HERE}:{port}"
    finally:
        server.terminate()
        server.wait()


def until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.2)
