"""The MLflow of dev, with the arguments and the accounts of its manifest, on a database of this machine: who has no
account sees nothing."""

import os
import subprocess
import sys
import time

import pytest
import requests

from tests.tracking_servers import free_port
from tests.unit.cluster.manifests import CLUSTER
from tests.unit.cluster.test_services import container

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
DEADLINE_S = 200.0
ADMIN = ("admin", "of-the-secret-tpo-mlflow")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    pytest.importorskip("flask_wtf", reason="needs Flask-WTF, which the image of the server has")
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    here = {
        "--host": "127.0.0.1",
        "--port": str(port),
        "--workers": "1",
        "--backend-store-uri": f"sqlite:///{folder}/runs.db",
        "--artifacts-destination": str(folder / "artifacts"),
    }
    options = [option.partition("=")[::2] for option in container("mlflow")["args"][1:]]
    words = [f"{name}={here.get(name, value)}" for name, value in options]
    accounts = (CLUSTER / "services" / "basic_auth.ini").read_text(encoding="utf-8")
    uri = next(line for line in accounts.splitlines() if line.startswith("database_uri"))
    (folder / "basic_auth.ini").write_text(accounts.replace(uri, f"database_uri = sqlite:///{folder}/accounts.db"))
    environment = os.environ | {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "basic_auth.ini"),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_AUTH_ADMIN_USERNAME": ADMIN[0],
        "MLFLOW_AUTH_ADMIN_PASSWORD": ADMIN[1],
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-secret-too",
    }
    with (folder / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *words],
            env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        end = time.monotonic() + DEADLINE_S
        while not up(f"http://127.0.0.1:{port}/health"):
            told = (folder / "server.log").read_text()
            assert process.poll() is None, told
            assert time.monotonic() < end, told
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(process.pid, 9)  # its workers are of its own group
        process.wait()


def up(url):
    try:
        return ask(url).status_code == 200
    except requests.ConnectionError:
        return False


def ask(url, account=None, host="mlflow:5000"):
    """As a pod asks, whose request names the service."""
    return requests.get(url, auth=account, headers={"Host": host}, timeout=30)


def test_nobody_sees_experiments_without_an_account(server):
    url = f"{server}/api/2.0/mlflow/experiments/search?max_results=10"
    assert ask(url).status_code == 401
    assert ask(url, (ADMIN[0], "password1234")).status_code == 401  # the default of MLflow
    found = ask(url, ADMIN)
    assert found.status_code == 200
    assert [each["name"] for each in found.json()["experiments"]] == ["Default"]


def test_a_request_for_another_host_is_refused(server):
    url = f"{server}/api/2.0/mlflow/experiments/search?max_results=10"
    assert ask(url, ADMIN, host="localhost:5000").status_code == 200  # a forwarded port
    assert ask(url, ADMIN, host="evil.example.com").status_code == 403
