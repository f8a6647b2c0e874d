"""Answers to multiple-choice questions as the files that official scorers read, and back.

Answers are by sample id: the number of an option (from 0), or for Video-MME the reply itself, which its scorer parses.
A file holds the answered questions only, but for Video-MME, whose videos without replies are marked. Reading a file
gives what was written; a question in it that is none of the samples is a TpoError, as is a file of another form.

MVBench has no file: its official code scores while it asks.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from tpo_core.data.sample import Sample, Span
from tpo_core.errors import TpoError
from tpo_core.storage.uri import read_bytes, read_json, write_bytes, write_json

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
T = TypeVar("T")


def _answered(samples: Iterable[Sample], answers: Mapping[str, T]) -> list[tuple[Sample, T]]:
    """The answered samples in order. TpoError for an answer to none of them."""
    pairs = [(sample, answers[sample.sample_id]) for sample in samples if sample.sample_id in answers]
    unknown = set(answers) - {sample.sample_id for sample, _ in pairs}
    if unknown:
        raise TpoError(f"{len(unknown)} answers belong to no sample, the first is {min(unknown)!r}")
    return pairs


def _raw(sample: Sample) -> dict[str, Any]:
    return json.loads(sample.provenance.raw)


def _right(sample: Sample) -> str:
    assert sample.answer_index is not None, f"{sample.sample_id} has no answer"
    return LETTERS[sample.answer_index]


def _read(uri: str, samples: Iterable[Sample], content: Callable[[], Iterable[tuple[Any, T]]]) -> dict[str, T]:
    """By sample id what `content` gives by native id."""
    ids = {sample.provenance.native_id: sample.sample_id for sample in samples}
    try:
        return {ids[native_id]: value for native_id, value in content()}
    except FileNotFoundError as error:
        raise TpoError(f"there is no file of predictions {uri}") from error
    except KeyError as error:
        raise TpoError(f"{uri}: {error} is no question of the samples, and no field of a record") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise TpoError(f"{uri} holds no predictions in the expected form: {error}") from error


def write_next_gqa(
    samples: Iterable[Sample], answers: Mapping[str, int], spans: Mapping[str, Span], qa_uri: str, ground_uri: str
) -> None:
    """NExT-GQA (eval_ground.py): the option by `<video>_<qid>`, and in a second file the span in seconds."""
    samples = list(samples)
    qa = {
        sample.provenance.native_id: {"answer": sample.answer_index, "prediction": choice}
        for sample, choice in _answered(samples, answers)
    }
    write_json(qa_uri, qa)
    write_json(ground_uri, {sample.provenance.native_id: list(span) for sample, span in _answered(samples, spans)})


def read_next_gqa(samples: Iterable[Sample], qa_uri: str, ground_uri: str) -> tuple[dict[str, int], dict[str, Span]]:
    """Answers and spans, each by sample id."""
    samples = list(samples)
    answers = _read(qa_uri, samples, lambda: ((key, int(row["prediction"])) for key, row in read_json(qa_uri).items()))
    return answers, _read(
        ground_uri, samples, lambda: ((key, _span(pair)) for key, pair in read_json(ground_uri).items())
    )


def _span(pair: Any) -> Span:
    start, end = pair
    return float(start), float(end)


def write_video_mme(samples: Iterable[Sample], replies: Mapping[str, str], uri: str) -> None:
    """Video-MME (eval_your_results.py): the questions of a video together, with the reply of the model as `response`.

    A video without any reply is `missing`, which the scorer leaves out when it is asked to skip. TpoError for a video
    with replies to some of its questions: the scorer would drop the others from its denominator in silence.
    """
    samples = list(samples)
    _answered(samples, replies)
    videos: dict[str, dict[str, Any]] = {}
    for sample in samples:
        raw = _raw(sample)
        about = {name: raw[name] for name in ("video_id", "duration", "domain", "sub_category")}
        video = videos.setdefault(
            raw["video_id"], {**about, "missing": sample.sample_id not in replies, "questions": []}
        )
        if video["missing"] == (sample.sample_id in replies):
            raise TpoError(f"video {raw['video_id']} has replies to some questions only; see {sample.sample_id}")
        question = {
            "question_id": sample.provenance.native_id,
            "task_type": raw["task_type"],
            "question": sample.turns[0].text,
            "options": raw["options"],
            "answer": _right(sample),
            "response": replies.get(sample.sample_id, ""),
        }
        video["questions"].append(question)
    write_json(uri, list(videos.values()))


def read_video_mme(samples: Iterable[Sample], uri: str) -> dict[str, str]:
    """Replies by sample id, without those of missing videos. The key `missing` is optional, as in the template."""
    return _read(
        uri,
        samples,
        lambda: (
            (question["question_id"], question["response"])
            for video in read_json(uri)
            if not video.get("missing")
            for question in video["questions"]
        ),
    )


def write_mlvu(samples: Iterable[Sample], answers: Mapping[str, int], uri: str) -> None:
    """MLVU test (the evaluation server): a list of question id, type and letter."""
    rows = [
        {
            "question_id": sample.provenance.native_id,
            "question_type": _raw(sample)["task_type"],
            "option": LETTERS[choice],
        }
        for sample, choice in _answered(samples, answers)
    ]
    write_json(uri, rows)


def read_mlvu(samples: Iterable[Sample], uri: str) -> dict[str, int]:
    """Options by sample id."""
    return _read(uri, samples, lambda: ((row["question_id"], LETTERS.index(row["option"])) for row in read_json(uri)))


def write_seed_bench(samples: Iterable[Sample], answers: Mapping[str, int], uri: str) -> None:
    """SEED-Bench (eval.py, the leaderboard): JSON lines of question id, predicted and right letter, question type."""
    lines = [
        json.dumps(
            {
                "q_id": sample.provenance.native_id,
                "prediction": LETTERS[choice],
                "gt": _right(sample),
                "q_type_id": _raw(sample)["question_type_id"],
            }
        )
        for sample, choice in _answered(samples, answers)
    ]
    write_bytes(uri, "".join(line + "\n" for line in lines).encode())


def read_seed_bench(samples: Iterable[Sample], uri: str) -> dict[str, int]:
    """Options by sample id."""

    def content() -> Iterable[tuple[str, int]]:
        for line in read_bytes(uri).decode().splitlines():
            row = json.loads(line)
            yield str(row["q_id"]), LETTERS.index(row["prediction"])

    return _read(uri, samples, content)
