"""Run a chain of steps, each at most once for what it computes.

Layout: `<work>/<step>/<fingerprint12>/` holds a committed result, `<fingerprint12>.partial` the work of a step that has
not finished (in the scratch folder when <work> is on S3), `<fingerprint12>.lease` says who is at it.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.execution.artifact import RECORD, Artifact
from tpo_core.execution.fingerprint import canonical, differences
from tpo_core.execution.lease import Lease
from tpo_core.execution.messages import ago, one_line
from tpo_core.execution.position import Position
from tpo_core.execution.provenance import describe_process, utc_now
from tpo_core.execution.steps import Step, StepContext, fingerprints, select
from tpo_core.storage import local
from tpo_core.storage import uri as uris
from tpo_core.storage.commit import commit, is_committed

SHOWN = 3  # differing fields named in a reason


@dataclass(frozen=True)
class _Job:
    """A step with its place."""

    step: Step
    fingerprint: str
    inputs: dict[str, str]
    uri: str
    staging: Path

    def line(self, verb: str, text: str) -> str:
        return f"{verb:<6}  {self.step.name:<28}  {self.fingerprint[:12]}  {text}"


def run_steps(
    steps: Sequence[Step],
    work_uri: str,
    *,
    dry_run: bool = False,
    from_step: str | None = None,
    until_step: str | None = None,
    echo: Callable[[str], None] = print,
) -> dict[str, Artifact]:
    """Run what is not finished yet, in order, and return the artifacts by step name.

    Prints RUN, RESUME or SKIP with the reason for each step, DONE with its duration, or FAIL; and where the chain
    stands, with an estimate from earlier runs in the same work folder. Steps before `from_step`
    are only looked up, steps after `until_step` left alone. `dry_run` prints and touches nothing; it returns what is
    there. TpoError for an unknown step, a missing input, an output that a live process is making, a full disk; what a
    step raises is passed on, and its partial output stays, so that the same call resumes it.
    """
    prints = fingerprints(steps)
    looked_up, to_run = select(steps, from_step, until_step)
    jobs = {step.name: _place(step, prints, work_uri) for step in [*looked_up, *to_run]}
    position = _position([jobs[step.name] for step in to_run], work_uri)
    artifacts: dict[str, Artifact] = {}
    for step in [*looked_up, *to_run]:
        job = jobs[step.name]
        position.loads |= {each.name: load for each in to_run if (load := each.load(artifacts)) is not None}
        if is_committed(job.uri):
            artifacts[step.name] = _skip(job, echo)
        elif step in looked_up:
            raise TpoError(f"step {step.name!r} has no result for this recipe: start at it, not at {from_step!r}")
        elif dry_run:
            echo(job.line(*_why(job, work_uri)))
        else:
            inputs = {name: artifacts[name] for name in step.inputs}
            artifacts[step.name] = _make(job, work_uri, inputs, position, echo)
    return artifacts


def _position(jobs: list[_Job], work_uri: str) -> Position:
    """Of a launch that is to run what of these steps has no result."""
    missing = [job.step.name for job in jobs if not is_committed(job.uri)]
    last = {job.step.name: newest(uris.join(work_uri, job.step.name), _is_whole) for job in jobs}
    took_s = {name: artifact.provenance["seconds"] for name, artifact in last.items() if artifact is not None}
    return Position([job.step.name for job in jobs], missing, took_s)


def _is_whole(artifact: Artifact) -> bool:
    """Whether its seconds are those of a step from its beginning to its end."""
    return not artifact.provenance["resumed"]


def _place(step: Step, prints: dict[str, str], work_uri: str) -> _Job:
    short = prints[step.name][:12]
    uri = uris.join(work_uri, step.name, short)
    if uris.is_local(uri):
        staging = local.to_path(f"{uri}.partial")
    else:
        staging = uris.scratch_dir() / "staged" / f"{uri.partition('://')[2]}.partial"
    return _Job(step, prints[step.name], {name: prints[name] for name in step.inputs}, uri, staging)


def _skip(job: _Job, echo: Callable[[str], None]) -> Artifact:
    artifact = Artifact.load(job.uri)
    assert artifact.fingerprint == job.fingerprint, f"{job.uri} holds another result of the same short name"
    echo(job.line("SKIP", f"finished {_age(artifact)}"))
    return artifact


def _why(job: _Job, work_uri: str) -> tuple[str, str]:
    """RESUME or RUN, and the reason."""
    if job.staging.is_dir() and any(job.staging.iterdir()):
        return "RESUME", f"left unfinished {ago(time.time() - job.staging.stat().st_mtime)}"
    earlier = newest(uris.join(work_uri, job.step.name))
    if earlier is None:
        return "RUN", "no earlier result"
    changes = list(differences(earlier.identity, job.step.identity))
    if earlier.version != job.step.version:
        changes.append(f"code version {earlier.version} -> {job.step.version}")
    for name in dict.fromkeys([*earlier.inputs, *job.inputs]):
        if name not in earlier.inputs or name not in job.inputs:
            changes.append(f"upstream {name} {'added' if name in job.inputs else 'removed'}")
        elif earlier.inputs[name] != job.inputs[name]:
            changes.append(f"upstream {name} changed")
    more = f", {len(changes) - SHOWN} more" if len(changes) > SHOWN else ""
    return "RUN", ", ".join(changes[:SHOWN]) + more


def newest(folder: str, wanted: Callable[[Artifact], bool] = lambda artifact: True) -> Artifact | None:
    """The artifact of a step that finished last, of those that are wanted."""
    found = [uris.join(folder, name) for name in uris.list_names(folder) if "." not in name]
    artifacts = [artifact for uri in found if is_committed(uri) and wanted(artifact := Artifact.load(uri))]
    return max(artifacts, key=lambda artifact: artifact.provenance["finished_at"]) if artifacts else None


def _make(
    job: _Job, work_uri: str, inputs: dict[str, Artifact], position: Position, echo: Callable[[str], None]
) -> Artifact:
    with Lease(f"{job.uri}.lease", echo=lambda text: echo(job.line("LEASE", text))) as lease:
        if is_committed(job.uri):  # another process finished it while we came to the lease
            return _skip(job, echo)
        verb, reason = _why(job, work_uri)
        echo(job.line(verb, f"{reason}  {position.before(job.step.name)}"))
        started, began_s = utc_now(), time.monotonic()
        try:
            with local.disk_full_told(job.staging):
                job.staging.mkdir(parents=True, exist_ok=True)
                context = StepContext(
                    job.staging,
                    inputs,
                    resumed=verb == "RESUME",
                    fingerprint=job.fingerprint,
                    position=partial(position.within, job.step.name),
                )
                result = job.step.fn(context)
            artifact = _finish(job, result, started, time.monotonic() - began_s, verb == "RESUME", lease)
        except BaseException as error:
            echo(job.line("FAIL", f"after {time.monotonic() - began_s:.1f} s: {one_line(error)}"))
            raise
        if _is_whole(artifact):
            position.took_s[job.step.name] = artifact.provenance["seconds"]
        echo(job.line("DONE", f"in {time.monotonic() - began_s:.1f} s  {position.after(job.step.name)}"))
        return artifact


def _finish(
    job: _Job, result: dict[str, Any], started: datetime, seconds: float, resumed: bool, lease: Lease
) -> Artifact:
    """Write the record, then commit."""
    canonical(result)  # a result that JSON cannot hold is an error here, not for the next reader
    (job.staging / RECORD).unlink(missing_ok=True)  # of a try that failed at its commit
    files = [path for path in job.staging.rglob("*") if path.is_file()]
    artifact = Artifact(
        step=job.step.name,
        version=job.step.version,
        uri=job.uri,
        fingerprint=job.fingerprint,
        inputs=job.inputs,
        identity=job.step.identity,
        result=result,
        provenance={
            **describe_process(),
            "started_at": started.isoformat(),
            "finished_at": utc_now().isoformat(),
            "seconds": round(seconds, 3),
            "resumed": resumed,
            "files": len(files),
            "bytes": sum(path.stat().st_size for path in files),
        },
    )
    uris.write_json(job.staging / RECORD, artifact.record())
    if not lease.held():
        raise TpoError(f"another process took over {job.uri} while this one was silent: its result is left alone")
    commit(job.staging, job.uri)
    return artifact


def _age(artifact: Artifact) -> str:
    return ago((utc_now() - datetime.fromisoformat(artifact.provenance["finished_at"])).total_seconds())
