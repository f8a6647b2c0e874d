"""Turns a label of a dataset into a question and an answer, from the templates of `instructions.yaml`."""

import functools
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from tpo_core.data.record import Sample, Turn

_FORM_OF_TASK = {
    "box": "region",
    "phrase_box": "region",
    "span": "temporal",
    "highlight": "temporal",
    "mask": "mask",
    "track": "track",
    "caption_image": "caption_image",
    "caption_video": "caption_video",
    "dense_caption": "dense_caption",
    "timeline": "timeline",
}


@functools.cache
def templates() -> dict[str, Any]:
    """The content of `instructions.yaml`: form -> {"questions": list of str, "answer": str}."""
    return yaml.safe_load(Path(__file__).with_name("instructions.yaml").read_text(encoding="utf-8"))


def render(task: str, expression: str, sample_id: str) -> tuple[str, str]:
    """The question and the answer of one sample; a pure function of its arguments, on any machine.

    Args:
        task: a grounding task of the record (box, phrase_box, span, highlight, mask, track), or caption_image,
            caption_video, dense_caption (events with both ends), timeline (starts only). KeyError on another one.
        expression: the phrase, query or caption; a final full stop is dropped where it goes into a question.
        sample_id: picks the question, evenly over ids.
    """
    form = templates()[_FORM_OF_TASK[task]]
    phrase = expression.strip()
    questions = form["questions"]
    question = questions[_pick(f"{task}/{sample_id}", len(questions))]
    return question.replace("{expression}", phrase.rstrip(".")), form["answer"].replace("{expression}", phrase)


def conversation(sample: Sample) -> tuple[Turn, ...]:
    """The turns of a sample as a chat model needs them: the first answer is preceded by a user turn.

    Caption data has answers without a question. Its instruction becomes the question; without one a caption request
    is taken from the templates. References to media that stood on the answer go to the new question.
    """
    first = next((i for i, turn in enumerate(sample.turns) if turn.role != "system"), len(sample.turns))
    head, rest = sample.turns[:first], sample.turns[first:]
    if not rest or rest[0].role == "user":
        return sample.turns
    kind = sample.media[0].kind if sample.media else "image"
    form = "caption_image" if kind == "image" else "caption_video"
    text = " ".join(turn.text for turn in head) or render(form, "", sample.sample_id)[0]
    question = Turn("user", text, media_refs=rest[0].media_refs)
    return (question, replace(rest[0], media_refs=()), *rest[1:])


def _pick(key: str, count: int) -> int:
    return int.from_bytes(hashlib.blake2b(key.encode("utf-8"), digest_size=8).digest(), "big") % count
