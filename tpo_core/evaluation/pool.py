"""Batched inference on a cluster: Ray Data over a pool of actors, each of which loads the model once."""

from __future__ import annotations

import pickle
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import ray.data

from tpo_core.config.nodes import group_resources
from tpo_core.data.preprocess import ray_data_settings
from tpo_core.errors import TpoError
from tpo_core.evaluation.asking import Ask
from tpo_core.evaluation.work import HopelessError, Work
from tpo_core.storage.local import is_disk_full

BATCHES_IN_FLIGHT = 2  # of an actor: one that it works on, one that waits


class _Asker:
    """An actor: a loaded model that answers one batch of requests after another.

    Ray Data raises what a worker raises as a type of its own, without the cause, so a user's mistake is returned.
    """

    def __init__(self, work: Work) -> None:
        self.mistake, self.hopeless = "", False
        try:
            self.desk = work.begin()
        except TpoError as error:
            self.note(error)

    def note(self, error: TpoError) -> None:
        """Keeps a mistake. Of a model that cannot be loaded the log of the actor shows why, unless that is one too."""
        self.mistake, self.hopeless = str(error), isinstance(error, HopelessError) or is_disk_full(error)
        if isinstance(error, HopelessError) and not isinstance(error.__cause__, TpoError):
            traceback.print_exception(error)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """rows: batches of requests, pickled; returns how many of each were answered, the mistake, if any, and whether
        it is one that no entry can be blamed for."""
        counts = []
        for batch in rows["batch"].to_pylist():
            count = 0
            try:
                count = 0 if self.mistake else self.desk.answer(pickle.loads(batch))
            except TpoError as error:
                self.note(error)
            counts.append(count)
        mistake, hopeless = [self.mistake] * len(counts), [self.hopeless] * len(counts)
        return pa.table({"count": counts, "mistake": mistake, "hopeless": hopeless})


@dataclass(frozen=True)
class RayPool:
    """workers: actors side by side. cpus, gpus: that Ray reserves for each. group: of nodes that they run on."""

    workers: int
    cpus: float
    gpus: float
    group: str | None = None

    def __call__(self, work: Work, batches: Sequence[Sequence[Ask]]) -> Iterator[int]:
        """How many requests each batch answered, as batches are done. Raises TpoError when an actor finds a mistake, a
        HopelessError for one that no entry can be blamed for."""
        rows = [{"batch": pickle.dumps(list(batch))} for batch in batches]
        with ray_data_settings():
            results = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
                _Asker,
                fn_constructor_args=(work,),
                batch_size=1,
                batch_format="pyarrow",
                compute=ray.data.ActorPoolStrategy(
                    size=min(self.workers, len(rows)), max_tasks_in_flight_per_actor=BATCHES_IN_FLIGHT
                ),
                num_cpus=self.cpus,
                num_gpus=self.gpus,
                resources=group_resources(self.group),
            )
            for result in results.iter_rows():
                if result["mistake"]:
                    raise (HopelessError if result["hopeless"] else TpoError)(result["mistake"])
                yield int(result["count"])
