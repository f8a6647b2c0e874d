"""Batched inference on a cluster: Ray Data over a pool of actors, each of which loads the model once."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import ray.data

from tpo_core.config.nodes import group_resources
from tpo_core.data.preprocess import ray_data_settings
from tpo_core.errors import TpoError
from tpo_core.evaluation.asking import Ask
from tpo_core.evaluation.work import Work

BATCHES_IN_FLIGHT = 2  # of an actor: one that it works on, one that waits


class _Asker:
    """An actor: a loaded model that answers one batch of requests after another.

    Ray Data raises what a worker raises as a type of its own, without the cause, so a user's mistake is returned.
    """

    def __init__(self, work: Work) -> None:
        self.mistake = ""
        try:
            self.desk = work.begin()
        except TpoError as error:
            self.mistake = str(error)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """rows: batches of requests, pickled; returns how many of each were answered, and the mistake, if any."""
        counts, mistake = [], self.mistake
        for batch in rows["batch"].to_pylist():
            count = 0
            try:
                count = 0 if mistake else self.desk.answer(pickle.loads(batch))
            except TpoError as error:
                mistake = str(error)
            counts.append(count)
        return pa.table({"count": counts, "mistake": [mistake] * len(counts)})


@dataclass(frozen=True)
class RayPool:
    """workers: actors side by side. cpus, gpus: that Ray reserves for each. group: of nodes that they run on."""

    workers: int
    cpus: float
    gpus: float
    group: str | None = None

    def __call__(self, work: Work, batches: Sequence[Sequence[Ask]]) -> Iterator[int]:
        """How many requests each batch answered, as batches are done. Raises TpoError when an actor finds a mistake."""
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
                    raise TpoError(result["mistake"])
                yield int(result["count"])
