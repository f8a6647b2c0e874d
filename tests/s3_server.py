"""A real S3 server (SeaweedFS) on this machine, and a proxy before it that breaks what passes through."""

from __future__ import annotations

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

KEYS = {"AWS_ACCESS_KEY_ID": "tpo-tests", "AWS_SECRET_ACCESS_KEY": "tpo-tests-secret"}
START_DEADLINE_S = 60.0
PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port.grpc",
)
OFF = ("webdav", "admin.ui")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def s3_server(folder: Path, host: str = "127.0.0.1", options: Sequence[str] = ()) -> Iterator[str]:
    """The endpoint of a server that keeps its data in `folder` and knows the credentials `KEYS`. host: the address of
    this machine that it listens on. options: more of `weed mini`."""
    port, *others = _free_ports(1 + len(PORTS))
    command = [str(Path(sys.executable).with_name("weed")), "mini", f"-dir={folder}", f"-s3.port={port}"]
    command += [f"-ip={host}", f"-ip.bind={host}", *(f"-{name}=false" for name in OFF)]
    command += [f"-{name}={other}" for name, other in zip(PORTS, others, strict=True)]
    # Each bucket takes volumes of its own. By default their number falls with the free disk: a session of tests with
    # 50 GB left was refused its 51st.
    command += ["-s3.port.iceberg=0", "-s3.port.lance=0", "-volume.max=10000"]
    command += options
    log = folder / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=os.environ | KEYS, stdout=out, stderr=out)
    try:
        _wait(f"http://{host}:{port}/healthz", server, log)
        yield f"http://{host}:{port}"
    finally:
        server.send_signal(signal.SIGKILL)
        server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, ConnectionError, TimeoutError):
            if server.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"the S3 server did not start: {log.read_text()[-2000:]}") from None
            time.sleep(0.1)


class Faults:
    """What the proxy does to a request: an answer 500 instead of one, a connection that is reset in the middle of the
    body, a body that comes in drops. Each with its own probability, drawn from one seed; `counts` says how often."""

    def __init__(self, seed: int, *, errors: float = 0.0, resets: float = 0.0, slow: float = 0.0) -> None:
        self._random, self._lock = random.Random(seed), threading.Lock()
        self._shares = {"error": errors, "reset": resets, "slow": slow}
        self.counts = dict.fromkeys(self._shares, 0)

    def draw(self) -> str | None:
        with self._lock:
            at = self._random.random()
            for name, share in self._shares.items():
                if at < share:
                    self.counts[name] += 1
                    return name
                at -= share
            return None


@contextmanager
def faulty_proxy(endpoint: str, faults: Faults) -> Iterator[str]:
    """The endpoint of a proxy in front of an S3 server."""
    upstream = endpoint.removeprefix("http://")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _pass(self) -> None:
            body = self._body()
            fault = faults.draw()
            if fault == "error":
                self.send_response(500)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            connection = http.client.HTTPConnection(upstream, timeout=60)
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "transfer-encoding"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            content = answer.read()
            connection.close()
            self._answer(answer, content, fault)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self, answer: http.client.HTTPResponse, content: bytes, fault: str | None) -> None:
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                    self.send_header(name, value)
            if answer.getheader("Content-Length") is None:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if fault == "reset":
                self.wfile.write(content[: len(content) // 2])
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
            elif fault == "slow":
                for start in range(0, len(content), 1 + len(content) // 4):
                    time.sleep(0.05)
                    self.wfile.write(content[start : start + 1 + len(content) // 4])
            else:
                self.wfile.write(content)

        def do_GET(self) -> None:
            try:
                self._pass()
            except ConnectionError:  # the client gave up on what was broken
                self.close_connection = True

        do_PUT = do_POST = do_HEAD = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
