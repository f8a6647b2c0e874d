"""Records the report of an evaluation in MLflow: the page, the table, and the numbers, in a run of its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from tpo_core.tracking.server import MlflowClient, MlflowException, connect, legal_name
from tpo_core.tracking.tracker import MlflowTracker

FOLDER = "report"
RUN_DEADLINE_S = 15.0  # for the server to say which run it is
DEADLINE_S = 120.0  # a page of some MB to a server far away; nothing waits for it but this
_TAG = "tpo_report"


def log_report(
    uri: str, experiment: str, name: str, *, page: Path, table: Path, numbers: Mapping[str, float], parent: str | None
) -> str | None:
    """Logs a report to the run `name` below the run `parent` (an id; None: a run that stands alone).

    The same name continues the same run: the files are replaced, numbers that are there already are left as they are,
    and those that have changed become the next point of their curve. Returns what was lost, in words; None for nothing.
    """
    key = hashlib.sha256(f"{parent or ''}/{name}".encode()).hexdigest()
    tracker = MlflowTracker(
        uri,
        experiment,
        name,
        key=(_TAG, key),
        find_parent=None if parent is None else lambda client: parent,
        close_deadline_s=DEADLINE_S,
    )
    run_id = tracker.wait_run_id(RUN_DEADLINE_S)
    try:
        changed, step = (dict(numbers), 0) if run_id is None else _changed(connect(uri), run_id, numbers)
    except MlflowException as error:
        tracker.close("FAILED")
        return f"MLflow at {uri} has not taken the report: {str(error).splitlines()[0]}"
    tracker.log_metrics(changed, step)
    for path in (page, table):
        tracker.log_artifact(path, FOLDER)
    return tracker.close()


def _changed(client: MlflowClient, run_id: str, numbers: Mapping[str, float]) -> tuple[dict[str, float], int]:
    """What the run holds another value of, or none, and the step after the last one of these."""
    held = client.get_run(run_id).data.metrics
    changed = {name: value for name, value in numbers.items() if held.get(legal_name(name)) != value}
    known = [legal_name(name) for name in changed if legal_name(name) in held]
    steps = [point.step for name in known for point in client.get_metric_history(run_id, name)]
    return changed, max(steps, default=-1) + 1
