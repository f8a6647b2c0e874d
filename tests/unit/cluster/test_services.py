"""Services of dev start with options that their programs have."""

import configparser
import importlib.util
import subprocess
import sys
from pathlib import Path

import mlflow
import mlflow.cli
import pytest
from mlflow.environment_variables import _EnvironmentVariable

from tests.unit.cluster.manifests import CLUSTER, objects, pods


def container(name):
    found = [each for manifest in objects("dev") for pod in pods(manifest) for each in pod["containers"]]
    [wanted] = [each for each in found if each["name"] == name]
    return wanted


def environment(name):
    return {each["name"]: each.get("value") for each in container(name)["env"]}


def test_the_tracking_server_takes_its_options():
    command, *options = container("mlflow")["args"]
    assert command == "server"
    context = mlflow.cli.server.make_context("server", options)
    taken = context.params
    assert taken["app_name"] == "basic-auth"
    assert taken["host"] == "0.0.0.0"
    assert taken["backend_store_uri"].startswith("postgresql+psycopg2://mlflow@postgres")
    assert taken["serve_artifacts"]
    assert "mlflow:5000" in taken["allowed_hosts"].split(",")


def test_variables_of_the_tracking_server_are_known_to_it():
    variables = vars(mlflow.environment_variables).values()
    known = {each.name for each in variables if isinstance(each, _EnvironmentVariable)}
    assert {name for name in environment("mlflow") if name.startswith("MLFLOW_")} <= known


def test_nobody_reads_or_writes_without_an_account(tmp_path):
    [config] = [each for each in objects("dev") if each["metadata"]["name"].startswith("mlflow-auth")]
    parsed = configparser.ConfigParser()
    parsed.read_string(config["data"]["basic_auth.ini"])
    assert parsed["mlflow"]["default_permission"] == "READ"
    assert "admin_password" not in parsed["mlflow"]
    assert "@postgres" in parsed["mlflow"]["database_uri"]
    assert {"MLFLOW_AUTH_ADMIN_USERNAME", "MLFLOW_AUTH_ADMIN_PASSWORD", "PGPASSWORD"} <= environment("mlflow").keys()
    assert environment("mlflow")["MLFLOW_AUTH_CONFIG_PATH"] == "/etc/mlflow/basic_auth.ini"


def test_the_configuration_of_accounts_is_one_that_the_server_reads(monkeypatch):
    file = Path(mlflow.__file__).parent / "server" / "auth" / "config.py"  # the package around it wants Flask-WTF
    spec = importlib.util.spec_from_file_location("auth_config", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(CLUSTER / "services" / "basic_auth.ini"))
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_USERNAME", "admin")
    monkeypatch.setenv("MLFLOW_AUTH_ADMIN_PASSWORD", "of the secret")
    read = module.read_auth_config()
    assert (read.admin_username, read.admin_password, read.default_permission) == ("admin", "of the secret", "READ")


@pytest.mark.parametrize("option", ["dir", "ip.bind", "s3.port", "bucket", "webdav", "admin.ui"])
def test_the_s3_server_knows_its_options(option):
    command = [str(Path(sys.executable).with_name("weed")), "help", "mini"]
    told = subprocess.run(command, capture_output=True, text=True)
    assert f"-{option}" in " ".join(container("s3")["args"])
    assert f"  -{option}" in told.stdout + told.stderr
