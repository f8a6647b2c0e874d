"""The section of a recipe about the search for the loss weights of one stage."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tpo_core.config.base import Config, Fraction, drop_nulls, execution
from tpo_core.config.names import nearest, require_known
from tpo_core.config.stage import LOSS_WEIGHTS, PhaseConfig, StageConfig

LEAST_POPULATION = 4  # a quarter of it takes over from another quarter


class SweepConfig(Config):
    """A search for loss weights, scored on held-out data.

    Each trial trains one phase from the weights of the phase before, up to one rung after another; after each it is
    measured, and the scheduler says whether it goes on.
    """

    stage: str = Field(description="stage whose loss weights are searched")
    phase: str | None = Field(default=None, description="phase of the stage; null where it has one")
    steps: int | None = Field(
        default=None, ge=1, description="optimizer steps of the phase in a trial; null is what the phase has"
    )
    space: Annotated[dict[str, tuple[float, float]], BeforeValidator(drop_nulls)] = Field(
        min_length=1, description="losses whose weight is searched, and its bounds [low, high]; on a log scale"
    )
    trials: int = Field(default=12, ge=1, description="weights that are tried")
    concurrent_trials: int = execution(1, ge=1, description="trials that train side by side")
    workers: int | None = execution(None, ge=1, description="training workers of a trial; null is train.workers")
    torch_threads: int | None = execution(None, ge=1, description="of each of them; null is train.torch_threads")
    search: Literal["random", "tpe", "tpe_multi"] = Field(
        default="tpe",
        description="where the next weights come from: drawn, Optuna's TPE, or TPE with score and qa_metric as two"
        " objectives",
    )
    scheduler: Literal["none", "asha", "pbt"] = Field(
        default="asha",
        description="none: all trials end; asha: at each rung only the best 1 / reduction_factor go on; pbt: at each"
        " rung the worst quarter goes on from a checkpoint of the best quarter, with its weights changed",
    )
    first_rung_steps: int | None = Field(
        default=None, ge=1, description="optimizer steps of the first rung; null: the end is the only one"
    )
    reduction_factor: int = Field(default=4, ge=2, description="each rung is so many times the one before")
    seed: int = Field(default=0, ge=0, description="seed of the search")
    part: Literal["val", "test", "unseen"] = Field(default="val", description="part that trials are measured on")
    metrics: list[str] = Field(
        min_length=1,
        description="metrics, as in 'region/acc@0.5', higher is better: the score is the mean of each divided by what"
        " the run with all searched weights at 1 got",
    )
    qa_metric: str = Field(default="qa/accuracy", description="metric of general ability, in [0, 1]")
    qa_tolerance: Fraction = Field(
        default=0.02, description="a trial whose qa_metric is further below that of the base never wins"
    )
    limit_per_task: int | None = Field(default=None, ge=1, description="as evaluation.limit_per_task, in trials")
    limit_by_task: Annotated[dict[str, Annotated[int, Field(ge=1)]], BeforeValidator(drop_nulls)] = Field(
        default_factory=dict, description="as evaluation.limit_by_task, in trials"
    )
    baselines: list[Literal["uncertainty", "gradnorm"]] = Field(
        default_factory=list, description="automatic balancers (stages.*.balance) that are measured beside the trials"
    )

    @field_validator("space")
    @classmethod
    def _bounds_make_a_log_scale(cls, space: dict[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        require_known("loss", list(space), LOSS_WEIGHTS)
        for name, (low, high) in space.items():
            if not 0 < low < high:
                raise ValueError(f"{name} [{low:g}, {high:g}]: weights are searched on a log scale, so 0 < low < high")
        return space

    @field_validator("baselines")
    @classmethod
    def _baselines_differ(cls, names: list[str]) -> list[str]:
        return require_known("baseline", names, names)

    @model_validator(mode="after")
    def _search_and_scheduler_agree(self) -> "SweepConfig":
        if self.search == "tpe_multi" and self.scheduler != "none":
            raise ValueError(
                f"search tpe_multi has no single objective that scheduler {self.scheduler} could stop by: set none"
            )
        if self.scheduler == "pbt" and self.search != "random":
            raise ValueError(f"scheduler pbt changes weights by itself, so search {self.search} has no say: set random")
        if self.scheduler == "pbt" and self.trials < LEAST_POPULATION:
            raise ValueError(f"scheduler pbt needs a population of {LEAST_POPULATION}: trials is {self.trials}")
        if self.scheduler != "none" and self.first_rung_steps is None:
            raise ValueError(f"scheduler {self.scheduler} needs rungs: set first_rung_steps")
        return self

    def require_fit(self, stages: Mapping[str, StageConfig]) -> None:
        """ValueError when a stage, a phase or a loss is not there, or a rung lies behind the end."""
        if self.stage not in stages:
            raise ValueError(f"sweep.stage: the recipe has no stage {self.stage!r}; {nearest(self.stage, stages)}")
        stage, phase = stages[self.stage], self.phase_of(stages)
        if stage.balance != "fixed":
            raise ValueError(f"sweep.stage: stages.{self.stage}.balance {stage.balance} sets the weights: set fixed")
        there = {"lm", *(set(phase.mixture) & set(stage.heads))} | ({"kl"} if "chat" in phase.mixture else set())
        for name in self.space:
            if name not in there:
                raise ValueError(
                    f"sweep.space: phase {phase.name!r} of stage {self.stage} has no loss {name!r}; it has"
                    f" {', '.join(loss for loss in LOSS_WEIGHTS if loss in there)}"
                )
        self.rungs(phase)

    def phase_of(self, stages: Mapping[str, StageConfig]) -> PhaseConfig:
        """The phase that a trial trains. ValueError when there is none of that name, or several."""
        phases = [phase for phase in stages[self.stage].phases if self.phase in (None, phase.name)]
        if len(phases) != 1:
            known = ", ".join(phase.name for phase in stages[self.stage].phases)
            raise ValueError(f"sweep.phase: stage {self.stage} has the phases {known}: name one of them")
        return phases[0]

    def rungs(self, phase: PhaseConfig) -> list[int]:
        """Steps after which a trial is measured, the last of them the end. ValueError when there is no first one."""
        end = self.steps or phase.steps
        if end is None:
            raise ValueError(f"sweep.steps: phase {phase.name!r} is given in epochs, so say how many steps a trial has")
        rung = self.first_rung_steps or end
        if rung > end:
            raise ValueError(f"sweep.first_rung_steps: {rung} lies behind the end of a trial, {end} steps")
        found = []
        while rung < end:
            found.append(rung)
            rung *= self.reduction_factor
        return [*found, end]
