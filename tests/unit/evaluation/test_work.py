"""Answers are kept batch by batch: what was answered is not asked again, and a model is loaded only to ask."""

import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.evaluation.benches import Bench, Scripted, bench_of, entry_of, text
from tests.unit.evaluation.test_bench import mvbench_layout
from tpo_core.errors import TpoError
from tpo_core.evaluation import work
from tpo_core.evaluation.record import Record


@pytest.fixture
def bench(tmp_path):
    root = mvbench_layout(tmp_path / "mvbench", {"moving_count": 7})
    return bench_of(tmp_path, entry_of("mvbench", "choice", "mvbench", prompt="letter"), root)


class Killed(BaseException):
    """Ends the process at once."""


def dying(after: int):
    """A model whose process is killed in the middle of a batch."""
    said = []

    def say(shown):
        said.append(shown)
        if len(said) > after:
            raise Killed
        return Record(shown.ask.key, "B")

    return Scripted(say)


def test_a_killed_evaluation_asks_again_only_what_was_in_flight(bench):
    first = dying(after=5)
    with pytest.raises(Killed):
        bench.run(first)
    second = Scripted(text("B"))
    result = bench.run(second)
    assert set(second.asked) == {f"mvbench/test/moving_count-{k}" for k in (4, 5, 6)}
    assert result["metrics"]["Avg"] == 100.0
    assert bench.lines[0].startswith("mvbench  4 of 7 are answered already")


def ask_until_killed(entry, place):
    """In a process of its own: SIGKILL, which nothing catches, comes with the fourth question."""

    def say(shown):
        if shown.ask.key.endswith("-3"):
            os.kill(os.getpid(), signal.SIGKILL)
        return Record(shown.ask.key, "B")

    Bench(entry, place, []).run(Scripted(say))


def test_a_process_that_is_killed_leaves_whole_batches(bench):
    process = multiprocessing.get_context("spawn").Process(target=ask_until_killed, args=(bench.entry, bench.place))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    model = Scripted(text("B"))
    assert bench.run(model)["metrics"]["Avg"] == 100.0
    assert set(model.asked) == {f"mvbench/test/moving_count-{k}" for k in (2, 3, 4, 5, 6)}


def test_a_finished_entry_loads_no_model(bench):
    first = bench.run(Scripted(text("B")))
    again = Scripted(text("A"))
    assert bench.run(again) == first
    assert (again.opened, again.asked) == (0, [])


def test_requests_come_in_batches(bench):
    model = Scripted(text("B"))
    bench.run(model, batch_size=3)
    assert model.batches == [3, 3, 1]


@pytest.mark.parametrize("other", ["model", "prompt", "frames"])
def test_answers_of_another_evaluation_are_not_taken(bench, other):
    bench.run(Scripted(text("B")))
    changed = {"prompt": {"prompt": "best_option"}, "frames": {"frames": 4}}.get(other, {})
    entry = bench.entry.model_copy(update=changed)
    model = Scripted(text("A"), name="another" if other == "model" else "scripted")
    assert replace(bench, entry=entry).run(model)["metrics"]["Avg"] == 0.0
    assert len(model.asked) == 7


def test_another_title_is_no_other_evaluation(bench):
    first = bench.run(Scripted(text("B")))
    model = Scripted(text("A"))
    renamed = bench.entry.model_copy(update={"title": "Other", "metric_options": {}})
    assert replace(bench, entry=renamed).run(model)["digest"] == first["digest"]
    assert model.asked == []


def test_a_batch_that_was_answered_twice_is_one_file(bench):
    bench.run(Scripted(text("B")))
    (folder,) = (Path(bench.place.output) / "answers").iterdir()
    before = sorted(path.name for path in folder.iterdir())
    (folder / before[0]).unlink()
    bench.run(Scripted(text("B")))
    assert sorted(path.name for path in folder.iterdir()) == before


def test_answers_that_somebody_changed_are_named(bench):
    bench.run(Scripted(text("B")))
    path = next((Path(bench.place.output) / "answers").rglob("*.jsonl"))
    path.write_text("nothing\n")
    with pytest.raises(TpoError, match=rf"^{path} holds no answers .*: delete it") as caught:
        bench.run(Scripted(text("B")))
    assert "\n" not in str(caught.value)


def test_progress_tells_the_time_that_is_left(bench, monkeypatch):
    monkeypatch.setattr(work, "TELL_EVERY_S", 0.0)
    bench.run(Scripted(text("B")), batch_size=3)
    assert [line.rpartition("  ")[0] for line in bench.lines] == ["mvbench  3/7", "mvbench  6/7", "mvbench  7/7"]
    assert bench.lines[0].endswith(" s left")
