"""MOTChallenge: HOTA, CLEAR and Identity of tracks of many people, by TrackEval itself."""

import configparser
import contextlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import trackeval
from trackeval.utils import TrackEvalException

from tpo_core.errors import TpoError
from tpo_core.metrics import files, mot_files
from tpo_core.metrics.registry import Option, Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   folder with SEQUENCE/{gt/gt.txt,seqinfo.ini}
--predictions    folder of one tracker with SEQUENCE.txt, or data/SEQUENCE.txt: frame,id,x,y,w,h,confidence,... a line,
                 frames from 1, pixels from 1

Percent as TrackEval prints it, HOTA as the mean over its 19 thresholds, and counts. It scores pedestrians; predictions
on distractors are taken out first, unless --benchmark is MOT15 or --no-preprocessing is given.

By default a box that is not finite or has no extent stays as one that overlaps with nothing; a row beyond the frames or
of another form is left out, as is the second row of an id in a frame; a sequence without a file has no predictions.
Strictly official, TrackEval gets the files as they are.
"""


def score(
    ground_truth: Path,
    predictions: Path,
    implementation: str,
    strict_official: bool,
    benchmark: str,
    no_preprocessing: bool,
    sequences: str | None,
) -> Report:
    """All sequences, each on its own, then combined as TrackEval combines them."""
    lengths = _lengths(ground_truth, sequences)
    if not predictions.is_dir():
        raise TpoError(f"{predictions}: not a folder with the results of one tracker; see --help")
    folder = predictions / "data" if (predictions / "data").is_dir() else predictions
    rejections = Rejections()
    for path in sorted(folder.glob("*.txt")):
        if path.stem not in lengths:
            rejections.add("unknown", path.stem)
    config = {
        "GT_FOLDER": str(ground_truth),
        "BENCHMARK": benchmark,
        "DO_PREPROC": not no_preprocessing,
        "SEQ_INFO": lengths,
        "SKIP_SPLIT_FOL": True,
        "PRINT_CONFIG": False,
        "TRACKER_SUB_FOLDER": "",
    }
    with tempfile.TemporaryDirectory() as scratch:
        if not strict_official:
            for name, frames in lengths.items():
                mot_files.clean(folder / f"{name}.txt", Path(scratch) / "mine" / f"{name}.txt", frames, rejections)
            folder = Path(scratch) / "mine"
        config |= {"TRACKERS_FOLDER": str(folder.parent), "TRACKERS_TO_EVAL": [folder.name]}
        by_sequence, combined = _evaluate(config, folder.name, list(lengths))
    items = {name: {kind: _printed(kind, each[kind]) for kind in METRICS} for name, each in by_sequence.items()}
    result = {kind: _printed(kind, combined[kind]) for kind in METRICS}
    return Report("mot", implementation, strict_official, result, len(items), len(items), rejections.summary(), items)


METRICS = {
    "HOTA": trackeval.metrics.HOTA(),
    "CLEAR": trackeval.metrics.CLEAR({"PRINT_CONFIG": False}),
    "Identity": trackeval.metrics.Identity({"PRINT_CONFIG": False}),
}


def _evaluate(
    config: dict[str, Any], tracker: str, names: list[str]
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The fields of each metric by sequence, and combined."""
    by_sequence = {}
    try:
        with _quiet():
            dataset = trackeval.datasets.MotChallenge2DBox(config)
            for name in names:
                data = dataset.get_preprocessed_seq_data(dataset.get_raw_seq_data(tracker, name), "pedestrian")
                by_sequence[name] = {kind: metric.eval_sequence(data) for kind, metric in METRICS.items()}
    except (TrackEvalException, ValueError, IndexError) as error:
        raise TpoError(f"TrackEval stops: {' '.join(str(error).split())}") from None
    combined = {
        kind: metric.combine_sequences({name: each[kind] for name, each in by_sequence.items()})
        for kind, metric in METRICS.items()
    }
    return by_sequence, combined


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is seen of what it prints before it raises, on stderr the traceback: that is in the exception too. Nor of
    numpy's warnings of infinities, which it takes as they are."""
    streams = contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO())
    with streams[0], streams[1], np.errstate(all="ignore"):
        yield


def _printed(kind: str, fields: dict[str, Any]) -> dict[str, float]:
    """The fields of its summary: shares in percent, counts as they are."""
    metric = METRICS[kind]
    return {
        name: int(fields[name]) if name in metric.integer_fields else 100 * float(np.mean(fields[name]))
        for name in metric.summary_fields
    }


def _lengths(ground_truth: Path, sequences: str | None) -> dict[str, int]:
    """Frames of each sequence."""
    if not ground_truth.is_dir():
        raise TpoError(f"{ground_truth}: not a folder of sequences; see --help")
    names = sorted(path.parent.parent.name for path in ground_truth.glob("*/gt/gt.txt"))
    if sequences is not None:
        listed = [line.strip() for _, line in files.lines(Path(sequences))]
        wanted = [name for name in listed if name != "name"]  # the head of the lists of MOTChallenge
        lacking = [name for name in wanted if name not in names]
        if lacking:
            raise TpoError(f"{ground_truth}: no truth of {lacking[0]}, which {sequences} lists")
        names = wanted
    if not names:
        raise TpoError(f"{ground_truth}: no SEQUENCE/gt/gt.txt; see --help")
    return {name: _length(ground_truth / name / "seqinfo.ini") for name in names}


def _length(path: Path) -> int:
    parser = configparser.ConfigParser()
    try:
        parser.read_string(files.text(path))
        return parser.getint("Sequence", "seqLength")
    except (configparser.Error, ValueError) as error:
        raise TpoError(f"{path}: no seqLength under [Sequence] ({' '.join(str(error).split())})") from None


SCORER = Scorer(
    "mot",
    ("trackeval",),
    READS,
    score,
    (
        Option("benchmark", str, "MOT15, MOT16, MOT17 or MOT20: which classes are distractors", "MOT17"),
        Option("no_preprocessing", bool, "the truth has no classes, so that there are no distractors", False),
        Option("sequences", str, "file with the names of the sequences to score (default: all that are there)"),
    ),
)
