"""SEED-Bench: multiple choice about images and videos."""

from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.metrics import choices, files
from tpo_core.metrics.choices import Question
from tpo_core.metrics.registry import Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   SEED-Bench.json: {questions: [{question_id, question_type_id, data_type, answer}, ...]}
--predictions    results.json of the official code, JSON lines with q_id and prediction, or a JSON list of the same

seed_bench: the letter, which the official code takes from the lowest of four losses; percent with two decimals by
question type ("Data type 1") and in all. lmms_eval: the first character of the reply, in upper case; shares, by kind of
data (seed_image, seed_video) and in all (seed_all). Strictly official, questions without a prediction leave the
denominator, and a type without any right answer stops the official code."""


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool) -> Report:
    """By letter, or by the first character of a reply."""
    truth_rows = choices.rows(ground_truth)
    for place, row in enumerate(truth_rows):
        files.require(row, ("question_id", "question_type_id", "answer"), f"{ground_truth}: row {place}")
    questions = [
        Question(str(row["question_id"]), str(row["question_type_id"]), str(row["answer"]), "", "ABCD")
        for row in truth_rows
    ]
    rejections = Rejections()
    given = choices.matched(questions, _given(predictions), rejections)
    replies = {key: row["prediction"] for key, row in given.items()}
    official = implementation == "seed_bench"
    judged = choices.judge(questions, replies, _exact if official else _first, rejections)
    if strict_official:
        judged = {key: value for key, value in judged.items() if key in replies}
    if not judged:
        raise TpoError(f"{predictions}: nothing is left to score against {ground_truth}")
    kinds = {str(row["question_id"]): f"seed_{row.get('data_type', 'image')}" for row in truth_rows}
    tasks = {question.id: f"Data type {question.task}" for question in questions}
    return Report(
        "seed_bench",
        implementation,
        strict_official,
        _official(judged, tasks, strict_official) if official else _lmms_eval(judged, kinds),
        len(judged),
        len(questions),
        rejections.summary(),
        {key: {"right": value} for key, value in judged.items()},
    )


def _given(path: Path) -> list[dict[str, Any]]:
    """results.json holds JSON lines in spite of its name."""
    first = next((line for _, line in files.lines(path)), "")
    given = files.json_lines(path) if first.lstrip().startswith("{") else choices.rows(path)
    for place, row in enumerate(given):
        files.require(row, ("prediction",), f"{path}: row {place}")
    return given


def _exact(question: Question, reply: str) -> str | None:
    return reply if reply in question.options else None


def _first(question: Question, reply: str) -> str | None:
    letter = choices.seed_bench_lmms_eval(reply)
    return letter if letter in question.options else None


def _official(judged: dict[str, bool], tasks: dict[str, str], strict: bool) -> dict[str, float]:
    counted = choices.tally(judged, tasks)
    none_right = next((task for task, (right, _) in counted.items() if not right), None)
    if strict and none_right is not None:
        raise TpoError(f"the official code stops here: {none_right} has no right answer")
    numbers = {task: right / asked * 100 for task, (right, asked) in counted.items()}
    numbers["Total accuracy"] = sum(judged.values()) / len(judged) * 100
    return {name: float(f"{value:.2f}") for name, value in numbers.items()}


def _lmms_eval(judged: dict[str, bool], kinds: dict[str, str]) -> dict[str, float]:
    numbers = {kind: right / asked for kind, (right, asked) in choices.tally(judged, kinds).items()}
    return numbers | {"seed_all": sum(judged.values()) / len(judged)}


SCORER = Scorer("seed_bench", ("seed_bench", "lmms_eval"), READS, score)
