"""What of a plan cannot be, or will be dear: told before a cluster is touched, each with the remedy."""

from tpo_core.config.schema import Recipe
from tpo_core.plan.assumptions import Assumptions
from tpo_core.plan.facts import Gpu
from tpo_core.plan.phases import PhaseCost

GIB = 2.0**30


def misfits(recipe: Recipe, phases: list[PhaseCost], gpu: Gpu, assumed: Assumptions) -> list[str]:
    """One line for each phase that does not fit into a GPU with the strategy of the recipe."""
    limit = (gpu.memory_gib - assumed.memory_reserve_gib) * GIB
    found = []
    for each in phases:
        needed = each.memory[recipe.train.strategy].total
        if needed > limit:
            found.append(
                f"{each.name} does not fit: {recipe.train.strategy} needs {needed / GIB:.0f} GiB of a GPU, which has"
                f" {gpu.memory_gib:g} GiB less {assumed.memory_reserve_gib:g} in reserve; {remedy(recipe, each, limit)}"
            )
    return found


def remedy(recipe: Recipe, phase: PhaseCost, limit: float) -> str:
    """What to change, the cheapest first."""
    fitting = [name for name, memory in phase.memory.items() if memory.total <= limit]
    if fitting:
        return f"set train.strategy={fitting[0]}"
    if not recipe.model.activation_checkpointing:
        return "set model.activation_checkpointing=true"
    if phase.rows > 1:
        return f"lower micro_batch_size, of which each GPU now takes {phase.rows}, or take more GPUs"
    return "take GPUs with more memory, or a smaller base"
