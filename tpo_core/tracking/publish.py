"""One pipeline in MLflow: a parent run, a nested run a phase, and at the end a registered version with its lineage.

The parent run belongs to the identity of the recipe: starting the same recipe again continues the same run. The id of a
phase's run lies beside its output, so that a phase that was cut off continues its curves.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tpo_core.config.schema import Recipe, identity
from tpo_core.tracking.registry import FINGERPRINT, Registry
from tpo_core.tracking.server import MlflowException, connect, default_uri, experiment_id
from tpo_core.tracking.tracker import MlflowTracker

LOG = logging.getLogger(__name__)
CHALLENGER = "challenger"
RUN_FILE = "mlflow_run.json"
PICTURES_DEADLINE_S = 120.0  # dozens of files to a server far away; nothing waits for this run any more
_PIPELINE_TAG = "tpo_recipe"


@dataclass(frozen=True)
class PhaseSink:
    """Opens the run of one phase where it is called, in a training worker; picklable."""

    uri: str
    experiment: str
    run_name: str
    parent_run_id: str | None
    run_file: Path

    def __call__(self) -> MlflowTracker:
        """The run that `run_file` names, or a new one, whose id is written there."""
        known = json.loads(self.run_file.read_text())["run_id"] if self.run_file.exists() else None
        tracker = MlflowTracker(
            self.uri, self.experiment, self.run_name, parent_run_id=self.parent_run_id, run_id=known
        )
        run_id = tracker.wait_run_id()
        if run_id is not None:
            aside = self.run_file.with_suffix(".partial")
            aside.write_text(json.dumps({"run_id": run_id}))
            os.replace(aside, self.run_file)
        return tracker


class Publisher:
    """Where the runs of a recipe go: the server of the recipe, or a sqlite database below the work folder."""

    def __init__(self, recipe: Recipe, work_uri: str) -> None:
        self.recipe = recipe
        self.uri = recipe.tracking.uri or default_uri(work_uri)
        what = json.dumps(identity(recipe), sort_keys=True)
        self.fingerprint = hashlib.sha256(what.encode()).hexdigest()

    @cached_property
    def parent_run_id(self) -> str | None:
        """The run of the whole pipeline, made on first use; None (and a warning) when the server cannot be reached."""
        try:
            client = connect(self.uri)
            home = experiment_id(client, self.recipe.tracking.experiment, self.uri)
            found = client.search_runs([home], f"tags.{_PIPELINE_TAG} = '{self.fingerprint}'", max_results=1)
            if found:
                return found[0].info.run_id
            made = client.create_run(home, run_name=self.recipe.name, tags={_PIPELINE_TAG: self.fingerprint})
            return made.info.run_id
        except (MlflowException, OSError) as error:
            LOG.warning("MLflow at %s does not answer, phases get no parent run: %s", self.uri, error)
            return None

    def phase_sink(self, name: str, output: Path) -> PhaseSink:
        """Where the phase `name` logs; `output` is its folder, kept over a restart."""
        return PhaseSink(self.uri, self.recipe.tracking.experiment, name, self.parent_run_id, output / RUN_FILE)

    def register(
        self,
        *,
        model: Path,
        fingerprint: str,
        tags: Mapping[str, str],
        metrics: Mapping[str, float],
        base_metrics: Mapping[str, float],
        pictures: Mapping[str, Path],
    ) -> dict[str, Any]:
        """Logs recipe, metrics and pictures (folder in the run -> file or folder) to the parent run, registers `model`
        and gives it the alias `challenger`. Returns what it made; may be repeated."""
        config = self.recipe.tracking
        tracker = MlflowTracker(
            self.uri,
            config.experiment,
            self.recipe.name,
            run_id=self.parent_run_id,
            close_deadline_s=PICTURES_DEADLINE_S,
        )
        tracker.log_params(self.recipe.model_dump(mode="json"))
        tracker.log_metrics(metrics, step=0)
        tracker.log_metrics({f"base/{name}": value for name, value in base_metrics.items()}, step=0)
        for folder, path in pictures.items():
            tracker.log_artifact(path, folder)
        tracker.set_tags(dict(tags))
        tracker.close()
        registry = Registry(self.uri)
        version = registry.register_version(
            model,
            config.model_name,
            tags={**tags, FINGERPRINT: fingerprint},
            metrics=metrics,
            base_metrics=base_metrics,
            run_id=self.parent_run_id,
            experiment=config.experiment,
        )
        registry.set_alias(config.model_name, CHALLENGER, version.version)
        return {"name": config.model_name, "version": version.version, "uri": self.uri, "run_id": self.parent_run_id}
