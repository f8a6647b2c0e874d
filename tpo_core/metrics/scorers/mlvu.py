"""MLVU: multiple choice about long videos."""

from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.metrics import choices, files
from tpo_core.metrics.choices import Question
from tpo_core.metrics.registry import Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   the folder of 1_plotQA.json ... 7_topic_reasoning.json (or the folder above json/), or one such file:
                 lists of {question, candidates, answer, question_type}; or a list with the letter as answer and a
                 task_type; or a results file, whose gt "(B) text" is then the truth
--predictions    the results file, {res_list: [{pred}, ...]}, or its list, in the order count, ego, needle, order,
                 plotQA, anomaly_reco, topic_reasoning; or a list or JSON lines with id (question_id)
                 "<file>-<row from 0>", and pred or option

Numbers are percent by task; Avg is their mean (M-Avg). The answer is the character before the first closing bracket, or
else the whole reply, and must equal the letter."""

# The official order of the tasks, and their files.
TASKS = {
    "count": "4_count",
    "ego": "3_ego",
    "needle": "2_needle",
    "order": "5_order",
    "plotQA": "1_plotQA",
    "anomaly_reco": "6_anomaly_reco",
    "topic_reasoning": "7_topic_reasoning",
}


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool) -> Report:
    """Strictly official, questions without a reply leave the denominator, and those without a right option stay."""
    questions = _questions(ground_truth)
    rejections = Rejections()
    given = choices.matched(questions, choices.rows(predictions), rejections)
    replies = {key: _reply(predictions, row) for key, row in given.items()}
    if strict_official:
        asked = [question for question in questions if question.id in replies]
        wrong = next((question.id for question in asked if not isinstance(replies[question.id], str)), None)
        if wrong is not None:
            raise TpoError(f"the official code stops at {wrong}: the reply is no text")
        judged = {question.id: choices.mlvu(replies[question.id]) == question.letter for question in asked}
    else:
        judged = choices.judge(questions, replies, _letter, rejections)
    if not judged:
        raise TpoError(f"{predictions}: nothing is left to score against {ground_truth}")
    counted = choices.tally(judged, {question.id: question.task for question in questions})
    numbers = {task: right / asked_of * 100 for task, (right, asked_of) in counted.items()}
    return Report(
        "mlvu",
        implementation,
        strict_official,
        numbers | {"Avg": sum(numbers.values()) / len(numbers)},
        len(judged),
        len(questions),
        rejections.summary(),
        {key: {"right": value} for key, value in judged.items()},
    )


def _letter(question: Question, reply: str) -> str | None:
    said = choices.mlvu(reply)  # with its blanks: they are no part of the letter officially, so that the reply is wrong
    return said if len(said) == 1 and said in choices.LETTERS else None


def _reply(path: Path, row: dict[str, Any]) -> Any:
    if "option" not in row:
        files.require(row, ("pred",), f"{path}: a row without option")
    return row["pred"] if "pred" in row else row["option"]


def _questions(path: Path) -> list[Question]:
    if not path.is_dir():
        return _of_file(path, None)
    folder = path / "json" if (path / "json").is_dir() else path
    sources = [(task, folder / f"{file}.json") for task, file in TASKS.items() if (folder / f"{file}.json").is_file()]
    if not sources:
        raise TpoError(f"{path}: holds no task file, such as 1_plotQA.json")
    return [one for task, source in sources for one in _of_file(source, task)]


def _of_file(path: Path, task: str | None) -> list[Question]:
    found = []
    for place, row in enumerate(choices.rows(path)):
        where = f"{path}: row {place}"
        key = choices.named(row) or (f"{path.stem}-{place}" if "candidates" in row else str(place))
        kind = str(task or row.get("question_type") or row.get("task_type") or "all")
        if "gt" in row:
            letter, _, answer = str(row["gt"]).partition(" ")
            found.append(Question(key, kind, letter.strip("()"), answer, choices.LETTERS))
            continue
        files.require(row, ("answer",), where)
        if "candidates" in row:
            if row["candidates"] is None:
                raise TpoError(f"{where}: has no candidates; the generation tasks (8, 9) are not scored here")
            files.require_list(row["candidates"], f"{where}: candidates")
            letter_or_none = choices.right_letter(row["candidates"], row["answer"], last=True)
            found.append(Question(key, kind, letter_or_none, str(row["answer"]), choices.LETTERS))
        else:
            found.append(Question(key, kind, str(row["answer"]), "", choices.LETTERS))
    return found


SCORER = Scorer("mlvu", ("mlvu",), READS, score)
