"""What is asked of a model about a sample of a benchmark: its own question, or one put together from its options."""

from __future__ import annotations

import functools
import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from tpo_core.data.instructions import render
from tpo_core.data.sample import UNLABELLED, Sample, Turn
from tpo_core.evaluation.suite import Entry

Form = Literal["answer", "ground"]
GROUND = "#ground"  # at the end of the key of a second request about a sample: when is it?


@dataclass(frozen=True)
class Ask:
    """One request: number of the sample in its part, and which of the requests about it."""

    sample: int
    key: str
    form: Form


@dataclass(frozen=True)
class Question:
    """A sample with the turns that the model is given, and what its answer begins with."""

    sample: Sample
    prefix: str = ""


@functools.cache
def prompts() -> dict[str, Any]:
    """The content of `prompts.yaml`."""
    return yaml.safe_load(Path(__file__).with_name("prompts.yaml").read_text(encoding="utf-8"))


def wanted(entry: Entry, sample: Sample) -> bool:
    """Whether a sample belongs to the entry: of its task, with the values that `where` asks for, and with labels."""
    if UNLABELLED in sample.provenance.flags:
        return False
    if entry.task == "qa" and sample.task != "chat":
        return False
    if entry.task == "choice" and sample.task != "mcq":
        return False
    if entry.task == "grounded_choice" and sample.task != "grounded_mcq":
        return False
    raw = json.loads(sample.provenance.raw)
    return all(str(raw.get(name)) == value for name, value in entry.where.items())


def asks_of(entry: Entry, number: int, sample: Sample) -> list[Ask]:
    """The requests about one sample."""
    answer = Ask(number, sample.sample_id, "answer")
    if entry.task != "grounded_choice":
        return [answer]
    return [answer, Ask(number, f"{sample.sample_id}{GROUND}", "ground")]


def question_of(entry: Entry, sample: Sample, form: Form, subtitles: Sequence[str]) -> Question:
    """The question of a request. subtitles: lines that are shown with the frames."""
    if form == "ground":
        asked, answer = render("span", sample.turns[0].text, sample.sample_id)
        refs = tuple(range(len(sample.targets)))
        turns = (replace(sample.turns[0], text=asked), Turn("assistant", answer, (), refs))
        return Question(replace(sample, task="span", turns=turns))
    return Question(sample) if entry.prompt == "as_trained" else choice_of(entry.prompt, sample, subtitles)


def choice_of(prompt: str, sample: Sample, subtitles: Sequence[str] = ()) -> Question:
    """A sample with options, put as a prompt of `prompts.yaml` says."""
    form_of = prompts()[prompt]
    kind = "image" if sample.media and sample.media[0].kind == "image" else "video"
    text = choice_text(prompt, sample.turns[0].text, sample.options or ()) + form_of["after"]
    if subtitles:
        text = prompts()["subtitles"].replace("{lines}", "\n".join(subtitles)) + text
    system = form_of["before"].replace("{media}", kind)
    before = (Turn("system", system),) if system else ()
    turns = (*before, replace(sample.turns[0], text=text), *sample.turns[1:])
    return Question(replace(sample, turns=turns), form_of["prefix"])


def choice_text(prompt: str, question: str, options: Sequence[str]) -> str:
    """A question with its options, A for the first."""
    form = prompts()[prompt]
    listed = [
        form["option"].replace("{letter}", letter).replace("{text}", option)
        for letter, option in zip(string.ascii_uppercase, options, strict=False)
    ]
    return form["question"].replace("{options}", "\n".join(listed)).replace("{question}", question).rstrip()
