"""Multiple choice: how each benchmark finds the answer in a reply, and how replies are matched with questions.

The rules are odd in places; each is that of the code it is named after, so that numbers compare.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tpo_core.errors import TpoError
from tpo_core.metrics import files
from tpo_core.metrics.report import Rejections

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
ID_KEYS = ("id", "question_id", "q_id")

_LETTER_DOT = re.compile(r"^([A-E])\.\s*(.+)$", re.IGNORECASE)
_LONE_LETTER = re.compile(r"\b([A-E])\b", re.IGNORECASE)
_MARKS = (";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!")
_COMMA_IN_NUMBER = re.compile(r"(\d)(\,)(\d)")
_PERIOD = re.compile(r"(?!<=\d)(\.)(?!\d)")
# Two pairs of them have run together, so that neither half of a pair is ever dropped ("Best option: (C)" is B).
_VIDEO_MME_PREFIXES = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option isThe correct option is",
    "Best answer:Best option:",
)


@dataclass(frozen=True)
class Question:
    """`letter` is the right option; None where no candidate equals the answer. `answer` is its text."""

    id: str
    task: str
    letter: str | None
    answer: str
    options: str


def mvbench(reply: str, letter: str) -> bool:
    """The notebook of MVBench: the text before the first space, without dots, is part of "(a)", or holds it.

    So nothing, a bracket or a dot alone is right for every letter.
    """
    said, true = reply.lower().split(" ")[0], f"({letter.lower()})"
    return said.replace(".", "") in true or true in said


def mvbench_lmms_eval(reply: str) -> str:
    """What lmms-eval reads: the letter of "B. text", or else the first lone A to E, the article "a" too, or
    what is left of the reply without punctuation if there is none."""
    found = _LETTER_DOT.match(reply.strip())
    if found:
        return found[1].upper()
    text = reply.replace("\n", " ").replace("\t", " ").strip()
    plain = text
    for mark in _MARKS:
        glued = f"{mark} " not in text and f" {mark}" not in text and not _COMMA_IN_NUMBER.search(text)
        plain = plain.replace(mark, " " if glued else "")
    plain = _PERIOD.sub("", plain, count=int(re.UNICODE))  # that code passes the flag as the count: 32 at most
    plain = plain.strip("'").strip('"').strip(")").strip("(").strip().lower()
    lone = _LONE_LETTER.search(plain)
    return lone[1].upper() if lone else plain


def mlvu(reply: str) -> str:
    """The character before the first closing bracket, or else the whole reply."""
    return reply[: reply.index(")")][-1:] if ")" in reply else reply


def video_mme(reply: str) -> str:
    """The first capital A to D after the known openings of an answer are dropped; empty if there is none."""
    text = reply.strip()
    for prefix in _VIDEO_MME_PREFIXES:
        text = text.replace(prefix, "")
    found = re.search("[ABCD]", text)
    return found[0] if found else ""


def seed_bench_lmms_eval(reply: str) -> str:
    """The first character, in upper case."""
    return reply.strip()[:1].upper()


def right_letter(candidates: Sequence[str], answer: str, last: bool) -> str | None:
    """The option that equals the answer, of equal ones the last or the first; None without one."""
    places = [place for place, candidate in enumerate(candidates) if candidate == answer]
    return LETTERS[places[-1 if last else 0]] if places else None


def rows(path: Path) -> list[dict[str, Any]]:
    """The objects of JSON lines, of a JSON list, or of the list called res_list, results or questions in an object."""
    if path.suffix == ".jsonl":
        return files.json_lines(path)
    content = files.json_value(path)
    if isinstance(content, dict):
        name = next((name for name in ("res_list", "results", "questions") if name in content), None)
        content = content[name] if name else None
    if not isinstance(content, list):
        raise TpoError(f"{path}: neither JSON lines, nor a JSON list, nor an object with a res_list")
    for place, row in enumerate(content):
        files.require(row, (), f"{path}: row {place}")
    return content


def named(row: Mapping[str, Any]) -> str | None:
    """The id of a row, if it has one."""
    return next((str(row[key]) for key in ID_KEYS if key in row), None)


def matched(
    questions: Sequence[Question], given: Sequence[dict[str, Any]], rejections: Rejections
) -> dict[str, dict[str, Any]]:
    """The row of each question that has one, by id, or by place when no row has an id; the rest is told.

    TpoError where two questions have one id: a reply could not say which of them it answers.
    """
    ids = [question.id for question in questions]
    known, found = set(ids), {}
    if len(known) < len(ids):
        raise TpoError(f"the truth repeats id {next(key for key in ids if ids.count(key) > 1)}; keep one, or rename it")
    if any(named(row) is not None for row in given):
        pairs: Iterable[tuple[str | None, dict[str, Any]]] = ((named(row), row) for row in given)
    else:
        places = [*ids, *(f"row {place}" for place in range(len(ids), len(given)))]
        pairs = zip(places, given, strict=False)
    for key, row in pairs:
        if key is None or key not in known:
            rejections.add("unknown", key or "a row without an id")
        elif key in found:
            rejections.add("duplicate", key)
        else:
            found[key] = row
    for key in ids:
        if key not in found:
            rejections.add("missing", key)
    return found


def tally(right: Mapping[str, bool], tasks: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """(right, asked) by task, in the order in which tasks first occur."""
    counted: dict[str, tuple[int, int]] = {}
    for key, value in right.items():
        correct, total = counted.get(tasks[key], (0, 0))
        counted[tasks[key]] = (correct + value, total + 1)
    return counted


def judge(
    questions: Sequence[Question],
    replies: Mapping[str, Any],
    letter_of: Callable[[Question, str], str | None],
    rejections: Rejections,
) -> dict[str, bool]:
    """Whether each question is answered right; a reply that is none, empty or without one letter is wrong and told.

    Questions whose answer is no candidate are left out and told.
    """
    right: dict[str, bool] = {}
    for question in questions:
        if question.letter is None:
            rejections.add("bad_truth", question.id)
            continue
        right[question.id] = False
        if question.id not in replies:
            continue
        reply = replies[question.id]
        if not isinstance(reply, str):
            rejections.add("malformed", question.id)
        elif not reply.strip():
            rejections.add("empty", question.id)
        else:
            letter = letter_of(question, reply)
            if letter is None:
                rejections.add("unparsed", question.id)
            right[question.id] = letter == question.letter
    return right
