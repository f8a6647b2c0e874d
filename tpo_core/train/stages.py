"""What is trainable in a stage, how long a phase lasts, and the order in which a recipe runs its phases.

Nothing here knows a task: groups, kinds and stages are names out of the recipe.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from tpo_core.config.schema import PhaseConfig, Recipe, StageConfig
from tpo_core.data.loader import steps_for
from tpo_core.errors import TpoError
from tpo_core.train.optim import Groups


@dataclass(frozen=True, kw_only=True)
class PhaseRef:
    """One phase of a recipe."""

    stage_name: str
    stage: StageConfig
    phase: PhaseConfig

    @property
    def name(self) -> str:
        """`multitask`, or `vision_task.region` where a phase has another name than its stage; unique in a recipe."""
        return self.stage_name if self.phase.name == self.stage_name else f"{self.stage_name}.{self.phase.name}"


def phases_of(recipe: Recipe) -> list[PhaseRef]:
    """Every phase of the recipe in the order in which they run; each starts from the weights of the one before."""
    return [
        PhaseRef(stage_name=stage_name, stage=stage, phase=phase)
        for stage_name, stage in recipe.stages.items()
        for phase in stage.phases
    ]


def find_phase(recipe: Recipe, stage_name: str, phase: str | None = None) -> PhaseRef:
    """The phase of a stage by name; `phase` may be left out when the stage has only one. TpoError names the choices."""
    refs = [ref for ref in phases_of(recipe) if ref.stage_name == stage_name]
    if not refs:
        raise TpoError(f"the recipe has no stage {stage_name!r}: choose one of {', '.join(recipe.stages)}")
    matching = [ref for ref in refs if phase in (None, ref.phase.name)]
    if len(matching) != 1:
        names = ", ".join(ref.phase.name for ref in refs)
        raise TpoError(f"stage {stage_name!r} has the phases {names}: name one of them")
    return matching[0]


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """The arithmetic of one phase: all counts are samples over all ranks, `steps` are optimizer steps.

    sizes: samples in a micro-batch of each kind. samples: of the whole phase, as the mixture has it on average.
    """

    steps: int
    warmup_steps: int
    accumulation: int
    sizes: dict[str, int]
    world: int
    samples: int
    pool: int

    def describe(self) -> str:
        """The arithmetic as it is printed at the start of the phase."""
        sizes = ", ".join(f"{kind} {size}" for kind, size in self.sizes.items())
        return (
            f"{self.steps} steps of {self.accumulation} micro-batches ({sizes}) over {self.world}"
            f" {'worker' if self.world == 1 else 'workers'} = {self.samples} samples"
            f" = {self.samples / self.pool:.3g} epochs of {self.pool}; {self.warmup_steps} warm-up steps"
        )


def plan_phase(stage: StageConfig, phase: PhaseConfig, *, counts: Mapping[str, int], world: int) -> PhasePlan:
    """Turn epochs, counts and sizes into steps.

    counts: samples of each kind in the training part. One epoch is as many samples as the kinds of the mixture hold
    together; the last step of a phase is always full, so a fraction of a step is rounded up.
    Raises TpoError when a kind of the mixture has no sample.
    """
    empty = [kind for kind in phase.mixture if not counts.get(kind, 0)]
    if empty:
        held = ", ".join(f"{kind} {n}" for kind, n in counts.items() if n) or "nothing"
        raise TpoError(
            f"phase {phase.name!r} draws from {empty[0]!r} but the training part holds no such sample ({held}):"
            " add a source or take the kind out of the mixture"
        )
    steps = steps_for(phase, counts)
    return PhasePlan(
        steps=steps,
        warmup_steps=round(stage.warmup_fraction * steps),
        accumulation=phase.accumulation,
        sizes=phase.sizes,
        world=world,
        samples=round(steps * phase.samples_per_step),
        pool=sum(counts[kind] for kind in phase.mixture),
    )


def select_trainable(model: nn.Module, groups: Groups, lr: Mapping[str, float]) -> None:
    """Let exactly the groups that `lr` names require gradients.

    Raises TpoError when `lr` names a group that the model does not have or that is empty. A parameter in two groups
    is a broken model, hence an assert.
    """
    lacking = [name for name in lr if not groups.get(name)]
    if lacking:
        held = ", ".join(name for name, params in groups.items() if params)
        raise TpoError(f"lr.{lacking[0]} is set but the model has no such parameters: it has {held}")
    owner: dict[int, str] = {}
    for group, params in groups.items():
        for name, param in params:
            assert id(param) not in owner, f"{name} is in the groups {owner[id(param)]} and {group}"
            owner[id(param)] = group
    for param in model.parameters():
        param.requires_grad_(owner.get(id(param)) in lr)


def describe_trainable(model: nn.Module, groups: Groups, lr: Mapping[str, float]) -> str:
    """One line: the size of every trainable group, its peak learning rate, and what share of the model trains."""
    sizes = {name: sum(param.numel() for _, param in groups[name]) for name in lr}
    total = sum(param.numel() for param in model.parameters())
    parts = ", ".join(f"{name} {size:,} at {lr[name]:g}" for name, size in sizes.items())
    return f"{parts}; {sum(sizes.values()):,} of {total:,} parameters train, the rest is frozen"
