"""Questions: replies go into the files as they are, and are parsed by the rule of each metric."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tpo_core.data.predictions import answers
from tpo_core.data.sample import Sample
from tpo_core.evaluation import truth
from tpo_core.evaluation.native.files import Answered, Benchmark, Files, native_id, raw, write_lines, write_value
from tpo_core.metrics import choices


def replies(given: Sequence[Answered]) -> dict[str, str]:
    """The text of each answer by sample id; without one, nothing was said."""
    return {one.sample.sample_id: one.answer.text for one in given if one.answer.failure is None}


def samples(given: Sequence[Answered]) -> list[Sample]:
    return [one.sample for one in given]


def mvbench_option(sample: Sample, reply: str) -> int | None:
    """The one option that the notebook of MVBench takes a reply for, which goes on from a bracket; None without one."""
    said = f"({reply}".split("\n")[0]
    letters = choices.LETTERS[: len(sample.options or ())]
    found = [place for place, letter in enumerate(letters) if choices.mvbench(said, letter)]
    return found[0] if len(found) == 1 and reply.strip() else None


def _mvbench(given: Sequence[Answered], folder: Path) -> Files:
    path = folder / "predictions.jsonl"
    answers.write_mvbench(samples(given), replies(given), str(path))
    return Files(path)


def _mvbench_truth(asked: Sequence[Sample], folder: Path) -> Files:
    tasks: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for sample in asked:
        task = native_id(sample).rpartition("-")[0]
        tasks[task].append(
            {
                "id": native_id(sample),
                "question": sample.turns[0].text,
                "candidates": list(sample.options or ()),
                "answer": sample.answer_text,
            }
        )
    for task, rows in tasks.items():
        write_value(folder / "json" / f"{task}.json", rows)
    return Files(folder / "json")


def _video_mme(given: Sequence[Answered], folder: Path) -> Files:
    path = folder / "predictions.json"
    said = replies(given)  # a video with replies to some of its questions only would not be written
    answers.write_video_mme(samples(given), {s.sample_id: said.get(s.sample_id, "") for s in samples(given)}, str(path))
    return Files(path)


def _video_mme_truth(asked: Sequence[Sample], folder: Path) -> Files:
    rows = []
    for sample in asked:
        about = raw(sample)
        names = ("video_id", "duration", "domain", "sub_category", "task_type")
        row = {name: about[name] for name in names}
        assert sample.answer_index is not None
        rows.append({**row, "question_id": native_id(sample), "answer": choices.LETTERS[sample.answer_index]})
    return Files(write_value(folder / "truth.json", rows))


def _mlvu(given: Sequence[Answered], folder: Path) -> Files:
    path = folder / "predictions.json"
    answers.write_mlvu(samples(given), replies(given), str(path))
    return Files(path)


def _mlvu_truth(asked: Sequence[Sample], folder: Path) -> Files:
    rows = [
        {
            "question_id": native_id(sample),
            "question_type": raw(sample)["task_type"],
            "question": sample.turns[0].text,
            "candidates": list(sample.options or ()),
            "answer": sample.answer_text,
        }
        for sample in asked
    ]
    return Files(write_value(folder / "truth.json", rows))


def _seed_bench(given: Sequence[Answered], folder: Path) -> Files:
    path = folder / "predictions.jsonl"
    answers.write_seed_bench(samples(given), replies(given), str(path))
    return Files(path)


def _seed_bench_truth(asked: Sequence[Sample], folder: Path) -> Files:
    rows = []
    for sample in asked:
        assert sample.answer_index is not None
        about = {name: raw(sample)[name] for name in ("question_type_id", "data_type")}
        rows.append({"question_id": native_id(sample), **about, "answer": choices.LETTERS[sample.answer_index]})
    return Files(write_value(folder / "truth.json", {"questions": rows}))


def _short_answers(given: Sequence[Answered], folder: Path) -> Files:
    rows = [{"id": sample_id, "answer": text} for sample_id, text in replies(given).items()]
    return Files(write_lines(folder / "predictions.jsonl", rows))


def _short_answers_truth(asked: Sequence[Sample], folder: Path) -> Files:
    rows = [{"id": sample.sample_id, "answer": truth.answer_text(sample)} for sample in asked]
    return Files(write_lines(folder / "truth.jsonl", rows))


def _one_letter(said: str) -> bool:
    return len(said) == 1 and said in choices.LETTERS


MVBENCH = Benchmark(_mvbench, _mvbench_truth, native_id, lambda sample, text: mvbench_option(sample, text) is not None)
VIDEO_MME = Benchmark(_video_mme, _video_mme_truth, native_id, lambda _, text: choices.video_mme(text) != "")
MLVU = Benchmark(_mlvu, _mlvu_truth, native_id, lambda _, text: _one_letter(choices.mlvu(text)))
SHORT_ANSWERS = Benchmark(_short_answers, _short_answers_truth, lambda sample: sample.sample_id)
SEED_BENCH = Benchmark(
    _seed_bench, _seed_bench_truth, native_id, lambda _, text: choices.seed_bench_lmms_eval(text) in set("ABCD")
)
