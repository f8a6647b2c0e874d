"""An S3 bucket in this process."""

import boto3
import pytest
from moto import mock_aws

from tpo_core.storage import s3


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TPO_SCRATCH": str(tmp_path / "scratch"),
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    s3.client.cache_clear()
    with mock_aws():
        boto3.client("s3").create_bucket(Bucket="results")
        yield "s3://results"
    s3.client.cache_clear()
