"""What is particular to S3: one line for what a user can mend, parts for large files, deadlines."""

from types import SimpleNamespace

import pytest
from boto3.exceptions import RetriesExceededError
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)

from tests.conftest import use_endpoint
from tests.s3_server import Faults, faulty_proxy
from tpo_core.errors import StorageTroubleError, TpoError
from tpo_core.storage import s3, uri


def test_a_bucket_that_is_not_there(bucket):
    with pytest.raises(TpoError, match=r"^s3://nowhere/x: there is no such bucket$"):
        uri.list_names("s3://nowhere/x")


def test_a_bucket_is_a_folder(bucket):
    assert not uri.exists(bucket)
    uri.write_bytes(f"{bucket}/a/x", b"12345")
    assert uri.exists(bucket)
    assert uri.size_bytes(bucket) == 5
    assert uri.list_names(bucket) == ["a"]


def test_looking_for_a_folder_lists_none_of_its_neighbours(bucket, monkeypatch):
    for number in range(3):
        uri.write_bytes(f"{bucket}/images-old/{number}", b"1")  # before "images/" in the order of keys
    uri.write_bytes(f"{bucket}/images/0", b"1")
    monkeypatch.setattr(s3.client(), "get_paginator", lambda _: pytest.fail("pages through the neighbours"))
    assert uri.exists(f"{bucket}/images")
    assert uri.exists(f"{bucket}/images-old/1")
    assert not uri.exists(f"{bucket}/image")
    assert not uri.exists(f"{bucket}/images/0/x")


def test_reading_with_wrong_credentials_is_one_line(bucket, monkeypatch):
    uri.write_bytes(f"{bucket}/x", b"1")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    s3.file_system.cache_clear()
    with pytest.raises(TpoError, match="access denied; check the credentials"):
        uri.read_bytes(f"{bucket}/x")


def test_a_file_is_streamed(bucket):
    content = bytes(range(256)) * 1000
    uri.write_bytes(f"{bucket}/x", content)
    with uri.open_read(f"{bucket}/x") as file:
        assert file.read(5) == content[:5]
        assert file.read() == content[5:]
    with pytest.raises(FileNotFoundError, match="absent"):
        uri.open_read(f"{bucket}/absent")


def test_a_uri_without_a_bucket():
    with pytest.raises(TpoError, match="names no bucket"):
        s3.split("s3:///x")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ClientError({"Error": {"Code": "AccessDenied"}}, "PutObject"), "access denied"),
        (ClientError({"Error": {"Code": "NoSuchBucket"}}, "PutObject"), "no such bucket"),
        (ClientError({"Error": {"Code": "SignatureDoesNotMatch"}}, "PutObject"), "AWS_SECRET_ACCESS_KEY"),
        (ClientError({"Error": {"Code": "RequestTimeTooSkewed"}}, "PutObject"), r"the clock of this machine .*NTP"),
        (ClientError({"Error": {"Code": "ExpiredToken"}}, "PutObject"), "AWS_SESSION_TOKEN"),
        (NoCredentialsError(), "no credentials"),
        (EndpointConnectionError(endpoint_url="http://localhost:1"), "AWS_ENDPOINT_URL"),
        (ConnectTimeoutError(endpoint_url="http://localhost:1"), "AWS_ENDPOINT_URL"),
        (ReadTimeoutError(endpoint_url="http://localhost:1"), "does not answer"),
        (ClientError({"Error": {"Code": "SlowDown"}}, "PutObject"), r"failed 8 times; run again .*SlowDown"),
        (ClientError({"Error": {"Code": "500"}}, "HeadObject"), "run again when it has recovered"),
        (RetriesExceededError(OSError("reset")), "transfer failed"),
    ],
)
def test_refusals_are_one_line_with_the_remedy(bucket, monkeypatch, error, message):
    def refuse(**_):
        raise error

    monkeypatch.setattr(s3.client(), "put_object", refuse)
    with pytest.raises(TpoError, match=message) as caught:
        uri.write_bytes(f"{bucket}/x", b"1")
    assert "\n" not in str(caught.value)
    assert f"{bucket}/x" in str(caught.value)
    may_pass = any(word in message for word in ("recovered", "failed", "AWS_ENDPOINT_URL", "does not answer"))
    assert isinstance(caught.value, StorageTroubleError) == may_pass


@pytest.mark.parametrize("name", ["INTERNAL_FAILURE", "SLOW_DOWN", "SERVICE_UNAVAILABLE"])
def test_a_storage_that_fails_while_it_is_read_is_one_line(monkeypatch, name):
    def fail(*_: object, **__: object) -> None:
        raise OSError(f"When reading: AWS Error {name} during GetObject operation")

    monkeypatch.setattr(s3, "file_system", lambda: SimpleNamespace(open_input_stream=fail))
    with pytest.raises(StorageTroubleError, match="run again when it has recovered"):
        uri.read_bytes("s3://bucket/x")


def test_a_clock_that_is_off_is_told_when_reading_too(monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise OSError("When reading: AWS Error REQUEST_TIME_TOO_SKEWED during GetObject operation: the difference")

    monkeypatch.setattr(s3, "file_system", lambda: SimpleNamespace(open_input_stream=fail))
    with pytest.raises(TpoError, match=r"^s3://bucket/x: the clock of this machine .*set it \(NTP\)$"):
        uri.read_bytes("s3://bucket/x")


def test_other_errors_keep_their_name(bucket, monkeypatch):
    def fail(**_):
        raise ClientError({"Error": {"Code": "InvalidRequest"}}, "PutObject")

    monkeypatch.setattr(s3.client(), "put_object", fail)
    with pytest.raises(ClientError):
        uri.write_bytes(f"{bucket}/x", b"1")
    with pytest.raises(ClientError):
        uri.write_new(f"{bucket}/x", b"1")


def test_large_files_go_in_parts(bucket, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "large").write_bytes(bytes(9 << 20))
    s3.upload_tree(tmp_path / "tree", f"{bucket}/x", last="_SUCCESS")
    head = s3.client().head_object(Bucket=bucket.removeprefix("s3://"), Key="x/large")
    assert head["ContentLength"] == 9 << 20
    assert head["ETag"].strip('"').endswith("-2")


def test_listing_goes_beyond_one_page(bucket, monkeypatch):
    for name in ("a", "b", "c"):
        uri.write_bytes(f"{bucket}/run/{name}", b"1")
    paginator = s3.client().get_paginator("list_objects_v2")
    real = paginator.paginate

    def one_at_a_time(**call):
        return real(**call, PaginationConfig={"PageSize": 1})

    monkeypatch.setattr(paginator, "paginate", one_at_a_time)
    monkeypatch.setattr(s3.client(), "get_paginator", lambda _: paginator)
    assert uri.list_names(f"{bucket}/run") == ["a", "b", "c"]
    assert uri.size_bytes(f"{bucket}/run") == 3


def test_the_client_has_deadlines_and_follows_the_endpoint(bucket, monkeypatch):
    config = s3.client().meta.config
    assert (config.connect_timeout, config.read_timeout) == (10, 60)
    assert config.retries["total_max_attempts"] == 8
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:8333")
    s3.client.cache_clear()
    assert s3.client().meta.endpoint_url == "http://localhost:8333"


FAULTS = {"errors": {"errors": 0.3}, "resets": {"resets": 0.3}, "slow": {"slow": 1.0}}


@pytest.mark.parametrize("kind", FAULTS)
def test_faults_on_the_way_cost_time_and_no_bytes(bucket, s3_endpoint, monkeypatch, tmp_path, kind):
    faults = Faults(seed=1, **FAULTS[kind])
    content = {f"{number}.bin": bytes([number]) * 50_000 for number in range(6)}
    with faulty_proxy(s3_endpoint, faults) as endpoint:
        use_endpoint(monkeypatch, endpoint)
        for name, data in content.items():
            uri.write_bytes(f"{bucket}/in/{name}", data)
        assert uri.list_names(f"{bucket}/in") == sorted(content)
        assert {name: uri.read_bytes(f"{bucket}/in/{name}") for name in content} == content
        s3.download_tree(f"{bucket}/in", tmp_path / "in")
        s3.upload_tree(tmp_path / "in", f"{bucket}/out", last="0.bin")
        use_endpoint(monkeypatch, s3_endpoint)
    assert {name: (tmp_path / "in" / name).read_bytes() for name in content} == content
    assert {name: uri.read_bytes(f"{bucket}/out/{name}") for name in content} == content
    assert sum(faults.counts.values()) >= 6, faults.counts
