"""check_sources(recipe), check_roots(data), ...: mistakes that a recipe's schema cannot see, before any work."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

from tpo_core.config.names import nearest
from tpo_core.config.schema import DataConfig, Recipe, SourceConfig
from tpo_core.data.readers import reader_of
from tpo_core.data.shards import ShardSet
from tpo_core.errors import TpoError
from tpo_core.models.backbones.registry import base_groups
from tpo_core.storage.local import to_path
from tpo_core.storage.uri import absolute, delete, exists, is_local, join, write_bytes
from tpo_core.train.build import PART
from tpo_core.train.ray_trainer import room_for
from tpo_core.train.room import joins
from tpo_core.train.stages import PhaseRef, phases_of, plan_phase


def check_sources(recipe: Recipe) -> None:
    """Readers, their options, and that there is something to evaluate; opens no file. TpoError for the first mistake.

    The schema leaves readers to the data room, which is above it.
    """
    for source in recipe.data.sources:
        reader = reader_of(source)
        try:
            reader.complete(source.options)
        except TpoError as error:
            raise TpoError(f"source {source.name!r}: {error}") from None
    fed = sorted({source.part for source in recipe.data.sources})
    if not set(recipe.evaluation.parts) & set(fed):
        raise TpoError(
            f"no source feeds a part of evaluation.parts ({', '.join(recipe.evaluation.parts)}): data.sources feed"
            f" {', '.join(fed)}; name one of those, or add a source"
        )


def check_places(recipe: Recipe, results: str | Path) -> None:
    """Where results and checkpoints go; TpoError for a storage that is not known, and for a local place that cannot be
    written to. Remote ones may be reached from the cluster only."""
    places = {"results": str(results), "checkpoints (train.checkpoint_uri)": recipe.train.checkpoint_uri}
    for what, place in places.items():
        if place is None or not is_local(place):
            continue
        path = to_path(absolute(place))
        there = next(each for each in (path, *path.parents) if each.exists())
        if not there.is_dir():
            raise TpoError(f"{what} cannot go to {path}, because {there} is no folder: name another place")
        if not os.access(there, os.W_OK | os.X_OK):
            raise TpoError(f"{what} cannot go to {path}: no permission to write to {there}; name another place")


def check_writable(recipe: Recipe, results: str) -> None:
    """Remote places of results and checkpoints, from a machine of the cluster and before any step runs. TpoError for
    one that is not there, takes no writing, or does not know the credentials."""
    for place in dict.fromkeys(filter(None, (results, recipe.train.checkpoint_uri))):
        if not is_local(place):
            probe = join(place, f".probe-{uuid.uuid4().hex}")
            write_bytes(probe, b"")
            delete(probe)


def check_workers(recipe: Recipe, echo: Callable[[str], None]) -> None:
    """TpoError for more training workers than a Ray of this machine will ever have room for, which is connected: before
    hours of preprocessing. A cluster that was joined may grow, and is asked when its workers are needed."""
    if not joins():
        room_for(recipe, echo).there()


def check_roots(data: DataConfig) -> None:
    """Local roots of data sets that are to be read; TpoError for the first that is not there.

    Left out: what lies below the generator's output, which is not written yet, and remote roots, which may be reached
    from the cluster only.
    """
    for source in data.sources:
        if data.root is None and "://" not in source.root and not source.root.startswith("/"):
            continue
        place = join(data.root or "", source.root)
        if is_local(place) and not exists(place):
            raise TpoError(
                f"source {source.name!r}: there is no {place}: check data.root and data.sources.{source.name}.root"
            )


def check_datasets(recipe: Recipe) -> None:
    """Data sets that phases name; TpoError for the first that no source for training gives.

    Records of the reader jsonl name their data sets themselves: with such a source, only the shards tell.
    """
    given = [dataset_of(source) for source in recipe.data.sources if source.part == PART]
    if None in given:
        return
    for ref in phases_of(recipe):
        for name in ref.phase.datasets:
            if name not in given:
                raise TpoError(
                    f"phase {ref.name}: datasets holds {name!r}, which no source of part {PART} gives;"
                    f" {nearest(name, dict.fromkeys(map(str, given)))}"
                )


def dataset_of(source: SourceConfig) -> str | None:
    """The data set that samples of a source name, as far as the recipe tells."""
    reader = reader_of(source)
    if reader.name == "jsonl":
        return None
    options = reader.complete(source.options)
    return options.get("dataset", reader.name)


def check_groups(recipe: Recipe) -> None:
    """Learning rates against the parameters that the base model has; TpoError for the first that trains nothing.

    Groups of heads are the recipe's own matter. A base on a remote storage is not fetched for this: there the phase
    itself tells.
    """
    base = recipe.model.base
    if not is_local(base) or not to_path(base).is_dir():
        return
    held = base_groups(str(to_path(base)), recipe.model)
    for ref in phases_of(recipe):
        for group in ref.stage.lr:
            if group in ("lora", "vision_encoder", "connector") and group not in held:
                raise TpoError(
                    f"stages.{ref.stage_name}.lr.{group} is set but {base} has no such parameters (it has"
                    f" {', '.join(sorted(held))}): set it to null"
                )


def check_phases(recipe: Recipe, shards_uri: str) -> None:
    """All phases against the samples that there are, so that the last one's mistake is told before the first one runs.
    TpoError for a data set or a kind of a mixture without samples."""
    shards = ShardSet.open(shards_uri)
    for ref in phases_of(recipe):
        check_phase(recipe, ref, shards)


def check_phase(recipe: Recipe, ref: PhaseRef, shards: ShardSet) -> None:
    """One phase against the samples that there are, likewise."""
    counts = shards.counts(PART, ref.phase.datasets)
    plan_phase(ref.stage, ref.phase, counts=counts, world=recipe.train.least_workers)
