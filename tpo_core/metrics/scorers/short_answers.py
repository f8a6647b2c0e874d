"""Questions with a short answer, which is right word by word or not at all."""

from pathlib import Path

from tpo_core.metrics import answers, choices, files
from tpo_core.metrics.choices import Question
from tpo_core.metrics.registry import Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   JSON lines or a list of {id, answer}
--predictions    JSON lines or a list of {id, answer}: the reply of the model

A reply is right if it equals the answer after lower case, without punctuation and the articles a, an, the. No benchmark
of others: questions of one's own are measured by it."""


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool) -> Report:
    """accuracy, percent. There is no official code, so both ways to take degenerate input are the same."""
    rejections = Rejections()
    questions = [_question(row, f"{ground_truth}: row {place}") for place, row in enumerate(choices.rows(ground_truth))]
    given = choices.matched(questions, choices.rows(predictions), rejections)
    right: dict[str, bool] = {}
    for question in questions:
        if not answers.normalise(question.answer):
            rejections.add("bad_truth", question.id)
            continue
        reply = given[question.id].get("answer") if question.id in given else ""
        if not isinstance(reply, str):
            rejections.add("malformed", question.id)
        elif question.id in given and not answers.normalise(reply):
            rejections.add("empty", question.id)
        right[question.id] = isinstance(reply, str) and answers.matches(reply, question.answer)
    accuracy = 100 * sum(right.values()) / len(right) if right else float("nan")
    return Report(
        "short_answers",
        implementation,
        strict_official,
        {"accuracy": accuracy},
        len(right),
        len(questions),
        rejections.summary(),
        {key: {"right": value} for key, value in right.items()},
    )


def _question(row: dict[str, object], where: str) -> Question:
    files.require(row, ("id", "answer"), where)
    return Question(str(row["id"]), "all", None, str(row["answer"]), "")


SCORER = Scorer("short_answers", ("words",), READS, score)
