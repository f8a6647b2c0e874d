"""A benchmark from its native labels to its official number, through files that the command scores alike."""

import json
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.evaluation.benches import FORMATS, Scripted, bench_of, entry_of, text
from tpo_core.errors import TpoError
from tpo_core.evaluation.record import Record
from tpo_core.metrics.score import main


def mvbench_layout(root: Path, counts: dict[str, int]) -> Path:
    """Questions whose right answer is B."""
    (root / "json").mkdir(parents=True)
    for task, count in counts.items():
        rows = [
            {"video": f"{task}{k}.mp4", "question": f"{task} {k}?", "candidates": ["x", "y", "z"], "answer": "y"}
            for k in range(count)
        ]
        (root / "json" / f"{task}.json").write_text(json.dumps(rows))
    return root


@pytest.fixture
def mvbench(tmp_path):
    root = mvbench_layout(tmp_path / "mvbench", {"action_antonym": 4, "moving_count": 2})
    entry = entry_of("mvbench", "choice", "mvbench", prompt="best_option", truth="json")
    return bench_of(tmp_path, entry, root)


def by_question(right: set[str]):
    """Right answers to these questions, wrong ones to the others; one calls a head for nothing."""

    def say(shown):
        native = shown.example.sample.provenance.native_id
        called = ("region",) if native == "moving_count-1" else ()
        return Record(shown.ask.key, "B) y" if native in right else "A) x", called)

    return Scripted(say)


def failing_on(name: str):
    """Right answers, but for questions that have this in their name, which cannot be asked."""

    def say(shown):
        failure = "not_asked: no frame is there" if name in shown.ask.key else None
        return Record(shown.ask.key, "" if failure else "B) y", failure=failure)

    return say


def rescored(command: str, capsys) -> dict:
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "tpo_core.metrics.score"]
    assert main([*words[3:], "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_number_is_that_of_the_metric_and_of_its_command(mvbench, capsys):
    result = mvbench.run(by_question({"action_antonym-0", "action_antonym-2", "action_antonym-3", "moving_count-0"}))
    assert result["metrics"] == {"Action Antonym": 75.0, "Moving Count": 50.0, "Avg": pytest.approx(100 * 4 / 6)}
    assert (result["asked"], result["scored"], result["rejected"]) == (6, 6, {})
    assert result["activation"] == {"false": pytest.approx(1 / 6), "missed": None}
    assert json.loads((Path(mvbench.place.output) / "result.json").read_text()) == result
    again = rescored(result["command"], capsys)
    assert again["result"] == result["metrics"]
    assert f"--ground-truth {mvbench.place.root}/json" in result["command"]


def test_options_reach_the_model_as_videochat2_asks_them(mvbench):
    model = by_question(set())
    mvbench.run(model)
    example = next(s.example for s in model.shown if s.ask.key.endswith("action_antonym-0"))
    assert [turn.role for turn in example.sample.turns] == ["system", "user", "assistant"]
    assert example.sample.turns[0].text.startswith("Carefully watch the video and pay attention to the cause")
    assert example.sample.turns[1].text == (
        "Question: action_antonym 0?\nOptions:\n(A) x\n(B) y\n(C) z\nOnly give the best option."
    )
    assert example.answer_prefix == "Best option:("


def test_a_row_says_what_was_asked_answered_and_true(mvbench):
    mvbench.run(by_question({"moving_count-1"}))
    row = mvbench.rows()[-1]
    assert row == {
        "sample_id": "mvbench/test/moving_count-1",
        "task": "choice",
        "request": "Question: moving_count 1?\nOptions:\n(A) x\n(B) y\n(C) z",
        "answer": "B) y",
        "activated": ["region"],
        "truth": "y",
        "prediction": "B) y",
        "scores": {"right": 1.0},
        "failure": "false_activation",
    }


@pytest.mark.parametrize(
    ("reply", "reason", "rejected"),
    [("", "empty_reply", "empty"), ("I do not know", "unparsed_reply", "unparsed"), ("B", None, None)],
)
def test_replies_that_are_no_answer_are_counted_by_reason(mvbench, reply, reason, rejected):
    result = mvbench.run(Scripted(text(reply)))
    assert {row["failure"] for row in mvbench.rows()} == {reason}
    assert sum(result["rejected"].values()) == (6 if rejected else 0)


def test_what_could_not_be_asked_is_a_miss_with_its_reason(mvbench):
    result = mvbench.run(Scripted(failing_on("moving_count-1")))
    assert result["metrics"]["Moving Count"] == 50.0
    assert [row["failure"] for row in mvbench.rows()] == [None] * 5 + ["not_asked"]
    assert result["rejected"] == {"missing": 1}


def test_what_failed_is_asked_again_and_nothing_else(mvbench):
    mvbench.run(Scripted(failing_on("moving_count-1")))
    mended = Scripted(text("B) y"))
    assert mvbench.run(mended)["metrics"]["Avg"] == 100.0
    assert mended.asked == ["mvbench/test/moving_count-1"]
    assert mvbench.run(Scripted(failing_on("moving_count-1")))["metrics"]["Avg"] == 100.0


def test_a_model_that_can_be_asked_nothing_is_a_mistake(mvbench):
    with pytest.raises(TpoError, match=r"^mvbench: none of 6 requests could be asked \(not_asked: no frame"):
        mvbench.run(Scripted(failing_on("")))


def test_a_limit_takes_samples_at_equal_distances_and_its_own_truth(mvbench, capsys):
    model = by_question({"action_antonym-0", "action_antonym-2"})
    result = mvbench.run(model, limit=3)
    asked = sorted(key.rpartition("/")[2] for key in model.asked)
    assert asked == ["action_antonym-0", "action_antonym-2", "moving_count-0"]
    assert (result["asked"], result["scored"]) == (3, 3)
    assert result["metrics"] == {"Action Antonym": 100.0, "Moving Count": 0.0, "Avg": pytest.approx(200 / 3)}
    assert rescored(result["command"], capsys)["result"] == result["metrics"]
    mvbench.run(model)
    assert sorted(model.asked[3:]) == sorted(set(model.asked) - set(model.asked[:3]))  # the others alone


def test_samples_that_were_not_read_stay_in_the_denominator(tmp_path):
    root = mvbench_layout(tmp_path / "mvbench", {"moving_count": 2})
    entry = entry_of("mvbench", "choice", "mvbench", prompt="best_option")
    bench = bench_of(tmp_path, entry, root, rejected={"media_missing": 3})
    result = bench.run(Scripted(text("B) y")))
    assert (result["asked"], result["scored"]) == (5, 2)
    assert result["rejected"] == {"unread_media_missing": 3}


def test_a_limit_that_cuts_nothing_leaves_what_was_not_read_in_the_denominator(tmp_path):
    root = mvbench_layout(tmp_path / "mvbench", {"moving_count": 2})
    entry = entry_of("mvbench", "choice", "mvbench", prompt="best_option")
    bench = bench_of(tmp_path, entry, root, rejected={"media_missing": 3})
    counts = {}
    for name, ran in (("uncut", bench), ("sparse", bench.sparse)):
        result = ran.run(Scripted(text("B) y")), limit=2)
        counts[name] = (result["asked"], result["whole"])
    cut = bench.run(Scripted(text("B) y")), limit=1)
    assert counts == {"uncut": (5, True), "sparse": (2, False)}
    assert (cut["asked"], cut["whole"]) == (1, False)
    assert cut["rejected"] == {"unread_media_missing": 3}


def test_only_samples_with_the_values_of_where_are_asked(tmp_path):
    root = mvbench_layout(tmp_path / "mvbench", {"action_antonym": 1, "moving_count": 2})
    entry = entry_of("mvbench", "choice", "mvbench", prompt="letter", where={"task_type": "Moving Count"})
    model = Scripted(text("B"))
    result = bench_of(tmp_path, entry, root).run(model)
    assert [key.rpartition("/")[2] for key in model.asked] == ["moving_count-0", "moving_count-1"]
    assert (result["asked"], result["whole"]) == (2, False)
    assert model.shown[0].example.sample.turns[0].text.endswith("Answer with the letter of the right option alone.")


def test_an_entry_without_samples_is_a_mistake(tmp_path):
    root = mvbench_layout(tmp_path / "mvbench", {"moving_count": 1})
    entry = entry_of("mvbench", "choice", "mvbench", prompt="letter", where={"task_type": "Nothing"})
    with pytest.raises(TpoError, match=r"^mvbench: split 'test' has no choice sample with labels"):
        bench_of(tmp_path, entry, root).run(Scripted(text("B")))


def test_published_numbers_are_carried_along(mvbench):
    numbers = {
        "source": "table 2",
        "note": "Printed too: 77.7.",
        "videochat2": {"Avg": 60.4},
        "videochat_tpo": {"Avg": 66.8},
    }
    entry = entry_of("mvbench", "choice", "mvbench", prompt="best_option", published=numbers)
    result = replace(mvbench, entry=entry).run(Scripted(text("B")))
    assert result["published"] == {"videochat2": {"Avg": 60.4}, "videochat_tpo": {"Avg": 66.8}}
    assert result["notes"] == ["Printed too: 77.7."]


def test_a_grounded_question_is_asked_twice(tmp_path, capsys):
    entry = entry_of("next_gqa", "grounded_choice", "nextgqa", prompt="best_option", truth="gsub_test.json")
    bench = bench_of(tmp_path, entry, FORMATS / "next_gqa")

    def say(shown):
        if shown.ask.form == "answer":
            return Record(shown.ask.key, "C) lay on floor")
        assert shown.task == "moment"
        assert "what did the baby do, then" in shown.example.sample.turns[0].text
        return Record(shown.ask.key, "Then.", ("temporal",), windows=((1.2, 5.8, 0.9),))

    result = bench.run(Scripted(say))
    assert result["metrics"]["Acc@GQA"] == 100.0
    assert result["metrics"]["mIoU"] == 100.0
    assert result["activation"] == {"false": 0.0, "missed": 0.0}
    assert rescored(result["command"], capsys)["result"] == result["metrics"]
    (row,) = bench.rows()
    assert row["prediction"] == {"answer": "C) lay on floor", "span_s": [1.2, 5.8]}
    assert row["scores"]["iou"] == pytest.approx(1.0)
