"""A PostgreSQL of this machine, an MLflow server on it, and a server that has nothing but trouble."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

START_DEADLINE_S = 120.0


def postgres_bin() -> Path | None:
    """The folder with initdb and postgres, of the newest PostgreSQL that Debian's packages have put here."""
    return max(Path("/usr/lib/postgresql").glob("*/bin/initdb"), default=Path("/")).parent if _there() else None


def _there() -> bool:
    return any(Path("/usr/lib/postgresql").glob("*/bin/initdb"))


def free_port() -> int:
    with socket.socket() as each:
        each.bind(("127.0.0.1", 0))
        return int(each.getsockname()[1])


@contextmanager
def postgres() -> Iterator[str]:
    """The URI of an empty database. PostgreSQL refuses to run as root: then it runs as the user `postgres`."""
    programs, port = postgres_bin(), free_port()
    assert programs is not None
    user = "postgres" if os.getuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="tpo-pg-"))  # pytest's own folders are closed to other users
    if user is not None:
        shutil.chown(folder, user)
    who = user or pwd.getpwuid(os.getuid()).pw_name
    how = {"user": user, "cwd": folder, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([programs / "initdb", "-D", folder / "data", "-A", "trust", "-U", who], check=True, **how)
    command = [programs / "postgres", "-D", folder / "data", "-p", str(port), "-k", folder, "-c", "fsync=off"]
    server = subprocess.Popen([*command, "-h", "127.0.0.1"], **how)
    try:
        _until(lambda: subprocess.run([programs / "pg_isready", "-h", "127.0.0.1", "-p", str(port)], **how).returncode)
        yield f"postgresql+psycopg2://{who}@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait()
        shutil.rmtree(folder)


@contextmanager
def mlflow_server(database: str, artifacts: str, log: Path, port: int, host: str = "127.0.0.1") -> Iterator[str]:
    """The URI of a server that keeps runs in a database and hands artifacts on to a store. host: the address of this
    machine that it listens on."""
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", database, "--workers", "1"]
    command += ["--artifacts-destination", artifacts, "--host", host, "--port", str(port)]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with log.open("ab") as out:
        server = subprocess.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        _until(lambda: _silent(f"http://{host}:{port}/health"))
        yield f"http://{host}:{port}"
    finally:
        os.killpg(server.pid, 9)  # its workers are of its own group
        server.wait()


@contextmanager
def broken_server() -> Iterator[str]:
    """The URI of a server that answers everything with status 500."""

    class Handler(BaseHTTPRequestHandler):
        def _fail(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(500)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _fail

        def log_message(self, *args: object) -> None:
            """Nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _silent(url: str) -> bool:
    try:
        with urlopen(url, timeout=5):
            return False
    except (URLError, ConnectionError, TimeoutError):
        return True


def _until(failing) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + START_DEADLINE_S
    while failing():
        assert time.monotonic() < end, "the server did not start"
        time.sleep(0.2)
