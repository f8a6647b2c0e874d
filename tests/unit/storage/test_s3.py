"""What is particular to S3: one line for what a user can mend, parts for large files, deadlines."""

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from tpo_core.errors import TpoError
from tpo_core.storage import s3, uri


def test_a_bucket_that_is_not_there(bucket):
    with pytest.raises(TpoError, match=r"^s3://nowhere/x: there is no such bucket$"):
        uri.write_bytes("s3://nowhere/x", b"1")
    with pytest.raises(TpoError, match="no such bucket"):
        uri.list_names("s3://nowhere/x")


def test_a_uri_without_a_bucket():
    with pytest.raises(TpoError, match="names no bucket"):
        s3.split("s3:///x")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ClientError({"Error": {"Code": "AccessDenied"}}, "PutObject"), "access denied"),
        (ClientError({"Error": {"Code": "SignatureDoesNotMatch"}}, "PutObject"), "AWS_SECRET_ACCESS_KEY"),
        (NoCredentialsError(), "no credentials"),
        (EndpointConnectionError(endpoint_url="http://localhost:1"), "AWS_ENDPOINT_URL"),
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


def test_other_errors_keep_their_name(bucket, monkeypatch):
    def fail(**_):
        raise ClientError({"Error": {"Code": "InternalError"}}, "PutObject")

    monkeypatch.setattr(s3.client(), "put_object", fail)
    with pytest.raises(ClientError):
        uri.write_bytes(f"{bucket}/x", b"1")
    with pytest.raises(ClientError):
        uri.write_new(f"{bucket}/x", b"1")


def test_large_files_go_in_parts(bucket, tmp_path):
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "large").write_bytes(bytes(9 << 20))
    s3.upload_tree(tmp_path / "tree", f"{bucket}/x", last="_SUCCESS")
    head = boto3.client("s3").head_object(Bucket="results", Key="x/large")
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
