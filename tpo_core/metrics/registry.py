"""The metrics by name, each one file under tpo_core/metrics/scorers that is imported only when it is asked for."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tpo_core.errors import TpoError
from tpo_core.metrics.report import Report

# name: what it measures. Its file is tpo_core/metrics/scorers/NAME.py and holds a Scorer called SCORER.
METRICS = {
    "charades_sta": "moments: R1@t, mIoU",
    "qvhighlights": "moments and highlights: R1@t, mAP, HIT@1",
    "nlq": "moments: R@k, IoU > t",
    "tacos": "moments: R@k, IoU > t after non-maximum suppression",
    "didemo": "moments of 5-s chunks: Rank@1, Rank@5, mIoU",
    "refcoco": "boxes: accuracy at IoU .5",
    "flickr30k": "boxes of phrases: recall@k",
    "davis": "masks: J and F of objects",
    "mevis": "masks: J and F of expressions",
    "ref_youtube_vos": "masks: J and F of expressions on annotated frames",
    "sav": "masks: J and F of SA-V objects",
    "lasot": "tracks: success, precision, normalised precision",
    "got10k": "tracks: AO, SR",
    "trackingnet": "tracks: success, precision, normalised precision",
    "mot": "tracks of many objects: HOTA, CLEAR, Identity",
    "mvbench": "multiple choice: accuracy by task",
    "mlvu": "multiple choice: M-Avg",
    "video_mme": "multiple choice: accuracy by duration",
    "seed_bench": "multiple choice: accuracy by dimension",
    "short_answers": "questions: accuracy word by word",
    "nextgqa": "grounded multiple choice: Acc@GQA, IoP, IoU",
}


@dataclass(frozen=True)
class Option:
    """One more thing a scorer can be told, on the command line as --NAME. A bool is a switch that is off by default."""

    name: str
    type: Callable[[str], object]
    help: str
    default: object = None


@dataclass(frozen=True)
class Scorer:
    """One benchmark.

    `implementations` are the official codes it can reproduce, the default first. `reads` says which files it takes, as
    --help shows it. `score(ground_truth, predictions, implementation, strict_official, **options)` gives the Report:
    degenerate input is rejected, counted and told, or, strictly official, has the effect that it has in that code. It
    raises TpoError for files that cannot be read, and, strictly official, where that code has no answer but a crash. A
    mean of nothing (n = 0) is for `score` of this module to refuse.
    """

    name: str
    implementations: tuple[str, ...]
    reads: str
    score: Callable[..., Report]
    options: tuple[Option, ...] = ()


def scorer(metric: str) -> Scorer:
    """The scorer of a metric. TpoError for a name that is none."""
    if metric not in METRICS:
        raise TpoError(f"unknown metric {metric!r}; known: {', '.join(METRICS)}")
    found: Scorer = importlib.import_module(f"tpo_core.metrics.scorers.{metric}").SCORER
    assert found.name == metric, f"{metric} holds the scorer of {found.name}"
    return found


def score(
    metric: str,
    ground_truth: Path,
    predictions: Path,
    implementation: str | None = None,
    strict_official: bool = False,
    **options: object,
) -> Report:
    """The report of one metric; options that are not given have their defaults.

    TpoError where nothing can be scored; strictly official the NaN of such a mean is given, where that code gives one.
    """
    one = scorer(metric)
    chosen = implementation or one.implementations[0]
    if chosen not in one.implementations:
        raise TpoError(f"{metric} has no implementation {chosen!r}; known: {', '.join(one.implementations)}")
    for path in (ground_truth, predictions):
        if not path.exists():
            raise TpoError(f"{path}: there is no such file or folder")
    unknown = options.keys() - {option.name for option in one.options}
    if unknown:
        raise TpoError(f"{metric} has no option {min(unknown)!r}")
    filled = {option.name: options.get(option.name, option.default) for option in one.options}
    report = one.score(ground_truth, predictions, chosen, strict_official, **filled)
    if report.N == 0:
        raise TpoError(f"{ground_truth}: holds no truth, so there is nothing to score")
    if report.n == 0 and not strict_official:
        told = [f"{entry['count']} {reason} ({entry['examples'][0]})" for reason, entry in report.rejected.items()]
        reasons = "; ".join(told) or "their mean leaves all out"
        raise TpoError(f"{ground_truth}: of {report.N} truths none can be scored: {reasons}")
    return report
