"""from pipelines.chain import build_chain: the chain as a graph of steps, shared by the entry points.

    render > preprocess > evaluate_base, task_assignment > vision_task > multitask > evaluate > register

A step here is thin: it hands a part of the recipe to the room that does the work, and names what determines its result.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from pipelines.checkpoint_lease import checkpoint_lease
from pipelines.checks import check_datasets, check_phases, check_sources
from pipelines.cluster import decoders, on_cluster
from pipelines.report import page_of, track
from tpo_core.config.schema import Recipe, identity
from tpo_core.data.loader import steps_for
from tpo_core.data.media_store import MediaStore
from tpo_core.data.preprocess import preprocess
from tpo_core.data.quickstart.write import write_quickstart
from tpo_core.data.sample import SCHEMA_VERSION
from tpo_core.data.shards import ShardSet
from tpo_core.errors import TpoError
from tpo_core.evaluation.by_sample import values_by_sample
from tpo_core.evaluation.curves import loss_curves
from tpo_core.evaluation.evaluate import EVALUATION_VERSION, evaluate_part
from tpo_core.execution.artifact import Artifact
from tpo_core.execution.fingerprint import fingerprint
from tpo_core.execution.provenance import commit
from tpo_core.execution.runner import newest
from tpo_core.execution.steps import Step, StepContext
from tpo_core.models.source import identify
from tpo_core.storage.uri import absolute, exists, is_local, join, tree_stamp, without_password
from tpo_core.tracking.lineage import lineage_of
from tpo_core.tracking.promotion import DATA, EVALUATION
from tpo_core.tracking.publish import Publisher
from tpo_core.train.build import PART
from tpo_core.train.exchange import clear
from tpo_core.train.ray_trainer import run_phase
from tpo_core.train.recorder import read_history
from tpo_core.train.rows import numbers
from tpo_core.train.stages import PhaseRef, phases_of

Echo = Callable[[str], None]
MEDIA = "media"  # folder of decoded media below work_uri, which all shard sets of the folder share
TRAINING_VERSION = 4  # raise it when the same phase would give other weights; 4: heads draw by sample, not by rank


@dataclass(frozen=True)
class Chain:
    """The bodies of the steps of one recipe."""

    recipe: Recipe
    publisher: Publisher
    echo: Echo

    def render(self, ctx: StepContext) -> dict[str, Any]:
        """Writes the generated datasets in their native formats."""
        assert self.recipe.data.generator is not None
        return {"clips": write_quickstart(self.recipe.data.generator, ctx.output, self.echo)}

    def preprocess(self, ctx: StepContext) -> dict[str, Any]:
        """Native annotations and media to shards."""
        root = self.recipe.data.root or absolute(ctx.inputs["render"].uri)  # other machines do not see a fetched copy
        store = MediaStore(absolute(join(self.recipe.work_uri, MEDIA)), f"../../{MEDIA}")
        return preprocess(self.recipe.data, root, ctx.output, echo=self.echo, store=store, **decoders(self.recipe))

    def train(self, ref: PhaseRef, last: str | None, ctx: StepContext) -> dict[str, Any]:
        """One phase, from the weights of step `last` (None: the base model)."""
        check_phases(self.recipe, ctx.inputs["preprocess"].uri)
        run_id = ctx.fingerprint[:12]
        with (
            failure_tracked(self.publisher, self.echo),
            checkpoint_lease(self.recipe, ref.name, run_id, self.echo),
        ):
            return run_phase(
                self.recipe,
                ref.stage_name,
                ref.phase,
                shards_uri=ctx.inputs["preprocess"].uri,
                init_uri=self.recipe.model.base if last is None else self.model_of(ctx.inputs[last]),
                output=ctx.output,
                open_tracker=self.publisher.phase_sink(ref.name, ctx.fingerprint, note(self.recipe, ref, last)),
                resume=True,  # whatever is there is of this fingerprint; on a new node, only the checkpoints are
                run_id=run_id,
                exchange=self.exchange(ref.name, ctx.fingerprint),
                echo=lambda line: self.echo(f"{line}  | {ctx.position()}"),
            )

    def model_of(self, phase: Artifact) -> str:
        """The weights that a phase hands on, for whichever machine; what the phase needed while it ran goes."""
        exchange = self.exchange(phase.step, phase.fingerprint)
        if exchange is None:
            return str(phase.path / "model")
        clear(exchange)
        return join(phase.uri, "model")

    def exchange(self, phase: str, of: str) -> str | None:
        """Through which the machines that train get what others wrote, where they do not share the work folder."""
        work = self.recipe.work_uri
        return None if is_local(work) else join(work, "exchange", phase, of[:12])

    def evaluate(self, last: str | None, ctx: StepContext) -> dict[str, Any]:
        """The model of step `last`, or the base model before TPO when None; the parts run side by side."""
        with nullcontext() if last is None else failure_tracked(self.publisher, self.echo):
            return self.measure(last, ctx)

    def measure(self, last: str | None, ctx: StepContext) -> dict[str, Any]:
        """See `evaluate`."""
        model = self.recipe.model.base if last is None else self.model_of(ctx.inputs[last])
        shards = ctx.inputs["preprocess"].uri
        if last is None:  # of the steps that read the data, the first
            check_phases(self.recipe, shards)
        wanted = [part for part in self.recipe.evaluation.parts if part in ShardSet.open(shards).parts]
        jobs = [partial(evaluate_part, self.recipe, model, shards, part, ctx.output) for part in wanted]
        results = on_cluster(jobs, self.recipe.train, self.echo, group=self.recipe.nodes.evaluate)
        merged: dict[str, Any] = {"metrics": {}, "baseline": {}, "counts": {}}
        for part, result in zip(wanted, results, strict=True):
            merged["metrics"] |= result["metrics"]
            merged["baseline"] |= result["baseline"]
            merged["counts"][part] = result["counts"]
        page_of(ctx.output, shards, f"{self.recipe.name}: {last or 'base before TPO'}", {}, ctx.output)
        return merged

    def evaluation_id(self, shards_fingerprint: str) -> str:
        """What numbers have in common that may be compared: the data, the requests chosen from it, and the scoring."""
        asked = identity(self.recipe.evaluation)
        return fingerprint("evaluation", EVALUATION_VERSION, asked, {"preprocess": shards_fingerprint})

    def register(self, last: str, phases: list[str], ctx: StepContext) -> dict[str, Any]:
        """Report, gallery, curves and numbers to MLflow, a version to the registry, the alias `challenger` to it."""
        with failure_tracked(self.publisher, self.echo):
            return self.publish(last, phases, ctx)

    def publish(self, last: str, phases: list[str], ctx: StepContext) -> dict[str, Any]:
        """See `register`."""
        measured, base = ctx.inputs["evaluate"], ctx.inputs["evaluate_base"]
        curves = ctx.output / "loss_curves.png"
        histories = {name: read_history(ctx.inputs[name].path / "history.jsonl") for name in phases}
        loss_curves(histories, curves)
        shards = ctx.inputs["preprocess"]
        pictures = {f"gallery/{part}": measured.path / part / "gallery" for part in self.recipe.evaluation.parts}
        registered = self.publisher.register(
            model=ctx.inputs[last].path / "model",
            fingerprint=ctx.inputs[last].fingerprint,
            tags={
                DATA: ShardSet.open(shards.uri).digest,
                "commit": commit() or "unknown",
                "recipe": self.recipe.name,
                "base": self.recipe.model.base,
                EVALUATION: self.evaluation_id(measured.inputs["preprocess"]),
            },
            metrics=measured.result["metrics"],
            base_metrics=base.result["metrics"],
            pictures={folder: path for folder, path in pictures.items() if path.is_dir()} | {"curves": curves},
            histories={
                name: (ctx.inputs[name].fingerprint, [(row["step"], numbers(row)) for row in rows])
                for name, rows in histories.items()
            },
            samples={"model": by_sample(measured), "base": by_sample(base)},
            lineage=lineage_of(
                ctx.inputs, last, [source.model_dump(mode="json") for source in self.recipe.data.sources]
            ),
        )
        self.report(ctx)
        return registered

    def report(self, ctx: StepContext) -> None:
        """The page on what was measured beside what the base model did, here and in MLflow."""
        measured, base = ctx.inputs["evaluate"].path, {"before TPO": ctx.inputs["evaluate_base"].result["metrics"]}
        written = page_of(measured, ctx.inputs["preprocess"].uri, f"{self.recipe.name}: evaluation", base, ctx.output)
        if written is not None:
            lost = track(written, self.recipe.tracking, self.publisher.uri, "evaluation", self.publisher.run_id)
            if lost:
                self.echo(lost)


def by_sample(evaluation: Artifact) -> dict[str, dict[str, float]]:
    """What each sample gave to the metrics of an evaluation, of all parts."""
    found: dict[str, dict[str, float]] = {}
    for part in evaluation.result["counts"]:
        lines = (evaluation.path / part / "predictions.jsonl").read_text().splitlines()
        found |= values_by_sample(part, map(json.loads, lines), evaluation.result["metrics"])
    return found


@contextmanager
def failure_tracked(publisher: Publisher, echo: Echo) -> Iterator[None]:
    """The run of the pipeline ends as FAILED when a phase does, which has ended its own."""
    try:
        yield
    except Exception:
        if trouble := publisher.fail():
            echo(trouble)
        raise


def content(recipe: Recipe) -> dict[str, Any]:
    """What lies at the roots of the sources now, by root, so that new labels or media are another data set.

    Roots below the generator's output are left to the step that writes it. For a root that is gone or out of reach from
    here, what it held when it was preprocessed last counts: of data preprocessed once, nothing but the shards need be
    left, and a step that reads it says what is wrong.
    """
    data = recipe.data
    roots = {source.root for source in data.sources}
    if data.root is None:
        roots = {root for root in roots if "://" in root or root.startswith("/")}
    last = newest(join(recipe.work_uri, "preprocess")) if roots else None
    stamps = {} if last is None else last.identity.get("content", {})
    with suppress(TpoError):  # each further root of a storage that does not answer would cost seconds
        for root in sorted(roots):
            place = join(data.root or "", root)
            if exists(place):
                stamps[root] = tree_stamp(place, without=recipe.work_uri)
    return {"content": {root: stamps.get(root) for root in sorted(roots)}} if roots else {}


def note(recipe: Recipe, ref: PhaseRef, last: str | None) -> str:
    """What MLflow says of the run of a phase."""
    names = [each.name for each in phases_of(recipe)]
    length = f"{ref.phase.steps} steps" if ref.phase.steps is not None else f"{ref.phase.epochs:g} epochs"
    kinds = ", ".join(f"{kind} {weight:g}" for kind, weight in ref.phase.mixture.items())
    start = f"the base model `{recipe.model.base}`" if last is None else f"the model of `{last}`"
    return (
        f"Phase {names.index(ref.name) + 1} of {len(names)} of the recipe `{recipe.name}`, from {start}: {length} that"
        f" mix {kinds}, and train {', '.join(ref.stage.lr)}."
    )


def training_load(ref: PhaseRef, artifacts: Mapping[str, Artifact]) -> tuple[str, float] | None:
    """The micro-batches of a phase (Step.load). Their sizes are chosen to fill a device, whatever is in them: judged
    by samples, the quick start's second phase seemed to take five times as long as it does."""
    if "preprocess" not in artifacts:
        return None
    try:
        counts = ShardSet.open(artifacts["preprocess"].uri).counts(PART, ref.phase.datasets)
        return "micro-batches", float(steps_for(ref.phase, counts) * ref.phase.accumulation)
    except TpoError:  # the step itself tells what is wrong with the data
        return None


def evaluation_load(artifacts: Mapping[str, Artifact]) -> tuple[str, float]:
    """The same requests, whatever the model (Step.load)."""
    return "evaluation", 1.0


def build_chain(recipe: Recipe, publisher: Publisher, echo: Echo) -> list[Step]:
    """All steps of a recipe, inputs before the steps that read them. Reads the base model's identity and
    lists the data sets, touches nothing.

    Raises TpoError when there is no such base model, reader or reader's option, or no source to evaluate on.
    """
    check_sources(recipe)
    check_datasets(recipe)
    chain = Chain(recipe, publisher, echo)
    data = identity(recipe.data)
    steps: list[Step] = []
    rendered = ("render",) if recipe.data.generator is not None and recipe.data.root is None else ()
    if rendered:
        steps.append(Step("render", chain.render, {"generator": data["generator"]}))
    steps.append(Step("preprocess", chain.preprocess, {"data": data} | content(recipe), rendered, SCHEMA_VERSION))
    measured = {"evaluation": identity(recipe.evaluation)}
    model = identity(recipe.model) | {"base": identify(recipe.model.base)}
    mask = recipe.model.mask
    if "mask" in recipe.model.heads and mask.decoder == "sam2":
        model["mask"] |= {"sam2": identity(mask.sam2) | {"source": identify(mask.sam2.source)}}
    base = {name: model[name] for name in ("base", "backbone")}
    steps.append(
        Step(
            "evaluate_base", partial(chain.evaluate, None), base | measured, ("preprocess",), EVALUATION_VERSION,
            evaluation_load,
        )
    )  # fmt: skip
    phases: list[str] = []
    for ref in phases_of(recipe):
        last = phases[-1] if phases else None
        what = {
            "model": model,
            "stage": identity(ref.stage) | {"phases": [identity(ref.phase)]},
            "seed": recipe.seed,
        }
        inputs = ("preprocess",) if last is None else ("preprocess", last)
        phases.append(ref.name)
        load = partial(training_load, ref)
        steps.append(Step(ref.name, partial(chain.train, ref, last), what, inputs, TRAINING_VERSION, load))
    last = phases[-1]
    steps.append(
        Step(
            "evaluate", partial(chain.evaluate, last), measured, ("preprocess", last), EVALUATION_VERSION,
            evaluation_load,
        )
    )  # fmt: skip
    uri = recipe.tracking.uri
    where = {"tracking_uri": uri and without_password(uri), "model_name": recipe.tracking.model_name}
    reads = ("preprocess", "evaluate_base", *phases, "evaluate")
    steps.append(Step("register", partial(chain.register, last, phases), where, reads))
    return steps
