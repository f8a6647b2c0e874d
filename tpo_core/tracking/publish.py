"""One pipeline in MLflow: a parent run, a nested run a phase, and at the end a registered version with its lineage.

The parent run belongs to the identity of the recipe: starting the same recipe again continues the same run. That of a
phase belongs to the fingerprint of its step: a phase that was cut off continues its curves, wherever it goes on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tpo_core.config.schema import Recipe, identity
from tpo_core.storage.uri import without_password
from tpo_core.tracking.package import card_of, fitted, write_package
from tpo_core.tracking.registry import FINGERPRINT, LINEAGE, RECORD, SAMPLES, Registry
from tpo_core.tracking.server import NOTE, MlflowClient, connect, default_uri, experiment_id, find_run
from tpo_core.tracking.tracker import MlflowTracker

CHALLENGER = "challenger"
DESCRIPTION_CHARS, NOTE_CHARS = 5000, 8000  # columns of MLflow 3: of a version's description, of a run's tag
PICTURES_DEADLINE_S = 120.0  # dozens of files to a server far away; nothing waits for this run any more
_PIPELINE_TAG, _PHASE_TAG = "tpo_recipe", "tpo_phase"

History = Sequence[tuple[int, Mapping[str, float]]]  # step and metrics


@dataclass(frozen=True)
class PhaseSink:
    """Opens the run of one phase where it is called, in a training worker; picklable. Opening it waits for no server.

    run_name: of the phase. fingerprint: of its step, by which its run is found again. pipeline: name and fingerprint
    of the run that it is nested below. note: what the page of the run says of it, in Markdown.
    """

    uri: str
    experiment: str
    run_name: str
    fingerprint: str
    pipeline: tuple[str, str]
    note: str = ""

    def __call__(self, **how: Any) -> MlflowTracker:
        """how: further arguments of MlflowTracker."""
        tracker = MlflowTracker(
            self.uri,
            self.experiment,
            self.run_name,
            key=(_PHASE_TAG, self.fingerprint),
            find_parent=lambda client: pipeline_run(client, self.experiment, self.uri, *self.pipeline),
            **how,
        )
        if self.note:
            tracker.set_tags({NOTE: self.note})
        return tracker


def pipeline_run(client: MlflowClient, experiment: str, uri: str, name: str, fingerprint: str) -> str:
    """The id of the run of a whole pipeline, which goes on from here; made on first use."""
    home = experiment_id(client, experiment, uri)
    found = find_run(client, home, _PIPELINE_TAG, fingerprint)
    if found is None:
        return client.create_run(home, run_name=name, tags={_PIPELINE_TAG: fingerprint}).info.run_id
    client.update_run(found, status="RUNNING")  # it may have failed before
    return found


class Publisher:
    """Where the runs of a recipe go: the server of the recipe, or a sqlite database below the work folder."""

    def __init__(self, recipe: Recipe, work_uri: str) -> None:
        self.recipe = recipe
        self.uri = recipe.tracking.uri or default_uri(work_uri)
        what = json.dumps(identity(recipe), sort_keys=True)
        self.fingerprint = hashlib.sha256(what.encode()).hexdigest()

    @property
    def _pipeline(self) -> tuple[str, str]:
        return self.recipe.name, self.fingerprint

    @property
    def _shown(self) -> dict[str, Any]:
        """The recipe as everyone may read it who may look at its runs."""
        shown = self.recipe.model_dump(mode="json")
        if (uri := self.recipe.tracking.uri) is not None:
            shown["tracking"]["uri"] = without_password(uri)
        return shown

    @cached_property
    def run_id(self) -> str:
        """The run of the whole pipeline, made on first use. MlflowException when the server does not answer."""
        return pipeline_run(connect(self.uri), self.recipe.tracking.experiment, self.uri, *self._pipeline)

    def phase_sink(self, name: str, fingerprint: str, note: str = "") -> PhaseSink:
        """Where the phase `name` logs; fingerprint: of its step; note: see PhaseSink."""
        return PhaseSink(self.uri, self.recipe.tracking.experiment, name, fingerprint, self._pipeline, note)

    def fail(self) -> str | None:
        """End the run of the pipeline as FAILED, until it goes on. Returns what did not arrive, in words."""
        config = self.recipe.tracking
        tracker = MlflowTracker(self.uri, config.experiment, self.recipe.name, key=(_PIPELINE_TAG, self.fingerprint))
        return tracker.close("FAILED")

    def replay(self, name: str, fingerprint: str, history: History) -> None:
        """Send what a phase logged once more: what its run lacks, because the server was away, is added.

        A phase that another pipeline has run already stays below that one.
        """
        sink = self.phase_sink(name, fingerprint)
        tracker = sink(queue_size=len(history) + 1, close_deadline_s=PICTURES_DEADLINE_S)
        for step, metrics in history:
            tracker.log_metrics(metrics, step)
        tracker.close()

    def register(
        self,
        *,
        model: Path,
        fingerprint: str,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        base_metrics: Mapping[str, float],
        pictures: Mapping[str, Path],
        histories: Mapping[str, tuple[str, History]],
        samples: Mapping[str, Mapping[str, Mapping[str, float]]],
        lineage: Mapping[str, Any],
    ) -> dict[str, Any]:
        """Logs recipe, metrics and pictures (folder in the run -> file or folder) to the run of the pipeline, adds what
        the runs of phases lack (histories: name of the phase -> fingerprint and what it logged), registers `model` with
        its record (samples and lineage, see `Registry`) and gives it the alias `challenger`.

        Returns what it made; may be repeated. TpoError when no server answers.
        """
        registry = Registry(self.uri)
        for name, (of, history) in histories.items():
            self.replay(name, of, history)
        config = self.recipe.tracking
        tracker = MlflowTracker(
            self.uri,
            config.experiment,
            self.recipe.name,
            run_id=self.run_id,
            close_deadline_s=PICTURES_DEADLINE_S,
        )
        tracker.log_params(self._shown)
        tracker.log_metrics(metrics, step=0)
        tracker.log_metrics({f"base/{name}": value for name, value in base_metrics.items()}, step=0)
        for folder, path in pictures.items():
            tracker.log_artifact(path, folder)
        card = card_of(self._shown, tags, metrics, base_metrics)
        tracker.set_tags({**tags, NOTE: fitted(card, NOTE_CHARS)})
        tracker.close()
        record = f"versions/{fingerprint[:12]}-{_digest(samples)[:12]}"
        registry.write_record(self.run_id, record, {SAMPLES: samples, LINEAGE: lineage})
        with TemporaryDirectory() as aside:
            package = Path(aside) / "package"
            write_package(package, card)
            version = registry.register_version(
                model,
                config.model_name,
                tags={**tags, FINGERPRINT: fingerprint, RECORD: record},
                metrics=metrics,
                base_metrics=base_metrics,
                run_id=self.run_id,
                experiment=config.experiment,
                beside=package,
                description=fitted(card, DESCRIPTION_CHARS),
            )
        registry.set_alias(config.model_name, CHALLENGER, version.version)
        return {
            "name": config.model_name,
            "version": version.version,
            "uri": without_password(self.uri),
            "run_id": self.run_id,
        }


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
