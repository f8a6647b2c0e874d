"""The model and the data of a phase, from the places that its job names."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from tpo_core.config.schema import Recipe, StageConfig
from tpo_core.data.example import Example
from tpo_core.data.loader import Loader, MicroBatch, Prepared
from tpo_core.data.prefetch import Prefetcher
from tpo_core.data.shards import ShardSet
from tpo_core.models.batch import Batch
from tpo_core.models.processing import Processor
from tpo_core.models.source import local_path
from tpo_core.models.tpo import SETTINGS, TpoModel
from tpo_core.train.job import PhaseJob
from tpo_core.train.strategies.base import Strategy

PART = "train"


def build_model(recipe: Recipe, stage: StageConfig, init_uri: str) -> TpoModel:
    """The model with the heads of the stage, from a base model, or from the `model` folder of the phase before: that
    one holds SETTINGS."""
    if (Path(local_path(init_uri)) / SETTINGS).exists():
        model = TpoModel.from_pretrained(init_uri, heads=stage.heads, run=recipe.model)
        model.ask_in_order_of(recipe.model)
    else:
        model = TpoModel.from_base(init_uri, recipe.model, stage.heads)
    model.frames = recipe.data.frames
    return model


def build_phase(job: PhaseJob, strategy: Strategy) -> tuple[TpoModel, "LoaderBatches"]:
    """The model of the stage, and this rank's share of part `train`."""
    model = build_model(job.recipe, job.stage, job.init_uri)
    model.compares_with_base = job.stage.loss_weights["kl"] > 0
    shards = ShardSet.open(job.shards_uri)
    loader = Loader(shards, PART, job.phase, seed=job.recipe.seed, rank=strategy.rank, world=strategy.world)
    workers, counts = job.recipe.train.loader_workers, shards.counts(PART, job.phase.datasets)
    return model, LoaderBatches(loader, model.processor, counts=counts, workers=workers)


class LoaderBatches:
    """Batches of a loader. `workers` threads decode and tokenise ahead of the step that is being trained.

    Steps must be asked for in order; the first one asked for may be any (a resumed run starts in the middle).
    """

    def __init__(self, loader: Loader, processor: Processor, *, counts: Mapping[str, int], workers: int) -> None:
        self.loader, self.processor, self.counts, self.workers = loader, processor, counts, workers
        self.ahead: Prefetcher[tuple[int, MicroBatch, bool], Prepared[Batch]] | None = None

    def step(self, step: int) -> Iterator[Batch]:
        """This rank's micro-batches of optimizer step `step`."""
        if self.ahead is None:
            self.ahead = self.loader.prefetch(step, self.loader.steps, self.prepare, workers=self.workers)
        for prepared in self.ahead:
            assert prepared.step == step, f"step {step} was asked for, the loader is at {prepared.step}"
            yield prepared.item
            if prepared.last:
                return

    def prepare(self, examples: list[Example]) -> Batch:
        return self.processor.collate([self.processor.encode(example) for example in examples])

    def close(self) -> None:
        if self.ahead is not None:
            self.ahead.close()
