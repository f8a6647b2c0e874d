"""What a run of Ray Train that failed for good has to tell."""

from collections.abc import Mapping

from tpo_core.errors import RunFailedError, TpoError, in_one_line
from tpo_core.train.job import PhaseJob


def gave_up(failures: Mapping[int, Exception], job: PhaseJob) -> TpoError | RunFailedError | None:
    """The one line for workers that failed once more than allowed; None where only a traceback says what was wrong.

    failures: of each rank that failed last. What one said for people is that line, whatever the others died of: they
    lost their partner. Where nobody said anything, processes or nodes are gone, which Ray notices as failed health
    checks. Any other exception is a bug.
    """
    told = [failure for failure in failures.values() if isinstance(failure, TpoError | RunFailedError)]
    if told:
        return told[0]
    gone = {rank: failure for rank, failure in failures.items() if "HealthCheck" in type(failure).__name__}
    if not gone:
        return None
    rank, failure = min(gone.items())
    cause = getattr(failure, "health_check_failure", failure)
    allowed = job.recipe.train.max_failures
    return RunFailedError(
        f"{job.name}: workers died more often than train.max_failures ({allowed}) allows, at last rank {rank} "
        f"({in_one_line(cause)[:300]}); the same command goes on from the newest checkpoint once the reason is mended "
        "(too little memory is a frequent one)"
    )
