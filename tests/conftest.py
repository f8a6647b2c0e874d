"""Fixtures of several rooms: an S3 server, and a bucket of one's own in it."""

import uuid

import pytest

from tests.s3_server import KEYS, s3_server
from tpo_core.storage import s3


@pytest.fixture(scope="session", autouse=True)
def _own_scratch_folder(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TPO_SCRATCH", str(tmp_path_factory.mktemp("scratch")))
        yield


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory):
    with s3_server(tmp_path_factory.mktemp("s3")) as endpoint:
        yield endpoint


def use_endpoint(monkeypatch, endpoint):
    """Points boto3 and pyarrow of this process and its children at an S3 server."""
    for name, value in {**KEYS, "AWS_DEFAULT_REGION": "us-east-1", "AWS_ENDPOINT_URL": endpoint}.items():
        monkeypatch.setenv(name, value)
    s3.client.cache_clear()
    s3.file_system.cache_clear()


@pytest.fixture
def bucket(s3_endpoint, monkeypatch, tmp_path):
    """s3://<a new bucket>; copies of what is fetched from it go below tmp_path."""
    monkeypatch.setenv("TPO_SCRATCH", str(tmp_path / "scratch"))
    use_endpoint(monkeypatch, s3_endpoint)
    name = f"test-{uuid.uuid4().hex}"
    s3.client().create_bucket(Bucket=name)
    yield f"s3://{name}"
    s3.client.cache_clear()
    s3.file_system.cache_clear()
