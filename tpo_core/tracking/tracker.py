"""Records a run in MLflow without ever slowing or stopping it.

Whatever is logged goes into a bounded queue; one background thread delivers it, metrics in batches. A server that is
down is tried again and again with growing pauses; what does not fit the queue meanwhile is dropped and counted. `close`
waits for delivery up to a deadline and says what was lost. Nothing here raises into the caller, and nothing but `close`
waits: trouble is a warning of this module's logger.

What is recorded twice is kept once: MLflow cannot overwrite a metric, so a (metric, step) that the run already holds is
left out. Training resumes bit for bit, so the value would be the same. That makes a lost record no loss: whoever has
the history sends all of it again.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tpo_core.storage.uri import without_password
from tpo_core.tracking.server import (
    Metric,
    MlflowClient,
    MlflowException,
    Param,
    RunTag,
    connect,
    experiment_id,
    find_run,
    legal_name,
)

LOG = logging.getLogger(__name__)
QUEUE_SIZE = 10_000
METRICS_A_BATCH = 1000  # limits of MLflow's log_batch
PARAMS_A_BATCH = 100
PARAM_CHARS = 6000
TAG_CHARS = 5000
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
CLOSE_DEADLINE_S = 15.0
# Answers of a server that is there and will say the same next time; anything else is worth another try.
_FINAL = {
    "INVALID_PARAMETER_VALUE",
    "BAD_REQUEST",
    "RESOURCE_DOES_NOT_EXIST",
    "RESOURCE_ALREADY_EXISTS",
    "PERMISSION_DENIED",
}


class Tracker(Protocol):
    """Where a run is recorded. No method raises or waits for a server."""

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record a nested configuration once, as `a.b.c`; values are cut to 6000 characters."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Record numbers at a step; a (metric, step) that is already there stays as it is."""

    def log_artifact(self, path: Path, folder: str) -> None:
        """Copy a file, or all files below a folder, to `folder` of the run; it must stay in place until `close`."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags of the run; a tag that is there is overwritten."""

    def close(self, status: str) -> str | None:
        """Deliver what is on its way, up to a deadline, and end the run as FINISHED, FAILED or KILLED. Returns what was
        lost, in words."""


class NullTracker:
    """Records nothing."""

    run_id: str | None = None

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Nothing."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Nothing."""

    def log_artifact(self, path: Path, folder: str) -> None:
        """Nothing."""

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Nothing."""

    def close(self, status: str = "FINISHED") -> str | None:
        """Nothing."""
        return None


class MlflowTracker:
    """A run in MLflow: that of `run_id`, or the one with the tag `key`, continued; else a new one, with that tag.

    find_parent: gives the id of the run that a new one is nested below, and has that one go on; called in the
    background.
    """

    def __init__(
        self,
        uri: str,
        experiment: str,
        run_name: str,
        *,
        key: tuple[str, str] | None = None,
        find_parent: Callable[[MlflowClient], str] | None = None,
        run_id: str | None = None,
        queue_size: int = QUEUE_SIZE,
        close_deadline_s: float = CLOSE_DEADLINE_S,
    ) -> None:
        self._uri, self._experiment, self._run_name = uri, experiment, run_name
        self._key, self._find_parent = key, find_parent
        self._run_id, self._resumed = run_id, run_id is not None
        self._deadline_s = close_deadline_s
        self._queue: queue.Queue[tuple[str, Any, int]] = queue.Queue(queue_size)
        self._given = self._delivered = 0  # records
        self._known_steps: dict[str, set[int]] = {}
        self._params: dict[str, str] = {}
        self._closed = False
        # opened: the run exists or never will; closing: the owner waits; given_up: the owner has gone.
        self._opened, self._closing, self._given_up = threading.Event(), threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._work, name="mlflow-tracker", daemon=True)
        self._thread.start()

    def wait_run_id(self, deadline_s: float = CLOSE_DEADLINE_S) -> str | None:
        """Id of the run; None if the server has not given one by the deadline."""
        if self._run_id is None:
            self._opened.wait(deadline_s)
        return self._run_id

    def log_params(self, params: Mapping[str, Any]) -> None:
        """See Tracker."""
        self._put("params", {legal_name(k): str(v)[:PARAM_CHARS] for k, v in flatten(params).items()})

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """See Tracker."""
        now_ms = int(time.time() * 1000)
        self._put("metrics", [Metric(legal_name(k), float(v), now_ms, step) for k, v in metrics.items()])

    def log_artifact(self, path: Path, folder: str) -> None:
        """See Tracker."""
        self._put("artifact", (Path(path), folder))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """See Tracker."""
        self._put("tags", {legal_name(k): str(v)[:TAG_CHARS] for k, v in tags.items()})

    def close(self, status: str = "FINISHED") -> str | None:
        """See Tracker. A second call does nothing."""
        if self._closed:
            return None
        self._closed = True
        self._given += 1
        give_up_at = time.monotonic() + self._deadline_s
        self._closing.set()
        with suppress(queue.Full):
            self._queue.put(("end", status, 1), timeout=self._deadline_s)
        self._thread.join(max(give_up_at - time.monotonic(), 0.0))
        self._given_up.set()
        lost = self._given - self._delivered
        if not lost:
            return None
        trouble = f"MLflow at {without_password(self._uri)} has not taken everything: {lost} records lost"
        LOG.warning("%s", trouble)
        return trouble

    def _put(self, kind: str, value: Any) -> None:
        self._given += 1
        with suppress(queue.Full):
            self._queue.put_nowait((kind, value, 1))

    def _work(self) -> None:
        client = self._persist(self._open)
        self._opened.set()
        if client is None:
            return
        ended = False
        while not (ended or self._given_up.is_set()):
            for kind, value, records in self._next_records():
                if self._persist(partial(self._send, client, kind, value)):
                    self._delivered += records
                ended = kind == "end"

    def _next_records(self) -> list[tuple[str, Any, int]]:
        """The next record; metrics that wait in the queue become one, maybe followed by one of another kind. The last
        is how many it was made of."""
        kind, value, records = self._queue.get()
        while kind == "metrics" and len(value) < METRICS_A_BATCH:
            try:
                after = self._queue.get_nowait()
            except queue.Empty:
                break
            if after[0] != kind:
                return [(kind, value, records), after]
            value, records = value + after[1], records + after[2]
        return [(kind, value, records)]

    def _persist(self, act: Callable[[], Any]) -> Any:
        """`act()`, again after a pause while the server cannot be reached; None when refused or the owner has gone."""
        pause_s = FIRST_PAUSE_S
        while not self._given_up.is_set():
            try:
                return act()
            except Exception as error:  # whatever is wrong with a tracking server must not stop training
                where = without_password(self._uri)
                reason = without_password((str(error).splitlines() or [""])[0])[:300]
                if isinstance(error, MlflowException) and error.error_code in _FINAL:
                    LOG.warning("MLflow at %s refused a record: %s", where, reason)
                    return None
                if pause_s == FIRST_PAUSE_S and not self._given_up.is_set():
                    LOG.warning("MLflow at %s does not answer, trying on: %s", where, reason)
            if self._closing.wait(pause_s):
                self._given_up.wait(FIRST_PAUSE_S)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return None

    def _open(self) -> MlflowClient:
        client = connect(self._uri)
        home = experiment_id(client, self._experiment, self._uri)
        if self._run_id is None and self._key is not None:
            self._run_id = find_run(client, home, *self._key)
            self._resumed = self._run_id is not None
        if self._run_id is None:
            tags = dict([self._key] if self._key else [])
            if self._find_parent is not None:
                tags["mlflow.parentRunId"] = self._find_parent(client)
            self._run_id = client.create_run(home, run_name=self._run_name, tags=tags).info.run_id
        else:
            if self._find_parent is not None:
                self._find_parent(client)
            self._params = dict(client.get_run(self._run_id).data.params)
            client.update_run(self._run_id, status="RUNNING")
        return client

    def _send(self, client: MlflowClient, kind: str, value: Any) -> bool:
        """Returns True: it has arrived."""
        assert self._run_id is not None
        if kind == "metrics":
            unseen = [metric for metric in value if metric.step not in self._steps_of(client, metric.key)]
            fresh = list({(metric.key, metric.step): metric for metric in unseen}.values())
            for start in range(0, len(fresh), METRICS_A_BATCH):
                client.log_batch(self._run_id, metrics=fresh[start : start + METRICS_A_BATCH])
            for metric in fresh:
                self._known_steps[metric.key].add(metric.step)
        elif kind == "params":
            self._send_params(client, value)
        elif kind == "tags":
            client.log_batch(self._run_id, tags=[RunTag(k, v) for k, v in value.items()])
        elif kind == "artifact":
            path, folder = value
            (client.log_artifacts if path.is_dir() else client.log_artifact)(self._run_id, str(path), folder)
        else:
            client.set_terminated(self._run_id, status=value)
        return True

    def _steps_of(self, client: MlflowClient, key: str) -> set[int]:
        assert self._run_id is not None
        if key not in self._known_steps:
            history = client.get_metric_history(self._run_id, key) if self._resumed else []
            self._known_steps[key] = {metric.step for metric in history}
        return self._known_steps[key]

    def _send_params(self, client: MlflowClient, params: dict[str, str]) -> None:
        """Parameters of a run cannot change in MLflow: a resumed run keeps its first ones."""
        assert self._run_id is not None
        changed = sorted(k for k, v in params.items() if self._params.get(k, v) != v)
        if changed:
            LOG.warning("MLflow run %s keeps its first value of %s", self._run_id, ", ".join(changed))
        fresh = [Param(k, v) for k, v in params.items() if k not in self._params]
        for start in range(0, len(fresh), PARAMS_A_BATCH):
            client.log_batch(self._run_id, params=fresh[start : start + PARAMS_A_BATCH])
        self._params |= {param.key: param.value for param in fresh}


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}, "c": [2]} as {"a.b": 1, "c.0": 2}; a list item with a `name` goes by it, as in overrides."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, list | tuple):
            value = {
                item["name"] if isinstance(item, dict) and "name" in item else str(i): item
                for i, item in enumerate(value)
            }
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
