"""What a real S3 server refuses, in one line: keys that may only read, and what a machine signs whose clock is off."""

import json
import uuid
from datetime import timedelta

import boto3
import botocore.auth
import pytest

from pipelines.checks import check_writable
from tests.conftest import use_endpoint
from tests.s3_server import KEYS, s3_server
from tests.unit.train.stub import stub_recipe
from tpo_core.errors import TpoError
from tpo_core.storage import s3
from tpo_core.storage import uri as uris

READER = {"AWS_ACCESS_KEY_ID": "tpo-reader", "AWS_SECRET_ACCESS_KEY": "tpo-reader-secret"}
MAY = {"owner": ["Admin", "Read", "List", "Tagging", "Write"], "reader": ["Read", "List"]}


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """A server that knows an owner and a reader."""
    folder = tmp_path_factory.mktemp("s3")
    identities = [
        {
            "name": name,
            "credentials": [{"accessKey": keys["AWS_ACCESS_KEY_ID"], "secretKey": keys["AWS_SECRET_ACCESS_KEY"]}],
            "actions": MAY[name],
        }
        for name, keys in (("owner", KEYS), ("reader", READER))
    ]
    (folder / "identities.json").write_text(json.dumps({"identities": identities}))
    (folder / "data").mkdir()
    with s3_server(folder / "data", options=[f"-s3.config={folder / 'identities.json'}"]) as found:
        yield found


@pytest.fixture
def mistaken(endpoint, monkeypatch):
    """A bucket with one object, for its owner until `forget` has new clients made."""
    use_endpoint(monkeypatch, endpoint)
    name = f"test-{uuid.uuid4().hex}"
    s3.client().create_bucket(Bucket=name)
    uris.write_bytes(f"s3://{name}/there", b"1")
    yield f"s3://{name}"
    monkeypatch.undo()
    forget()


def forget():
    boto3.setup_default_session()  # which keeps the keys that it found first
    s3.client.cache_clear()
    s3.file_system.cache_clear()


def refused(bucket):
    """The one line of the check that comes before the first step."""
    with pytest.raises(TpoError, match=rf"^{bucket}/runs/\.probe-\w+: ") as caught:
        check_writable(stub_recipe(), f"{bucket}/runs")
    assert "\n" not in str(caught.value)
    return str(caught.value).partition(": ")[2]


def test_keys_that_may_only_read(mistaken, monkeypatch):
    for name, value in READER.items():
        monkeypatch.setenv(name, value)
    forget()
    assert uris.read_bytes(f"{mistaken}/there") == b"1"
    assert uris.list_names(mistaken) == ["there"]
    assert refused(mistaken).startswith("access denied; check the credentials")


def test_a_machine_whose_clock_is_an_hour_off(mistaken, monkeypatch):
    now = botocore.auth.get_current_datetime
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *args: now(*args) - timedelta(hours=1))
    assert refused(mistaken).startswith("the clock of this machine is too far from the storage's")
