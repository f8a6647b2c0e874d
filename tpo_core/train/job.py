"""What one phase of training is asked to do, and where it leaves what."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_core.config.schema import PhaseConfig, Recipe, StageConfig, identity
from tpo_core.storage.uri import join
from tpo_core.train.exchange import SUMMARY, result
from tpo_core.train.stages import PhaseRef


def shared_checkpoints(recipe: Recipe, phase: str, run_id: str) -> str | None:
    """Where the checkpoints of a run of a phase lie if not in its output; runs into other outputs share the place."""
    uri = recipe.train.checkpoint_uri
    return None if uri is None else join(uri, phase, run_id)


@dataclass(frozen=True, kw_only=True)
class PhaseJob:
    """What a worker has to know; picklable.

    shards_uri, init_uri: absolute. init_uri is the base model, or the `model` folder of the phase before.
    output: folder shared by all workers and the driver, unless there is an exchange: a remote URI through which they
    get what the others wrote (exchange.py), for machines that share no disk. run_id: tells this run from others of the
    same phase, the fingerprint of the step in a chain. until_step: end after so many updates of the phase, whose rates
    stay those of the whole; None is the end.
    """

    recipe: Recipe
    stage_name: str
    phase: PhaseConfig
    shards_uri: str
    init_uri: str
    output: Path
    run_id: str = "run"
    exchange: str | None = None
    until_step: int | None = None

    @property
    def name(self) -> str:
        """As PhaseRef.name."""
        return PhaseRef(stage_name=self.stage_name, stage=self.stage, phase=self.phase).name

    @property
    def stage(self) -> StageConfig:
        return self.recipe.stages[self.stage_name]

    @property
    def checkpoints(self) -> str:
        """The folder or URI below which they lie."""
        return shared_checkpoints(self.recipe, self.name, self.run_id) or join(
            self.exchange or str(self.output), "checkpoints"
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What is computed, as JSON; not where, nor from which place the base model comes."""
        model = {name: value for name, value in identity(self.recipe.model).items() if name != "base"}
        stage = identity(self.stage) | {"phases": [identity(self.phase)]}
        return {"stages": {self.stage_name: stage}, "model": model, "seed": self.recipe.seed}

    @property
    def history(self) -> Path:
        """One row (rows.make_row) per logged step, as JSON lines."""
        return self.output / "history.jsonl"

    @property
    def notes(self) -> Path:
        """What the workers have to say to a reader, line by line: the arithmetic of the phase, where it resumed."""
        return self.output / "notes.txt"

    @property
    def trace(self) -> Path:
        """What torch.profiler saw on rank 0 of the steps `train.profile_steps`."""
        return self.output / "trace.json.gz"

    @property
    def stacks(self) -> Path:
        """Where every thread of a rank was when that rank hung. Beside an output that is handed over by rank 0 while
        other ranks of its machine still run."""
        beside = self.output.with_name(f"{self.output.name}.stacks")
        return self.output / "stacks" if self.exchange is None else beside

    @property
    def model(self) -> Path:
        return self.output / "model"

    @property
    def summary(self) -> Path:
        """The result of the phase; written last, so that its presence says that the phase is finished."""
        return self.output / SUMMARY

    @property
    def handed_over(self) -> str:
        """Where the output is when the phase is finished, for any machine."""
        return str(self.output) if self.exchange is None else result(self.exchange)

    @property
    def finished(self) -> bool:
        """Whether the phase came to where it is to end: a summary may also be of an earlier end."""
        return self.summary.exists() and json.loads(self.summary.read_text()).get("until_step") == self.until_step
