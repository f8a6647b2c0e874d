"""Answers to multiple-choice questions as the files that official scorers read, and back.

Answers are by sample id: the number of an option (from 0), or the reply itself where the scorer parses it (MVBench and
Video-MME always, MLVU and SEED-Bench if it is given). A file holds the answered questions only, but for Video-MME,
whose videos without replies are marked. Reading a file gives what was written; a question in it that is none of the
samples is a TpoError, as is a file of another form.
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


def write_mvbench(samples: Iterable[Sample], replies: Mapping[str, str], uri: str) -> None:
    """MVBench: the rows of the notebook's results as JSON lines, with the task, the truth as `gt`, and ids, since its
    own rows are known by their place alone. `reply` is what the model said behind "Best option:("."""
    rows = [
        {
            "id": sample.provenance.native_id,
            "task_type": _raw(sample)["task_type"],
            "reply": reply,
            "gt": f"({_right(sample)}) {sample.answer_text}",
        }
        for sample, reply in _answered(samples, replies)
    ]
    write_bytes(uri, _lines(rows))


def read_mvbench(samples: Iterable[Sample], uri: str) -> dict[str, str]:
    """Replies by sample id."""
    return _read(uri, samples, lambda: ((row["id"], str(row["reply"])) for row in _rows(uri)))


def _lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def _rows(uri: str) -> Iterable[dict[str, Any]]:
    return (json.loads(line) for line in read_bytes(uri).decode().splitlines())


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


def write_mlvu(samples: Iterable[Sample], answers: Mapping[str, int] | Mapping[str, str], uri: str) -> None:
    """MLVU: a list of question id, type and letter (`option`, as the evaluation server of test takes it), or, for the
    scorer of dev, of the reply as `pred`."""
    rows = [
        {
            "question_id": sample.provenance.native_id,
            "question_type": _raw(sample)["task_type"],
            **({"option": LETTERS[answer]} if isinstance(answer, int) else {"pred": answer}),
        }
        for sample, answer in _answered(samples, answers)
    ]
    write_json(uri, rows)


def read_mlvu(samples: Iterable[Sample], uri: str) -> dict[str, int]:
    """Options by sample id."""
    return _read(uri, samples, lambda: ((row["question_id"], LETTERS.index(row["option"])) for row in read_json(uri)))


def write_seed_bench(samples: Iterable[Sample], answers: Mapping[str, int] | Mapping[str, str], uri: str) -> None:
    """SEED-Bench (eval.py, the leaderboard): JSON lines of question id, predicted letter (or the reply, for the rule
    that reads its first character), right letter and question type."""
    rows = [
        {
            "q_id": sample.provenance.native_id,
            "prediction": LETTERS[answer] if isinstance(answer, int) else answer,
            "gt": _right(sample),
            "q_type_id": _raw(sample)["question_type_id"],
        }
        for sample, answer in _answered(samples, answers)
    ]
    write_bytes(uri, _lines(rows))


def read_seed_bench(samples: Iterable[Sample], uri: str) -> dict[str, int]:
    """Options by sample id."""

    def content() -> Iterable[tuple[str, int]]:
        for row in _rows(uri):
            yield str(row["q_id"]), LETTERS.index(row["prediction"])

    return _read(uri, samples, content)
