"""run_suite(...): a suite of benchmarks from its data sets to a report. entry_lines(...): what it would ask.

An entry is preprocessed into a shard set of its own (media are decoded once for all of them), asked by a pool of
actors, scored by its metric, and lies below the output, which may be a path or a URI.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from pipelines.cluster import decoders, on_cluster
from pipelines.report import track
from tpo_core.config.schema import DataConfig, FramesConfig, Recipe, SourceConfig
from tpo_core.data.media_store import MediaStore
from tpo_core.data.preprocess import preprocess
from tpo_core.data.readers import READERS, Reject
from tpo_core.data.sample import Sample
from tpo_core.data.shards import ShardSet
from tpo_core.errors import TpoError, in_one_line
from tpo_core.evaluation.answerers import ModelSpec, Sam2Spec, Spec
from tpo_core.evaluation.asking import asks_of, wanted
from tpo_core.evaluation.bench import NO_CONTROL, Place, Settings, run_entry, with_control
from tpo_core.evaluation.pool import RayPool
from tpo_core.evaluation.report.footage import of_sets
from tpo_core.evaluation.report.table import OF_A_PART, count_text
from tpo_core.evaluation.report.write import Written, write_report
from tpo_core.evaluation.suite import Entry, Suite
from tpo_core.evaluation.work import PART, HopelessError, Pool
from tpo_core.models.source import identify
from tpo_core.storage import local
from tpo_core.storage.commit import commit, is_committed
from tpo_core.storage.local import is_disk_full
from tpo_core.storage.uri import exists, is_local, join, scratch_dir, without_password
from tpo_core.tracking.models import is_registered, model_folder
from tpo_core.tracking.server import default_uri

Echo = Callable[[str], None]
MEDIA, SHARDS = "media", "shards"
CPUS_PER_ACTOR = 1.0
SHOWN_NUMBERS = 4  # of an entry, in the table


@dataclass(frozen=True)
class Asked:
    """What is evaluated: a suite, below which data root, of which recipe and model, how much of it, and where to."""

    recipe: Recipe
    suite: Suite
    model: str
    data_root: str
    output: str
    limit: int | None
    sam2: str | None

    def root(self, entry: Entry) -> str:
        return join(self.data_root, entry.root)


def check_data(asked: Asked) -> None:
    """TpoError that names the data sets which are not there, before anything is spent."""
    lost = [f"{entry.name} ({asked.root(entry)})" for entry in asked.suite.entries if not exists(asked.root(entry))]
    if lost:
        raise TpoError(
            f"no data set for {len(lost)} of {len(asked.suite.entries)} entries: {', '.join(lost)}; set --data-root to"
            " the folder above them, or choose entries with --only"
        )


def find_model(uri: str, recipe: Recipe, output: str) -> str:
    """The place of a model that is named by the registry, or `uri` itself, made absolute if it is a path.

    What the registry does not keep where all machines see it is put beside the results, if these lie in a bucket.
    """
    if not is_registered(uri):
        return str(Path(uri).resolve()) if Path(uri).exists() else uri
    folder = model_folder(uri, recipe.tracking.uri or default_uri(recipe.work_uri))
    if is_local(output):
        return folder
    shared = join(output, "models", identify(folder)[:16])
    if not is_committed(shared):
        staging = scratch_dir() / "models" / hashlib.sha256(shared.encode()).hexdigest()[:16]
        shutil.rmtree(staging, ignore_errors=True)
        shutil.copytree(folder, staging)
        commit(staging, shared)
    return shared


def data_of(entry: Entry, recipe: Recipe, data_root: str, step: int) -> DataConfig:
    """How each `step`-th sample of an entry is preprocessed: as the recipe says, but for the frames that the entry asks
    for."""
    own: dict[str, Any] = {"n_frames": entry.frames, "fps": None, "choice": entry.choice}
    if entry.every_frame:
        own["choice"] = "all"
    if entry.short_side_px is not None:
        own["short_side_px"] = entry.short_side_px
    source = SourceConfig(
        name=entry.name,
        reader=entry.reader,
        root=entry.root,
        split=entry.split,
        part=PART,
        step=step,
        options=entry.options,
    )
    return DataConfig(
        root=data_root,
        frames=FramesConfig(**{**recipe.data.frames.model_dump(), **own}),
        sources=[source],
        shard_size_mib=recipe.data.shard_size_mib,
        reject_budget=recipe.data.reject_budget,
    )


def step_of(entry: Entry, asked: Asked) -> int:
    """At which distance samples are taken where there is a limit, so that the media of no others are decoded: the
    largest one that meets as many samples that are asked for, which may be few among all."""
    if asked.limit is None:
        return 1
    items = READERS[entry.reader].read(asked.root(entry), entry.split, entry.options)
    asked_for = [wanted(entry, item) for item in items if isinstance(item, Sample)]
    most = max(1, len(asked_for) // asked.limit)
    return next((step for step in range(most, 1, -1) if sum(asked_for[::step]) >= asked.limit), 1)


def shards_of(entry: Entry, asked: Asked, step: int, echo: Echo) -> str:
    """The URI of the shard set of an entry with each `step`-th sample, below the output. Needs a Ray."""
    place, data = join(asked.output, entry.name), data_of(entry, asked.recipe, asked.data_root, step)
    store, name = join(asked.output, MEDIA), SHARDS if step == 1 else f"{SHARDS}-each-{step}"
    where = decoders(asked.recipe)
    if is_local(asked.output):
        folder = local.to_path(join(place, name))
        preprocess(data, asked.data_root, folder, echo=echo, store=MediaStore(store, f"../../{MEDIA}"), **where)
        return str(folder)
    staging = scratch_dir() / SHARDS / hashlib.sha256(place.encode()).hexdigest()[:16]
    shutil.rmtree(staging, ignore_errors=True)
    preprocess(data, asked.data_root, staging, echo=echo, store=MediaStore(store, store), **where)
    shared = join(place, f"{name}-{ShardSet.open(staging).digest[:16]}")
    if not is_committed(shared):
        commit(staging, shared)
    return shared


@dataclass(frozen=True)
class Ran:
    """What came of the entries of a suite, by name: results, why some failed (one whose control failed has its result
    all the same), and which were not asked after an error that no entry can be blamed for. shards: of those with a
    result. unreported: why there is no report."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, Exception] = field(default_factory=dict)
    unasked: list[str] = field(default_factory=list)
    shards: dict[str, str] = field(default_factory=dict)
    unreported: Exception | None = None

    def check(self) -> None:
        """TpoError for entries that failed, or else for the report; any other as it is, with its traceback."""
        for name, error in self.failed.items():
            if not isinstance(error, TpoError):
                error.add_note(f"while {name} was evaluated; the other entries have their results")
                raise error
        if self.failed:
            told = "; ".join(f"{name}: {in_one_line(error)}" for name, error in self.failed.items())
            count = len({*self.results, *self.failed, *self.unasked})
            rest = f"; not asked after that: {', '.join(self.unasked)}" if self.unasked else ""
            raise TpoError(f"{len(self.failed)} of {count} entries failed: {told}{rest}")
        if self.unreported is not None:
            raise self.unreported


def run_suite(asked: Asked, echo: Echo, pool: Pool | None = None) -> Ran:
    """Asks and scores every entry and writes the report. Needs a Ray that is initialised.

    An entry that fails does not end the run: hours of the others are not lost for it. An error that they would meet too
    does, and what came before it is reported.
    """
    if pool is None:
        train, evaluation, group = asked.recipe.train, asked.recipe.evaluation, asked.recipe.nodes.evaluate
        pool = RayPool(evaluation.workers, CPUS_PER_ACTOR, train.gpus_per_worker, group)
        # A job that does nothing in the room of an actor: one that no node has room for would wait without a word.
        on_cluster([lambda threads, echo: None], train, echo, group=group)
    models, ran = models_of(asked), Ran()
    for number, entry in enumerate(asked.suite.entries, start=1):
        echo(f"{entry.name}  {number} of {len(asked.suite.entries)}: {entry.title}")
        try:
            ask_entry(entry, asked, models, pool, ran, echo)
        except Exception as error:  # told by Ran.check when the others have been asked
            ran.failed[entry.name] = error
            echo(f"{entry.name}  failed: {in_one_line(error)}")
            if isinstance(error, HopelessError) or is_disk_full(error):
                ran.unasked.extend(entry.name for entry in asked.suite.entries[number:])
                break
    try:
        if ran.shards:
            report_on(asked, ran.shards, echo)
    except Exception as error:  # told by Ran.check when the numbers have been printed
        return replace(ran, unreported=error)
    return ran


def ask_entry(entry: Entry, asked: Asked, models: tuple[Spec, Spec | None], pool: Pool, ran: Ran, echo: Echo) -> None:
    """Puts what came of an entry into `ran`: first without the control, which may fail."""
    (spec, control), evaluation = models, asked.recipe.evaluation
    settings = Settings(evaluation.batch_size, evaluation.max_new_tokens, asked.limit)
    step = step_of(entry, asked)
    made = shards_of(entry, asked, step, echo)
    place = Place(made, asked.root(entry), join(asked.output, entry.name), sparse=step > 1)
    result = ran.results[entry.name] = run_entry(entry, spec, place, settings, pool, echo)
    ran.shards[entry.name] = made
    echo(headline(entry, result))
    if entry.control and control is None:
        echo(f"{entry.name}  {NO_CONTROL}")
    elif entry.control and control is not None:
        ran.results[entry.name] = with_control(entry, control, result, place, settings, pool, echo)


def models_of(asked: Asked) -> tuple[Spec, Spec | None]:
    """The model and the control. TpoError for a mistyped one, before anything is decoded."""
    spec = ModelSpec(asked.recipe, asked.model)
    control = None if asked.sam2 is None else Sam2Spec(asked.sam2)
    for each in (spec, control):
        if each is not None:
            each.identity()
    return spec, control


def report_on(asked: Asked, shards: dict[str, str], echo: Echo) -> None:
    """Writes the report on the entries that have a shard set here, and tracks it."""
    title = f"{asked.suite.name}: {asked.model}"
    written = write_report(asked.output, of_sets(shards, PART), title=title, folders=list(shards))
    echo(f"report  {written.page}")
    log_evaluation(written, asked.recipe, title, echo)


def log_evaluation(written: Written, recipe: Recipe, title: str, echo: Echo) -> None:
    """Logs a report as the run `title` of MLflow: where the recipe says, or in the database below its work_uri. Where
    there is neither, that is told and no more: the numbers are there."""
    try:
        uri = recipe.tracking.uri or default_uri(recipe.work_uri)
    except TpoError as error:
        echo(f"MLflow  not logged: {error}")
        return
    lost = track(written, recipe.tracking, uri, title, None)
    echo(lost or f"MLflow  {without_password(uri)}, run {title}")


def headline(entry: Entry, result: dict[str, Any]) -> str:
    """One line of the numbers that others publish too."""
    shown = "  ".join(f"{name} {_number(result['metrics'].get(name))}" for name in headline_names(entry, result))
    return f"{entry.name}  {shown}  scored {count_text(result['scored'], result['asked'], result['whole'])}"


def headline_names(entry: Entry, result: dict[str, Any]) -> list[str]:
    """The numbers worth a line: those that the suite names, else the published ones, else the first few."""
    published = [] if entry.published is None else list(entry.published.videochat_tpo)
    names = [name for name in entry.headline or published if name in result["metrics"]]
    return (names or list(result["metrics"]))[:SHOWN_NUMBERS]


def results_table(suite: Suite, results: dict[str, dict[str, Any]]) -> Table:
    """A row a number: of the model, of the published models, of plain SAM2. An entry without a result has none."""
    parts = any(not result["whole"] for result in results.values())
    table = Table(title=suite.name, title_justify="left", caption=OF_A_PART if parts else None, caption_justify="left")
    for name in ("benchmark", "number"):
        table.add_column(name)
    for name in ("model", "VideoChat2", "VideoChat-TPO", "SAM2", "n/N"):
        table.add_column(name, justify="right")
    for entry in suite.entries:
        if (result := results.get(entry.name)) is None:
            continue
        for name in headline_names(entry, result):
            others = [result["published"].get(key, {}).get(name) for key in ("videochat2", "videochat_tpo")]
            others.append((result["control"] or {}).get(name))
            values = map(_number, (result["metrics"][name], *others))
            table.add_row(entry.title, name, *values, count_text(result["scored"], result["asked"], result["whole"]))
    return table


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def entry_lines(asked: Asked) -> Iterator[str]:
    """What would be asked, of the labels alone: no media is opened and nothing is loaded."""
    for entry in asked.suite.entries:
        yield f"{entry.name}  {entry.title}: {entry.metric} ({entry.implementation}), prompt {entry.prompt}"
        root = asked.root(entry)
        if not exists(root):
            yield f"  not there: {root}"
            continue
        requests, samples, rejected = 0, 0, Counter[str]()
        for number, item in enumerate(READERS[entry.reader].read(root, entry.split, entry.options)):
            if isinstance(item, Reject):
                rejected[item.reason] += 1
            elif wanted(entry, item):
                samples, requests = samples + 1, requests + len(asks_of(entry, number, item))
        told = ", ".join(f"{count} {reason}" for reason, count in rejected.most_common()) or "none"
        most = "" if asked.limit is None else f", of which {min(asked.limit, samples)} are asked"
        yield f"  {requests} requests about {samples} samples{most}; rejected: {told}; {root}"
        if entry.control:
            yield f"  control: {'plain SAM2 ' + asked.sam2 if asked.sam2 else 'none (--sam2 names one)'}"
