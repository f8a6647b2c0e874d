"""What is said of workers that failed more often than allowed."""

import pytest
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError

from tests.unit.train.in_process import phase_job
from tpo_core.errors import RunFailedError, StorageTroubleError
from tpo_core.train.gave_up import gave_up

DEAD = WorkerHealthCheckFailedError("A worker health check failed.", ActorDiedError())


def test_dead_workers_are_told_in_one_line_that_says_how_to_go_on(tmp_path):
    told = gave_up({1: DEAD, 3: DEAD}, phase_job(tmp_path, max_failures=2))
    assert isinstance(told, RunFailedError)
    assert "train.max_failures (2)" in str(told)
    assert "rank 1 (ActorDiedError: The actor died unexpectedly" in str(told)
    assert "the same command goes on from the newest checkpoint" in str(told)
    assert "\n" not in str(told)


@pytest.mark.parametrize("others", [{}, {0: DEAD}, {0: RuntimeError("connection closed by peer")}])
def test_what_a_worker_said_for_people_comes_before_what_the_others_died_of(tmp_path, others):
    error = StorageTroubleError("s3://b/k: the storage failed 8 times; run again when it has recovered")
    assert gave_up({**others, 2: error}, phase_job(tmp_path)) is error


@pytest.mark.parametrize("failures", [{}, {0: KeyError("region")}])
def test_a_bug_keeps_its_traceback(tmp_path, failures):
    assert gave_up(failures, phase_job(tmp_path)) is None
