"""MVBench: twenty tasks of multiple choice about videos."""

from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.metrics import choices, files
from tpo_core.metrics.choices import Question
from tpo_core.metrics.registry import Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   the folder of <task>.json (or the folder above json/), or one such file: lists of {question,
                 candidates, answer}, an id where a part of them is left out; or a results file, whose gt "(B) text" is
                 then the truth
--predictions    the results file of the notebook, {res_list: [{pred, gt}, ...]}, or its list, in the order of the
                 tasks; or JSON lines with id "<task>-<row from 0>" and pred

`pred` is the reply as the notebook saves it, which opens with "(" since its prompt ends so; `reply` instead of it is
the text of the model alone, to which that bracket is added and of which the first line counts. lmms_eval takes it as
it is.

official: percent by task, Avg over all questions. A reply that is right for several options (empty, a bracket, a dot)
is wrong here, and right strictly official. lmms_eval: mvbench_accuracy by task and over all; strictly official, empty
replies leave the denominator."""

TASKS = (
    "Action Sequence",
    "Action Prediction",
    "Action Antonym",
    "Fine-grained Action",
    "Unexpected Action",
    "Object Existence",
    "Object Interaction",
    "Object Shuffle",
    "Moving Direction",
    "Action Localization",
    "Scene Transition",
    "Action Count",
    "Moving Count",
    "Moving Attribute",
    "State Change",
    "Fine-grained Pose",
    "Character Order",
    "Egocentric Navigation",
    "Episodic Reasoning",
    "Counterfactual Inference",
)
NAMES = {title.lower().replace(" ", "_").replace("-", "_"): title for title in TASKS}
OPTIONS_OF_RESULTS = "ABCDE"  # a results file does not say how many options there were


def score(ground_truth: Path, predictions: Path, implementation: str, strict_official: bool) -> Report:
    """By the rule of the implementation."""
    official = implementation == "official"
    questions = _questions(ground_truth, last=official)
    rejections = Rejections()
    given = choices.matched(questions, choices.rows(predictions), rejections)
    _agree(predictions, questions, given)
    replies = {key: _reply(predictions, row, official) for key, row in given.items()}
    if strict_official:
        judged = _strict(questions, replies, official)
    else:
        judged = choices.judge(questions, replies, _single if official else _lmms_letter, rejections)
    if not judged:
        raise TpoError(f"{predictions}: nothing is left to score against {ground_truth}")
    return Report(
        "mvbench",
        implementation,
        strict_official,
        _numbers(judged, {question.id: question.task for question in questions}, official),
        len(judged),
        len(questions),
        rejections.summary(),
        {key: {"right": value} for key, value in judged.items()},
    )


def _questions(path: Path, last: bool) -> list[Question]:
    if path.is_dir():
        folder = path / "json" if (path / "json").is_dir() else path
        sources = [(name, folder / f"{name}.json") for name in NAMES if (folder / f"{name}.json").is_file()]
        if not sources:
            raise TpoError(f"{path}: holds no <task>.json, such as {next(iter(NAMES))}.json")
    else:
        sources = [(path.stem, path)]
    return [one for name, source in sources for one in _of_file(source, name, last)]


def _of_file(path: Path, name: str, last: bool) -> list[Question]:
    found = []
    for place, row in enumerate(choices.rows(path)):
        key, where = choices.named(row) or f"{name}-{place}", f"{path}: row {place}"
        if "gt" in row:
            letter, _, answer = str(row["gt"]).partition(" ")
            if len(letter) != 3 or letter[0] + letter[2] != "()":
                raise TpoError(f"{where}: gt {row['gt']!r} is not `(LETTER) TEXT`")
            task = str(row.get("task_type", "all"))
            found.append(Question(key, task, None if letter[1] == "@" else letter[1], answer, OPTIONS_OF_RESULTS))
            continue
        files.require(row, ("candidates", "answer"), where)
        options = choices.LETTERS[: len(files.require_list(row["candidates"], f"{where}: candidates"))]
        right = choices.right_letter(row["candidates"], row["answer"], last)
        found.append(Question(key, NAMES.get(name, name), right, str(row["answer"]), options))
    return found


def _agree(path: Path, questions: list[Question], given: dict[str, dict[str, Any]]) -> None:
    """TpoError where a row repeats a truth that is another question's."""
    for question in questions:
        told = str(given.get(question.id, {}).get("gt", ""))
        if told.partition(" ")[2].strip() not in ("", question.answer.strip()):
            raise TpoError(f"{path}: the row of {question.id} has the truth {told!r}, not {question.answer!r}")


def _reply(path: Path, row: dict[str, Any], official: bool) -> Any:
    if "pred" in row:
        return row["pred"]
    files.require(row, ("reply",), f"{path}: a row without pred")
    return f"({row['reply']}".split("\n")[0] if official else row["reply"]


def _single(question: Question, reply: str) -> str | None:
    """The one option that the official rule takes the reply for."""
    letters = [letter for letter in question.options if choices.mvbench(reply, letter)]
    return letters[0] if len(letters) == 1 else None


def _lmms_letter(question: Question, reply: str) -> str | None:
    letter = choices.mvbench_lmms_eval(reply)
    return letter if len(letter) == 1 and letter in choices.LETTERS else None


def _strict(questions: list[Question], replies: dict[str, Any], official: bool) -> dict[str, bool]:
    """Questions without a reply are not asked, so they leave the denominator."""
    right: dict[str, bool] = {}
    for question in questions:
        if question.id not in replies:
            continue
        reply = replies[question.id]
        if not isinstance(reply, str) or (official and not question.answer):
            what = "the reply is no text" if question.answer else "the text of the truth is empty"
            raise TpoError(f"the official code stops at {question.id}: {what}")
        if official:
            right[question.id] = choices.mvbench(reply, question.letter or "@")
        elif question.letter is None:
            raise TpoError(f"the official code stops at {question.id}: no candidate equals the answer")
        elif reply != "":
            # The letter of the truth goes through the same function there: beyond E it comes out in lower case.
            true = choices.mvbench_lmms_eval(question.letter)
            right[question.id] = choices.mvbench_lmms_eval(reply) == true
    return right


def _numbers(judged: dict[str, bool], tasks: dict[str, str], official: bool) -> dict[str, Any]:
    correct = sum(judged.values())
    if official:
        by_task = {task: part / whole * 100 for task, (part, whole) in choices.tally(judged, tasks).items()}
        return by_task | {"Avg": correct / len(judged) * 100}
    by_task = {task: 100 * part / whole for task, (part, whole) in choices.tally(judged, tasks).items()}
    return {"mvbench_accuracy": by_task | {"mvbench": 100 * correct / len(judged)}}


SCORER = Scorer("mvbench", ("official", "lmms_eval"), READS, score)
