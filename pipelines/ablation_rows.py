"""The rows of the ablation table, and the recipe of each: what one recipe leaves out, never a recipe of its own.

A row says which kinds of data it is taught and which heads learn from them. Everything else is that of the recipe,
above all the number of optimizer steps of each phase: then a row with fewer kinds gets more samples of each. Where rows
are to have equal samples of a kind instead, a row that leaves kinds out takes that many steps fewer. The stage in which
no head exists (task assignment) is the same for all rows with heads, and so runs once a seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tpo_core.config.load import load_recipe
from tpo_core.config.model import HEADS
from tpo_core.config.names import nearest
from tpo_core.config.schema import Recipe, StageConfig
from tpo_core.config.stage import HEAD_GROUPS, KINDS
from tpo_core.errors import TpoError
from tpo_core.train.stages import phases_of

EQUAL = ("steps", "samples")  # what rows have in common: all steps, or the samples of each kind
TASKS_OF = {"region": ("region",), "temporal": ("moment",), "mask": ("mask", "track"), "chat": ()}


@dataclass(frozen=True)
class Row:
    """name: on the command line; label: in the table; kinds: of the data that it is taught; heads: that learn."""

    name: str
    label: str
    kinds: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()
    as_text: bool = False

    @property
    def trains(self) -> bool:
        """Whether anything is taught at all."""
        return bool(self.kinds)

    def taught(self, task: str) -> bool:
        """Whether the row is taught a measured task."""
        return any(task in TASKS_OF[kind] for kind in self.kinds)


ROWS = (
    Row("base", "base"),
    Row("conversation", "conversation only", ("chat",)),
    Row("text", "task data as text", KINDS, as_text=True),
    Row("R", "R", ("region",), ("region",)),
    Row("M", "M", ("mask",), ("mask",)),
    Row("T", "T", ("temporal",), ("temporal",)),
    Row("R+M", "R+M", ("region", "mask"), ("region", "mask")),
    Row("T+R+M", "T+R+M", HEADS, HEADS),
    Row("TPO", "T+R+M+conversation (TPO)", KINDS, HEADS),
)


def choose_rows(names: Sequence[str]) -> list[Row]:
    """The rows of these names, in the order of the table. TpoError for an unknown one."""
    known = {row.name: row for row in ROWS}
    for name in names:
        if name not in known:
            raise TpoError(f"no row {name!r}; {nearest(name, known)}")
    return [row for row in ROWS if row.name in names]


def row_recipe(recipe: str, overrides: Sequence[str], row: Row, seed: int, equal: str) -> Recipe:
    """The recipe that trains a row: `recipe` with the user's overrides, then what the row leaves out. equal: of
    EQUAL."""
    whole = load_recipe(recipe, overrides)
    named = [f"name={whole.name}.{row.name.replace('+', '_')}.seed{seed}", f"work_uri={whole.work_uri}", f"seed={seed}"]
    return load_recipe(recipe, [*overrides, *changes(row, whole, equal), *named])


def changes(row: Row, recipe: Recipe, equal: str) -> list[str]:
    """What a row changes of the whole recipe, as overrides. TpoError when it leaves nothing of a phase."""
    found = ["model.coordinates=text", "model.heads=[]"] if row.as_text else []
    for name, stage in recipe.stages.items() if row.trains else ():
        if row.heads and not stage.heads:
            continue
        heads = [head for head in stage.heads if head in row.heads]
        if heads != stage.heads:
            found.append(f"stages.{name}.heads=[{', '.join(heads)}]")
        found += [f"stages.{name}.lr.{group}=null" for group in stage.lr if not _learns(group, heads)]
        found += _without_other_kinds(row, name, stage)
        if equal == "samples":
            found += _without_their_steps(row, name, stage)
    return found


def _learns(group: str, heads: Sequence[str]) -> bool:
    """Whether a group of parameters is there with these heads."""
    if group == "task_vectors":
        return bool(heads)
    return group not in HEAD_GROUPS or HEAD_GROUPS[group] in heads


def _without_other_kinds(row: Row, name: str, stage: StageConfig) -> Iterable[str]:
    for phase in stage.phases:
        where = f"stages.{name}.phases.{phase.name}"
        if not set(phase.mixture) & set(row.kinds):
            raise TpoError(
                f"row {row.name!r} has nothing to learn in {where}, whose mixture holds {', '.join(phase.mixture)}:"
                " an ablation needs a recipe whose phases mix all kinds"
            )
        for table in ("mixture", "micro_batch_sizes"):
            yield from (f"{where}.{table}.{kind}=null" for kind in getattr(phase, table) if kind not in row.kinds)


def _without_their_steps(row: Row, name: str, stage: StageConfig) -> Iterable[str]:
    """A kind of the mixture gets the micro-batches that it gets among all kinds."""
    for phase in stage.phases:
        share = sum(phase.mixture.get(kind, 0.0) for kind in row.kinds) / sum(phase.mixture.values())
        if phase.steps is not None and share < 1:
            yield f"stages.{name}.phases.{phase.name}.steps={max(1, round(share * phase.steps))}"


def require_equal_steps(recipes: Sequence[Recipe]) -> dict[str, int]:
    """Optimizer steps of each phase, the same in all recipes. TpoError when they differ, or are given in epochs."""
    found = [{ref.name: ref.phase.steps for ref in phases_of(recipe)} for recipe in recipes]
    for recipe, steps in zip(recipes, found, strict=True):
        for name, count in steps.items():
            if count is None:
                raise TpoError(
                    f"phase {name} is given in epochs, which are other steps for other data: an ablation needs steps"
                )
        if steps != found[0]:
            raise TpoError(f"{recipe.name} takes {steps} steps and {recipes[0].name} {found[0]}: rows need the same")
    return {name: count for name, count in found[0].items() if count is not None}
