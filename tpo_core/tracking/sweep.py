"""A sweep in MLflow: a parent run, and a child run a trial, each found again by its fingerprint.

Opening the run of a trial waits for no server, and what a server does not take is said at the end, as for the phases of
a pipeline.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_core.tracking.server import NOTE, MlflowClient, experiment_id, find_run
from tpo_core.tracking.tracker import MlflowTracker

PICTURES_DEADLINE_S = 120.0  # files to a server far away; nothing waits for this run any more
_SWEEP_TAG, _TRIAL_TAG = "tpo_sweep", "tpo_trial"


@dataclass(frozen=True)
class SweepRuns:
    """The runs of one sweep; picklable. name: of the parent run. fingerprint: of the sweep."""

    uri: str
    experiment: str
    name: str
    fingerprint: str

    def find_parent(self, client: MlflowClient) -> str:
        """The id of the parent run, which goes on from here; made on first use."""
        home = experiment_id(client, self.experiment, self.uri)
        found = find_run(client, home, _SWEEP_TAG, self.fingerprint)
        if found is None:
            tags = {_SWEEP_TAG: self.fingerprint}
            return client.create_run(home, run_name=self.name, tags=tags).info.run_id
        client.update_run(found, status="RUNNING")
        return found

    def begin(self) -> None:
        """Make the parent run, or have it go on: trials that begin side by side would each make one. Waits for a
        server some seconds; one that answers later gets it then."""
        self._parent().wait_run_id()

    def fail(self) -> str | None:
        """End the parent run as FAILED, until it goes on. Returns what did not arrive, in words."""
        return self._parent().close("FAILED")

    def _parent(self, **how: Any) -> MlflowTracker:
        return MlflowTracker(self.uri, self.experiment, self.name, key=(_SWEEP_TAG, self.fingerprint), **how)

    def finish(
        self,
        params: Mapping[str, Any],
        metrics: Mapping[str, float],
        files: Iterable[Path],
        note: str,
        tags: Mapping[str, str],
    ) -> str | None:
        """What came of the sweep goes to the parent run, which ends; note: for its page. Returns what did not arrive,
        in words."""
        tracker = self._parent(close_deadline_s=PICTURES_DEADLINE_S)
        tracker.log_params(params)
        tracker.log_metrics(metrics, step=0)
        tracker.set_tags({**tags, NOTE: note})
        for path in files:
            tracker.log_artifact(path, "sweep")
        return tracker.close("FINISHED")


@dataclass(frozen=True)
class TrialRun:
    """Opens the run of a trial where it is called; picklable. weights: by which people tell it from others. note: what
    the page of the run says of it, in Markdown."""

    runs: SweepRuns
    trial: str
    weights: Mapping[str, float]
    note: str

    def __call__(self, **how: Any) -> MlflowTracker:
        """how: further arguments of MlflowTracker."""
        tracker = MlflowTracker(
            self.runs.uri,
            self.runs.experiment,
            f"{self.trial}: {in_words(self.weights)}" if self.weights else self.trial,
            key=(_TRIAL_TAG, f"{self.runs.fingerprint}/{self.trial}"),
            find_parent=self.runs.find_parent,
            **how,
        )
        tags = {f"weight/{name}": f"{weight:.4g}" for name, weight in self.weights.items()}
        tracker.set_tags({**tags, NOTE: self.note})
        return tracker


def in_words(weights: Mapping[str, float]) -> str:
    """lm 0.6, region 4"""
    return ", ".join(f"{name} {weight:.3g}" for name, weight in weights.items())
