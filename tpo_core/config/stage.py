"""The stages of a recipe: what trains in each, at what rates, and the phases that it is made of.

Numbers without a remark come from the TPO paper (arXiv 2412.19326 v2, table 17) and the published training arguments.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tpo_core.config.augment import AugmentConfig
from tpo_core.config.base import Config, Fraction, drop_nulls, late
from tpo_core.config.model import HEADS
from tpo_core.config.names import require_known

KINDS = (*HEADS, "chat")
LOSS_WEIGHTS = {"lm": 1.0, "kl": 0.0, **dict.fromkeys(HEADS, 1.0)}
STAGES = ("task_assignment", "vision_task", "multitask")
HEAD_GROUPS = {f"{head}_head": head for head in HEADS}
GROUPS = ("lora", "task_vectors", *HEAD_GROUPS, "vision_encoder", "connector")

# Peak learning rates by stage, table 17. That table trains the task vector of the temporal head at 2e-4 and the two
# others at 1e-4; they are one group here and take 1e-4. Where table and appendix disagree (1e-4 or 2e-5 for region and
# mask), 1e-4: a random MLP at 2e-5 hardly moves in one epoch.
STAGE_LR: dict[str, dict[str, float]] = {
    "task_assignment": {"lora": 2e-5},
    "vision_task": {"lora": 2e-5, "task_vectors": 1e-4, **dict.fromkeys(HEAD_GROUPS, 1e-4)},
    "multitask": dict.fromkeys(GROUPS, 2e-5),
}

WEIGHT_DECAY = 0.02


def _numbers(value: Any) -> Any:
    """Says it in one line, where pydantic says it of each form that a value may have."""
    given = list(value.values()) if isinstance(value, dict) else [value]
    if not all(isinstance(each, int | float) and not isinstance(each, bool) and each >= 0 for each in given):
        raise ValueError("must be a number >= 0, or such numbers by group")
    return value


Positive = Annotated[dict[str, Annotated[float, Field(gt=0)]], BeforeValidator(drop_nulls)]


class PhaseConfig(Config):
    """One run of the training loop. All sizes count samples over all workers."""

    name: str = Field(pattern=r"^[A-Za-z0-9_-]+$", description="name, used in paths and overrides")
    mixture: Positive = Field(
        min_length=1, description=f"relative frequency of micro-batches by kind, of {', '.join(KINDS)}"
    )
    steps: int | None = Field(default=None, ge=1, description="optimizer steps; exactly one of steps and epochs")
    epochs: float | None = Field(default=None, gt=0, description="passes over the samples of the mixture's kinds")
    batch_size: int = Field(
        default=128, ge=1, description="samples per optimizer step, all workers together, at micro_batch_size"
    )
    micro_batch_size: int = Field(ge=1, description="samples of one kind per micro-batch, all workers together")
    micro_batch_sizes: Annotated[dict[str, Annotated[int, Field(ge=1)]], BeforeValidator(drop_nulls)] = Field(
        default_factory=dict, description="kinds whose micro-batches have another size, and that size"
    )
    samples_per_media: int = Field(
        default=1,
        ge=1,
        description="up to so many samples of a media file follow each other; those of a micro-batch share one pass"
        " through the vision tower",
    )
    augment: AugmentConfig = Field(default_factory=AugmentConfig, description="random changes of the frames")

    datasets: list[str] = Field(
        default_factory=list, description="data sets that it draws from, as samples name them; empty is all"
    )

    @field_validator("mixture")
    @classmethod
    def _kinds_known(cls, mixture: dict[str, float]) -> dict[str, float]:
        require_known("kind", list(mixture), KINDS)
        return mixture

    @model_validator(mode="after")
    def _sizes_agree(self) -> "PhaseConfig":
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("set exactly one of steps and epochs (null removes the other)")
        if self.batch_size % self.micro_batch_size:
            raise ValueError(f"micro_batch_size {self.micro_batch_size} must divide batch_size {self.batch_size}")
        require_known("kind", list(self.micro_batch_sizes), self.mixture)
        return self

    @property
    def sizes(self) -> dict[str, int]:
        """Samples in a micro-batch of each kind of the mixture."""
        return {kind: self.micro_batch_sizes.get(kind, self.micro_batch_size) for kind in self.mixture}

    @property
    def accumulation(self) -> int:
        """Micro-batches per optimizer step."""
        return self.batch_size // self.micro_batch_size

    @property
    def samples_per_step(self) -> float:
        """Samples per optimizer step, a mean over the mixture."""
        total = sum(self.mixture.values())
        return self.accumulation * sum(self.sizes[kind] * weight for kind, weight in self.mixture.items()) / total


class StageConfig(Config):
    """One stage. What trains is data: a parameter group that `lr` does not name is frozen.

    | group                           | task_assignment | vision_task | multitask |
    |---------------------------------|-----------------|-------------|-----------|
    | lora                            | train           | train       | train     |
    | task_vectors, <head>_head       | -               | train       | train     |
    | vision_encoder, connector       | -               | -           | train     |
    """

    heads: list[str] = Field(description="heads that exist in this stage; default: none in task_assignment, else all")
    lr: Positive = Field(
        min_length=1, description=f"peak learning rate by group, of {', '.join(GROUPS)}; absent is frozen"
    )
    phases: list[PhaseConfig] = Field(min_length=1, description="phases, run in this order")
    min_lr_fraction: Fraction = Field(default=0.05, description="end of the cosine, fraction of the peak rate")
    warmup_fraction: Fraction = Field(default=0.2, description="linear warm-up, fraction of the steps of a phase")
    weight_decay: Annotated[float | dict[str, float], BeforeValidator(_numbers)] = Field(
        default=WEIGHT_DECAY,
        description="AdamW weight decay, on all but norms and biases; or that of groups, and of all others"
        f" {WEIGHT_DECAY}",
    )
    betas: tuple[float, float] = Field(
        default=(0.9, 0.999), description="AdamW decay rates of the two moments, each in [0, 1)"
    )
    eps: float = Field(default=1e-5, gt=0, description="AdamW epsilon")
    grad_clip_norm: float = Field(default=1.0, gt=0, description="gradients are scaled down to this global norm")
    loss_weights: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default=LOSS_WEIGHTS,
        validate_default=True,
        description=f"weight of each loss, of {', '.join(LOSS_WEIGHTS)}; unnamed ones weigh 1.0, kl 0. kl, not in the "
        "paper, holds answers of plain conversation to those that the model gives without adapters. The published 0.05 "
        "of temporal belongs to the CG-DETR head, whose terms sum to some 20 times those of the span head",
    )
    balance: Literal["fixed", "uncertainty", "gradnorm"] = late(
        default="fixed",
        description="fixed: loss_weights stay as they are; uncertainty (arXiv 1705.07115), gradnorm (arXiv 1711.02257):"
        " each is multiplied by a factor that training finds",
    )
    balance_lr: float = late(default=0.025, gt=0, description="rate at which balance moves its factors, each step")
    balance_alpha: float = late(
        default=1.5, ge=0, description="gradnorm: how strongly losses that fall slowly are pulled, 0 not at all"
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="bf16", description="arithmetic of the backbone; heads stay in fp32"
    )

    def decay_of(self, group: str) -> float:
        """Weight decay of a group."""
        decay = self.weight_decay
        return decay.get(group, WEIGHT_DECAY) if isinstance(decay, dict) else decay

    @field_validator("heads")
    @classmethod
    def _heads_known(cls, heads: list[str]) -> list[str]:
        return require_known("head", heads, HEADS)

    @field_validator("betas")
    @classmethod
    def _betas_in_range(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("each of the two must be >= 0 and < 1")
        return betas

    @field_validator("loss_weights")
    @classmethod
    def _weights_complete(cls, weights: dict[str, float]) -> dict[str, float]:
        require_known("loss", list(weights), tuple(LOSS_WEIGHTS))
        return {**LOSS_WEIGHTS, **weights}

    @model_validator(mode="after")
    def _groups_exist(self) -> "StageConfig":
        require_known("lr group", list(self.lr), GROUPS)
        if isinstance(self.weight_decay, dict):
            require_known("weight_decay group", list(self.weight_decay), tuple(self.lr))
        for group in self.lr:
            if group in HEAD_GROUPS and HEAD_GROUPS[group] not in self.heads:
                raise ValueError(f"lr.{group} is set but heads does not hold {HEAD_GROUPS[group]!r}")
            if group == "task_vectors" and not self.heads:
                raise ValueError("lr.task_vectors is set but the stage has no heads")
        return self

    @model_validator(mode="after")
    def _phases_fit(self) -> "StageConfig":
        names = [phase.name for phase in self.phases]
        for phase in self.phases:
            if names.count(phase.name) > 1:
                raise ValueError(f"phases: the name {phase.name!r} is used twice; names must differ")
            lacking = [kind for kind in phase.mixture if kind != "chat" and kind not in self.heads]
            if self.heads and lacking:
                raise ValueError(f"phases.{phase.name}.mixture holds {lacking[0]!r} but heads does not: add or drop it")
        return self


def fill_stage_defaults(raw: dict[str, Any]) -> dict[str, Any]:
    """Give each stage of a recipe as written the heads and learning rates of its name, where it sets none.

    Shared by the schema and by overrides, so that `stages.multitask.lr.lora=1e-5` changes one rate of the default
    table instead of freezing all others. Leaves malformed input alone: validation names what is wrong with it.
    """
    stages, model = raw.get("stages"), raw.get("model")
    if isinstance(stages, dict):  # a stage set to null is taken out; a mistyped one stays, to be refused by its name
        stages = {name: stage for name, stage in stages.items() if stage is not None or name not in STAGES}
    if not isinstance(stages, dict) or not all(isinstance(stage, dict) for stage in stages.values()):
        return raw
    model_heads = model["heads"] if isinstance(model, dict) and "heads" in model else list(HEADS)
    filled = {}
    for name, stage in stages.items():
        heads = {"heads": [] if name == "task_assignment" else model_heads, **stage}["heads"]
        held = heads if isinstance(heads, list) else []
        absent = {group for group, head in HEAD_GROUPS.items() if head not in held}
        if not held:
            absent.add("task_vectors")
        rates = {group: rate for group, rate in STAGE_LR.get(name, {}).items() if group not in absent}
        filled[name] = {"heads": heads, "lr": rates, **stage}
    return {**raw, "stages": filled}
