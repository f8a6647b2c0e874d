"""Video-MME: multiple choice about short, medium and long videos."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.metrics import choices, files
from tpo_core.metrics.choices import Question
from tpo_core.metrics.registry import Option, Scorer
from tpo_core.metrics.report import Rejections, Report

READS = """\
--ground-truth   the results template: a list of videos with duration, domain, sub_category and
                 questions [{question_id, task_type, answer}, ...]; or the rows of the data set as a JSON list or JSON
                 lines (question_id, duration, domain, sub_category, task_type, answer); or the results themselves
--predictions    the results: the template with a response to each question, and `missing` for videos to skip; or a JSON
                 list or JSON lines with question_id and response

Numbers are percent with one decimal, by duration and for the entire dataset: Overall, and by video category, video
sub-category and task. The answer is the first capital A to D, after some openings are dropped. Strictly official,
replies without one leave the denominator, and each duration must have 300 videos unless --skip-missing."""

VIDEOS_A_DURATION = 300
DURATIONS = ("short", "medium", "long")
GROUPS = {"Video Categories": "domain", "Video Sub Categories": "sub_category", "Task Categories": "task_type"}
# The names of the data set, and those of the newer results template.
NAMES = {
    "duration": ("duration", "duration_category"),
    "domain": ("domain", "video_category"),
    "sub_category": ("sub_category", "video_subcategory"),
}


@dataclass(frozen=True)
class Asked:
    """One question and what it is about."""

    question: Question
    about: dict[str, str]


def score(
    ground_truth: Path, predictions: Path, implementation: str, strict_official: bool, skip_missing: bool
) -> Report:
    """Over all questions of the truth; with --skip-missing without those of videos marked as missing."""
    asked = _asked(ground_truth)
    rows, skipped = _responses(predictions)
    if strict_official and not skip_missing:
        _complete(asked, predictions)
    n_questions = len(asked)
    if skip_missing:
        asked = [one for one in asked if one.question.id not in skipped]
    rejections = Rejections()
    questions = [one.question for one in asked]
    given = choices.matched(questions, [row for row in rows if choices.named(row) not in skipped], rejections)
    replies = {key: row["response"] for key, row in given.items()}
    judged = choices.judge(questions, replies, lambda _, reply: choices.video_mme(reply) or None, rejections)
    if strict_official:
        judged = {key: right for key, right in judged.items() if _answers(replies.get(key), key)}
    if not questions:
        raise TpoError(f"{ground_truth}: holds no question to score")
    abouts = {one.question.id: one.about for one in asked}
    return Report(
        "video_mme",
        implementation,
        strict_official,
        _numbers(judged, abouts),
        len(judged),
        n_questions,
        rejections.summary(),
        {key: {"right": value} for key, value in judged.items()},
    )


def _answers(reply: Any, key: str) -> bool:
    if reply is not None and not isinstance(reply, str):
        raise TpoError(f"the official code stops at {key}: the response is no text")
    return reply is not None and choices.video_mme(reply) != ""


def _flat(path: Path) -> list[dict[str, Any]]:
    """A row a question; what is said of a video is said of each of its questions."""
    found = []
    for place, row in enumerate(choices.rows(path)):
        if "questions" not in row:
            found.append(row)
            continue
        about = {name: value for name, value in row.items() if name != "questions"}
        for question in files.require_list(row["questions"], f"{path}: questions of video {place}"):
            files.require(question, (), f"{path}: a question of video {place}")
            found.append(about | question | {"of_video": place})
    for place, row in enumerate(found):
        files.require(row, ("question_id",), f"{path}: question {place}")
    return found


def _asked(path: Path) -> list[Asked]:
    found = []
    for row in _flat(path):
        where = f"{path}: question {row['question_id']}"
        files.require(row, ("answer",), where)
        about = {name: _first(row, keys, where) for name, keys in NAMES.items()}
        about |= {
            "task_type": str(row.get("task_type", "")),
            "video": str(row.get("video_id", row.get("of_video", ""))),
        }
        question = Question(str(row["question_id"]), about["duration"], str(row["answer"]), "", "ABCD")
        found.append(Asked(question, about))
    return found


def _first(row: dict[str, Any], keys: tuple[str, ...], where: str) -> str:
    value = next((row[key] for key in keys if key in row), None)
    if value is None:
        raise TpoError(f"{where} has no {keys[0]!r}")
    return str(value)


def _responses(path: Path) -> tuple[list[dict[str, Any]], set[str]]:
    """The rows with a response, and the ids of the questions whose video is marked as missing."""
    rows = _flat(path)
    skipped = {str(row["question_id"]) for row in rows if row.get("missing")}
    for row in rows:
        if not row.get("missing"):
            files.require(row, ("response",), f"{path}: question {row['question_id']}")
    return [row for row in rows if not row.get("missing")], skipped


def _complete(asked: list[Asked], path: Path) -> None:
    for duration in DURATIONS:
        n = len({one.about["video"] for one in asked if one.about["duration"] == duration})
        if n != VIDEOS_A_DURATION:
            raise TpoError(f"the official code stops here: {n} videos are {duration}, not 300; use --skip-missing")


def _numbers(judged: dict[str, bool], abouts: dict[str, dict[str, str]]) -> dict[str, Any]:
    parts: dict[str, list[str]] = {}
    for duration in DURATIONS:
        if any(about["duration"] == duration for about in abouts.values()):
            parts[duration] = [key for key in judged if abouts[key]["duration"] == duration]
    parts["entire dataset"] = list(judged)
    return {name: _part({key: judged[key] for key in keys}, abouts) for name, keys in parts.items()}


def _part(judged: dict[str, bool], abouts: dict[str, dict[str, str]]) -> dict[str, Any]:
    numbers: dict[str, Any] = {"Overall": _percent(sum(judged.values()), len(judged))}
    for name, field in GROUPS.items():
        counted = choices.tally(judged, {key: abouts[key][field] for key in judged})
        numbers[name] = {group: _percent(*counts) for group, counts in counted.items()}
    return numbers


def _percent(right: int, asked: int) -> float:
    return float(f"{100 * right / asked if asked else 0:.1f}")


SCORER = Scorer(
    "video_mme",
    ("video_mme",),
    READS,
    score,
    (Option("skip_missing", bool, "leave out the videos that the results mark as missing"),),
)
