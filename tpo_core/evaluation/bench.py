"""One benchmark from its samples to its number: asked in batches, written in its native files, scored by its metric.

<output>/<entry>/result.json        the numbers, beside the published ones and, once it has answered too, the control
<output>/<entry>/rows.jsonl         a row for each asked sample
<output>/<entry>/native/            predictions (and truth, where not the official file) that the metric read
<output>/<entry>/native_control/    the same of plain SAM2
<output>/<entry>/answers/<digest>/  what was answered, see `pieces`
"""

from __future__ import annotations

import hashlib
import json
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_core.config.base import identity
from tpo_core.data.sample import Sample
from tpo_core.data.shards import ShardSet
from tpo_core.errors import TpoError
from tpo_core.evaluation import captions
from tpo_core.evaluation.answerers import Spec
from tpo_core.evaluation.asking import GROUND, Ask, asks_of, wanted
from tpo_core.evaluation.native import BENCHMARKS, Answered, Files
from tpo_core.evaluation.pieces import Pieces
from tpo_core.evaluation.record import Record
from tpo_core.evaluation.rows import row_of
from tpo_core.evaluation.suite import Entry
from tpo_core.evaluation.truth import HEAD_OF
from tpo_core.evaluation.work import PART, Pool, Work, ask_all
from tpo_core.metrics import activation
from tpo_core.metrics.registry import score, scorer
from tpo_core.metrics.report import Report, flat
from tpo_core.storage import local
from tpo_core.storage.uri import is_local, join, scratch_dir, write_bytes, write_json

ANSWERS_VERSION = 4  # raise it when the same model would be asked otherwise, or more of its answer is kept
NO_CONTROL = "Plain SAM2, the control, has no numbers here: --sam2 of evaluate.py names it."
Echo = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """How a suite is asked. limit: samples an entry, at equal distances; None: all."""

    batch_size: int
    max_new_tokens: int
    limit: int | None


@dataclass(frozen=True)
class Place:
    """Where one entry lies: its shard set, its data set, and the folder of its results (paths or URIs). sparse: whether
    the shard set leaves samples of the data set out, as with a limit."""

    shards: str
    root: str
    output: str
    sparse: bool = False


@dataclass(frozen=True)
class Chosen:
    """The samples that are asked, by number. whole: whether these are all that the data set has, so that what could not
    be read was asked for too. subtitles: as of `captions.files_of`, of all media of the shard set: another limit is no
    other digest."""

    samples: dict[int, Sample]
    whole: bool
    subtitles: dict[str, str] | None


def chosen(entry: Entry, place: Place, limit: int | None) -> Chosen:
    """What is asked. TpoError when the data set has no sample with labels for this entry, or lacks all subtitles."""
    shards = ShardSet.open(place.shards)
    found = {number: sample for number, sample in enumerate(shards.samples(PART)) if wanted(entry, sample)}
    if not found:
        raise TpoError(
            f"{entry.name}: split {entry.split!r} has no {entry.task} sample with labels to score: check root, split"
            " and `where` of the entry"
        )
    numbers, count = list(found), len(found) if limit is None else min(limit, len(found))
    return Chosen(
        {(n := numbers[i * len(numbers) // count]): found[n] for i in range(count)},
        not entry.where and not place.sparse and count == len(found),
        captions.files_of(entry, place.root, shards.samples(PART)),
    )


def run_entry(entry: Entry, spec: Spec, place: Place, settings: Settings, pool: Pool, echo: Echo) -> dict[str, Any]:
    """Asks, scores and writes one entry; returns the content of result.json, without a control.

    Answers that are there are not asked for again.
    """
    shards = ShardSet.open(place.shards)
    asked = chosen(entry, place, settings.limit)
    silent = captions.missing(entry, asked.subtitles, asked.samples.values())
    answered, digest = answers_of(entry, spec, asked, place, settings, pool, echo)
    report, command = scored(entry, answered, place, asked.whole, "native")
    benchmark = BENCHMARKS[entry.metric]
    rows = [row_of(entry, benchmark, one, report.per_item.get(benchmark.key(one.sample)), shards) for one in answered]
    write_bytes(join(place.output, "rows.jsonl"), "".join(json.dumps(row) + "\n" for row in rows).encode())
    result = {
        "entry": entry.name,
        "title": entry.title,
        "metric": entry.metric,
        "implementation": report.implementation,
        "metrics": _strict(flat(report.result)),
        "published": {} if entry.published is None else _published(entry),
        **counts_of(report, shards, asked.whole and truth_of(entry, place) is None),
        "whole": asked.whole,
        "without_subtitles": silent,
        "activation": activation_of(entry, answered),
        "control": None,
        "notes": notes_of(entry, silent),
        "model": spec.name,
        "digest": digest,
        "command": command,
    }
    write_json(join(place.output, "result.json"), result)
    return result


def with_control(
    entry: Entry,
    control: Spec,
    result: Mapping[str, Any],
    place: Place,
    settings: Settings,
    pool: Pool,
    echo: Echo,
) -> dict[str, Any]:
    """The result of an entry with the numbers of another who is asked the same, written over the one without."""
    asked = chosen(entry, place, settings.limit)
    others, _ = answers_of(entry, control, asked, place, settings, pool, echo)
    report, _ = scored(entry, others, place, asked.whole, "native_control")
    notes = [note for note in result["notes"] if note != NO_CONTROL]
    compared = {**result, "control": _strict(flat(report.result)), "notes": notes}
    write_json(join(place.output, "result.json"), compared)
    return compared


def notes_of(entry: Entry, silent: int | None) -> list[str]:
    """What is to be known beside the numbers of an entry without a control, a sentence each. silent: media without a
    file of subtitles, where these are shown."""
    notes = [f"{silent} media have no file of subtitles and were asked without."] if silent else []
    notes += [NO_CONTROL] if entry.control else []
    return notes + ([entry.published.note] if entry.published is not None and entry.published.note else [])


def answers_of(
    entry: Entry, spec: Spec, asked: Chosen, place: Place, settings: Settings, pool: Pool, echo: Echo
) -> tuple[list[Answered], str]:
    """Each sample with its answers, and the digest under which these are kept."""
    samples = asked.samples
    asks = [ask for number, sample in samples.items() for ask in asks_of(entry, number, sample)]
    digest = digest_of(entry, spec, ShardSet.open(place.shards).digest, asked.subtitles, settings)
    pieces = Pieces(join(place.output, "answers", digest[:16]))
    work = Work(spec, entry, place.shards, place.root, pieces, settings.max_new_tokens)
    records = ask_all(work, by_media(asks, samples), settings.batch_size, pool, echo)
    lost = next((ask.key for ask in asks if ask.key not in records), None)
    assert lost is None, f"{lost} was asked and not answered"
    return [_answered(sample, records) for sample in samples.values()], digest


def _answered(sample: Sample, records: Mapping[str, Record]) -> Answered:
    return Answered(sample, records[sample.sample_id], records.get(f"{sample.sample_id}{GROUND}"))


def by_media(asks: Sequence[Ask], samples: Mapping[int, Sample]) -> list[Ask]:
    """The same requests, those about one media together, which then share its pass through the vision tower."""
    return sorted(asks, key=lambda ask: [media.uri for media in samples[ask.sample].media])


def digest_of(
    entry: Entry, spec: Spec, shards_digest: str, subtitles: Mapping[str, str] | None, settings: Settings
) -> str:
    """What answers have in common that may be used for one another."""
    asked = {
        "version": ANSWERS_VERSION,
        "model": spec.identity(),
        "shards": shards_digest,
        "subtitles": subtitles,
        "entry": identity(entry),
        "max_new_tokens": settings.max_new_tokens,
    }
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def truth_of(entry: Entry, place: Place) -> Path | None:
    """The official truth of the data set, where it is on this machine."""
    if entry.truth is None or not is_local(place.root):
        return None
    path = local.to_path(place.root) / entry.truth
    return path if path.exists() else None


def scored(entry: Entry, answered: Sequence[Answered], place: Place, whole: bool, folder: str) -> tuple[Report, str]:
    """Writes the native files and has the metric score them: its report, and the command that gives the same.

    whole: all samples of the data set were asked, so that the official truth is scored against, unread samples being
    misses; otherwise the truth of those that were asked is written beside the predictions.
    """
    target = join(place.output, folder)
    here = (
        local.to_path(target)
        if is_local(target)
        else scratch_dir() / "native" / hashlib.sha256(target.encode()).hexdigest()[:16]
    )
    shutil.rmtree(here, ignore_errors=True)
    here.mkdir(parents=True)
    benchmark = BENCHMARKS[entry.metric]
    official = truth_of(entry, place) if whole else None
    true = Files(official) if official else benchmark.truth([one.sample for one in answered], here)
    found = benchmark.predictions(answered, here)
    options = {**_options(entry, place), **true.options, **found.options}
    options = {name: value for name, value in options.items() if value is not None}
    report = score(entry.metric, true.path, found.path, entry.implementation, **options)
    if not is_local(target):
        for path in sorted(path for path in here.rglob("*") if path.is_file()):
            write_bytes(join(target, path.relative_to(here).as_posix()), path.read_bytes())
    words = ["python", "-m", "tpo_core.metrics.score", entry.metric, "--ground-truth", true.path]
    words += ["--predictions", found.path, "--implementation", entry.implementation]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [value])]
    return report, shlex.join(map(str, words))


def _options(entry: Entry, place: Place) -> dict[str, Any]:
    """The metric's options in their types."""
    kinds = {option.name: option.type for option in scorer(entry.metric).options}
    filled = {name: text.replace("{root}", place.root) for name, text in entry.metric_options.items()}
    return {name: text == "true" if kinds[name] is bool else kinds[name](text) for name, text in filled.items()}


def counts_of(report: Report, shards: ShardSet, own_truth: bool) -> dict[str, Any]:
    """asked, scored and rejected. What could not be read is in no truth that was written from the samples; it is asked
    for all the same (`own_truth`: of a whole data set), so that n/N shows it."""
    unread: dict[str, int] = shards.manifest["rejected"]
    rejected = {reason: entry["count"] for reason, entry in report.rejected.items()}
    rejected |= {f"unread_{reason}": count for reason, count in unread.items()}
    return {
        "asked": report.N + (sum(unread.values()) if own_truth else 0),
        "scored": report.n,
        "rejected": rejected,
    }


def activation_of(entry: Entry, answered: Sequence[Answered]) -> dict[str, float | None]:
    """The shares of requests without a task that call a head, and of those with one that do not call its head alone."""
    head = HEAD_OF.get(entry.task)
    asked = [(one.answer.activated, head) for one in answered]
    asked += [(one.ground.activated, HEAD_OF["moment"]) for one in answered if one.ground is not None]
    rates = activation.rates(asked)
    return {"false": rates.get("false"), "missed": rates.get("missed")}


def _published(entry: Entry) -> dict[str, dict[str, float]]:
    assert entry.published is not None
    return {"videochat2": entry.published.videochat2, "videochat_tpo": entry.published.videochat_tpo}


def _strict(numbers: Mapping[str, float]) -> dict[str, Any]:
    """JSON has no NaN."""
    return {name: value if value == value and abs(value) != float("inf") else None for name, value in numbers.items()}
