"""A bucket that takes no results is told before the first step, in one line."""

import pytest
from botocore.exceptions import ClientError, NoCredentialsError

from pipelines.checks import check_writable
from tests.unit.train.stub import stub_recipe
from tpo_core.errors import TpoError
from tpo_core.storage import s3
from tpo_core.storage import uri as uris


def test_places_on_a_disk_are_left_to_the_check_of_places(tmp_path):
    check_writable(stub_recipe(checkpoint_uri=str(tmp_path / "checkpoints")), str(tmp_path / "runs"))
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_where_results_may_go(bucket):
    check_writable(stub_recipe(checkpoint_uri=f"{bucket}/checkpoints"), f"{bucket}/runs")
    assert not uris.exists(bucket)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ClientError({"Error": {"Code": "AccessDenied"}}, "PutObject"), "access denied; check the credentials and the"),
        (ClientError({"Error": {"Code": "RequestTimeTooSkewed"}}, "PutObject"), "the clock of this machine"),
        (NoCredentialsError(), "no credentials; set AWS_ACCESS_KEY_ID"),
    ],
)
def test_a_bucket_that_may_only_be_read_and_keys_that_lack(bucket, monkeypatch, error, said):
    def refuse(**_):
        raise error

    monkeypatch.setattr(s3.client(), "put_object", refuse)
    with pytest.raises(TpoError, match=rf"^{bucket}/runs/\.probe-\w+: {said}") as caught:
        check_writable(stub_recipe(), f"{bucket}/runs")
    assert "\n" not in str(caught.value)
