"""A Ray of its own to which jobs are submitted as to a cluster's."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.tracking_servers import free_port

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))
DEADLINE_S = 240.0


def environment() -> dict[str, str]:
    """A job's `python` is the first on the PATH of the head, which listens on this host alone and needs no token."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    found = {**os.environ, "PATH": path, "RAY_AUTH_MODE": "disabled", "HF_HUB_OFFLINE": "1"}
    found.pop("RAY_ADDRESS", None)
    return found


@contextmanager
def head(log: Path) -> Iterator[str]:
    """The address that takes jobs."""
    port = free_port()
    command = [RAY, "start", "--head", "--block", "--node-ip-address=127.0.0.1", "--port=0", "--num-cpus=2"]
    command += [f"--dashboard-port={port}", "--disable-usage-stats", "--object-store-memory=500000000"]
    with log.open("w") as file:
        process = subprocess.Popen(
            command, env=environment(), stdout=file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/api/version", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()  # `ray start --block` takes its children along
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(url: str, process: subprocess.Popen, log: Path) -> None:
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            urllib.request.urlopen(url, timeout=2).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < end, log.read_text()
            time.sleep(0.3)


def submit(address: str, words: list[str]) -> tuple[int, str]:
    """`ray job submit --working-dir . -- python WORDS`: its status, and what it said."""
    command = [RAY, "job", "submit", "--address", address, "--working-dir", ".", "--log-color", "false"]
    end = time.monotonic() + DEADLINE_S
    while True:
        done = subprocess.run(
            [*command, "--", "python", *words],
            cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        # The dashboard answers some seconds before its agent can take a job.
        if "No available agent" not in done.stdout or time.monotonic() > end:
            return done.returncode, done.stdout
        time.sleep(1.0)
