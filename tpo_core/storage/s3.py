"""Objects in S3 or anything that speaks it. The functions of `tpo_core.storage.uri`, for s3://bucket/key.

Listing and writing go through boto3, which gives ETags, conditional puts and multipart upload; reading goes through
pyarrow.fs, which asks for ranges and repeats one whose connection breaks in the middle. AWS_ENDPOINT_URL, credentials
and region come from the environment. A request is tried at most 8 times, with 10 s to connect and 60 s to answer each.
"""

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import boto3
import pyarrow.fs
from boto3.exceptions import Boto3Error
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError, NoCredentialsError
from botocore.exceptions import ConnectionError as NoConnection

from tpo_core.errors import StorageTroubleError, TpoError
from tpo_core.storage.local import Entry

REFUSALS = {
    "NoSuchBucket": "there is no such bucket",
    "AccessDenied": "access denied; check the credentials and the bucket's policy",
    "403": "access denied; check the credentials and the bucket's policy",
    "InvalidAccessKeyId": "unknown access key; check AWS_ACCESS_KEY_ID",
    "SignatureDoesNotMatch": "wrong secret key; check AWS_SECRET_ACCESS_KEY",
    "RequestTimeTooSkewed": "the clock of this machine is too far from the storage's to sign a request; set it (NTP)",
    "ExpiredToken": "the session token has expired; get a new one (AWS_SESSION_TOKEN)",
}
NO_ANSWER = "the S3 endpoint does not answer; check AWS_ENDPOINT_URL and the network"
ATTEMPTS = 8
TROUBLE = f"the storage failed {ATTEMPTS} times; run again when it has recovered"
IN_TROUBLE = ("InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout", "500", "502", "503", "504")
READ_REFUSALS = {  # as pyarrow names them
    "ACCESS_DENIED": REFUSALS["AccessDenied"],
    "REQUEST_TIME_TOO_SKEWED": REFUSALS["RequestTimeTooSkewed"],
    "NETWORK_CONNECTION": NO_ANSWER,
    "INTERNAL_FAILURE": TROUBLE,
    "SLOW_DOWN": TROUBLE,
    "SERVICE_UNAVAILABLE": TROUBLE,
    "REQUEST_TIMEOUT": TROUBLE,
}
CONNECT_TIMEOUT_S = 10
ANSWER_TIMEOUT_S = 60
READ_AHEAD_BYTES = 8 << 20
ABSENT = ("404", "NoSuchKey", "NotFound")


@functools.cache
def client() -> Any:
    """One client a process; boto3 clients are thread-safe."""
    retries = {"mode": "standard", "total_max_attempts": ATTEMPTS}
    config = Config(retries=retries, connect_timeout=CONNECT_TIMEOUT_S, read_timeout=ANSWER_TIMEOUT_S)
    return boto3.client("s3", config=config)


@functools.cache
def file_system() -> pyarrow.fs.S3FileSystem:
    """One file system a process, with the endpoint and the region that boto3 found."""
    return pyarrow.fs.S3FileSystem(
        endpoint_override=client().meta.endpoint_url if "AWS_ENDPOINT_URL" in os.environ else None,
        region=client().meta.region_name,
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=ANSWER_TIMEOUT_S,
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of s3://bucket/key."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    if not bucket:
        raise TpoError(f"{uri!r} names no bucket: write s3://bucket/path")
    return bucket, key.rstrip("/")


def exists(uri: str) -> bool:
    """Two requests at most: listing what begins with `key` would go through all of "images-old/" to find "images/"."""
    bucket, key = split(uri)
    with _told(uri):
        below = client().list_objects_v2(Bucket=bucket, Prefix=f"{key}/" if key else "", MaxKeys=1)
    return bool(below.get("Contents")) or (bool(key) and entry(uri) is not None)


def read_bytes(uri: str) -> bytes:
    """FileNotFoundError for an object that is not there, as for a local file."""
    with _told(uri), open_read(uri) as file:
        return file.read()


def open_read(uri: str) -> BinaryIO:
    """Streamed in ranges of `READ_AHEAD_BYTES`."""
    bucket, key = split(uri)
    with _told(uri):
        return cast(BinaryIO, file_system().open_input_stream(f"{bucket}/{key}", buffer_size=READ_AHEAD_BYTES))


def write_bytes(uri: str, data: bytes) -> None:
    """A put is atomic: readers see the old object or the new one."""
    bucket, key = split(uri)
    with _told(uri):
        client().put_object(Bucket=bucket, Key=key, Body=data)


def write_new(uri: str, data: bytes) -> bool:
    """Write an object that must not be there yet; False, and nothing changed, if it is."""
    bucket, key = split(uri)
    with _told(uri):
        try:
            client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
        except ClientError as error:
            if error.response["Error"]["Code"] in ("PreconditionFailed", "412", "ConditionalRequestConflict"):
                return False
            raise
    return True


def list_names(uri: str) -> list[str]:
    bucket, key = split(uri)
    prefix = f"{key}/" if key else ""
    with _told(uri):
        names = set()
        pages = client().get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=bucket, Prefix=prefix, Delimiter="/"):
            names |= {each["Prefix"].removeprefix(prefix).rstrip("/") for each in page.get("CommonPrefixes", [])}
            names |= {each["Key"].removeprefix(prefix) for each in page.get("Contents", [])}
    return sorted(names - {""})


def entries(uri: str) -> dict[str, Entry]:
    bucket, key = split(uri)
    prefix, found = f"{key}/" if key else "", {}
    with _told(uri):
        for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, Delimiter="/"):
            for each in page.get("Contents", []):
                found[each["Key"].removeprefix(prefix)] = Entry(each["Size"], each["ETag"].strip('"'))
    return found


def tree(uri: str) -> Iterator[tuple[str, Entry]]:
    bucket, key = split(uri)
    prefix = f"{key}/" if key else ""
    with _told(uri):
        for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for each in page.get("Contents", []):
                yield each["Key"].removeprefix(prefix), Entry(each["Size"], each["ETag"].strip('"'))


def entry(uri: str) -> Entry | None:
    bucket, key = split(uri)
    try:
        with _told(uri):
            head = client().head_object(Bucket=bucket, Key=key)
    except FileNotFoundError:
        return None
    return Entry(head["ContentLength"], head["ETag"].strip('"'))


def put_file(path: Path, uri: str) -> None:
    bucket, key = split(uri)
    with _told(uri):
        client().upload_file(str(path), bucket, key)
    path.unlink()


def size_bytes(uri: str) -> int:
    bucket, key = split(uri)
    with _told(uri):
        sizes = [size for each, size in _objects(bucket, key) if not key or each == key or each.startswith(f"{key}/")]
    if not sizes:
        raise FileNotFoundError(uri)
    return sum(sizes)


def delete(uri: str) -> None:
    bucket, key = split(uri)
    with _told(uri):
        for each, _ in list(_objects(bucket, key)):
            if each == key or each.startswith(f"{key}/"):
                client().delete_object(Bucket=bucket, Key=each)


def upload_tree(root: Path, uri: str, *, last: str) -> None:
    """Upload every file below `root`; the one named `last` goes when all others have arrived."""
    bucket, key = split(uri)
    files = sorted(each for each in root.rglob("*") if each.is_file())
    with _told(uri):
        for file in sorted(files, key=lambda each: each == root / last):
            client().upload_file(str(file), bucket, f"{key}/{file.relative_to(root).as_posix()}")


def download_tree(uri: str, root: Path) -> None:
    """Download every object below `uri` to the folder `root`."""
    bucket, key = split(uri)
    with _told(uri):
        for each, _ in _objects(bucket, f"{key}/"):
            target = root / each.removeprefix(f"{key}/")
            target.parent.mkdir(parents=True, exist_ok=True)
            client().download_file(bucket, each, str(target))


def _objects(bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
    """Key and size of all objects below a prefix."""
    for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for each in page.get("Contents", []):
            yield each["Key"], each["Size"]


@contextmanager
def _told(uri: str) -> Iterator[None]:
    """Turn what a user can mend into one line, and an absent object into FileNotFoundError."""
    try:
        yield
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ABSENT:
            raise FileNotFoundError(uri) from error
        if code in IN_TROUBLE:
            raise StorageTroubleError(f"{uri}: {TROUBLE} ({code})") from error
        if code not in REFUSALS:
            raise
        raise TpoError(f"{uri}: {REFUSALS[code]}") from error
    except NoCredentialsError as error:
        raise TpoError(f"{uri}: no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") from error
    except (NoConnection, HTTPClientError) as error:
        raise StorageTroubleError(f"{uri}: {NO_ANSWER}") from error
    except Boto3Error as error:
        raise StorageTroubleError(f"{uri}: transfer failed: {' '.join(str(error).split())}") from error
    except FileNotFoundError as error:
        raise FileNotFoundError(uri) from error
    except OSError as error:
        refusal = next((text for name, text in READ_REFUSALS.items() if f"AWS Error {name} " in str(error)), None)
        if refusal is None:
            raise
        raise (StorageTroubleError if refusal in (NO_ANSWER, TROUBLE) else TpoError)(f"{uri}: {refusal}") from error
