"""Multiple choice in the parts of a chain: put as VideoChat2 puts MVBench, read by its rule, counted as talk."""

from dataclasses import replace

import pytest

from tests.unit.evaluation.conftest import FakeModel, answer_with, make_sample, write_shards
from tpo_core.config.schema import EvaluationConfig
from tpo_core.data.record import Target
from tpo_core.data.shards import ShardSet
from tpo_core.evaluation.by_sample import values_by_sample
from tpo_core.evaluation.constants import constant_baselines
from tpo_core.evaluation.measure import measure

OPTIONS = ("a red ball", "a blue box", "nothing", "a dog")


def choice(number, right=1, task="mcq"):
    sample = make_sample("qa", number)
    turns = (replace(sample.turns[0], text="What falls?"), replace(sample.turns[1], text=OPTIONS[right]))
    return replace(
        sample, sample_id=f"c/{number}", task=task, turns=turns, options=OPTIONS, answer_index=right,
        answer_text=OPTIONS[right],
    )  # fmt: skip


def measured(tmp_path, samples, reply):
    shards = ShardSet.open(write_shards(tmp_path, {"train": [make_sample("qa", 9)], "val": samples}))
    lines = []
    return measure(FakeModel(reply), shards, "val", EvaluationConfig(batch_size=2), lines.append), shards, lines


def test_choices_are_put_with_their_options_and_read_by_the_rule_of_mvbench(tmp_path):
    seen = []

    def reply(example):
        seen.append(example)
        return answer_with(text={"c/0": "B) a blue box", "c/1": "A)", "c/2": "a blue box"}[example.sample.sample_id])

    found, _, _ = measured(tmp_path, [choice(number) for number in range(3)], reply)
    assert [one.scores for one in found.scored] == [{"right": 1.0}, {"right": 0.0}, {"right": 0.0}]
    assert found.metrics["val/choice/accuracy"] == pytest.approx(1 / 3)
    assert found.counts == {"choice": 3}
    question = seen[0].sample.turns[1].text
    assert question.startswith(
        "Question: What falls?\nOptions:\n(A) a red ball\n(B) a blue box\n(C) nothing\n(D) a dog"
    )
    assert seen[0].answer_prefix == "Best option:("
    assert "(D) a dog" in found.scored[0].row()["request"]


def test_of_a_grounded_choice_the_option_alone_is_asked(tmp_path):
    grounded = replace(choice(0, task="grounded_mcq"), targets=(Target("span", span_s=(1.0, 2.0)),))
    found, _, _ = measured(tmp_path, [grounded], lambda example: answer_with(text="B)"))
    assert found.metrics["val/choice/accuracy"] == 1.0


def test_a_choice_that_calls_a_head_is_a_false_activation(tmp_path):
    found, _, _ = measured(tmp_path, [choice(0)], lambda example: answer_with("temporal", text="B)"))
    assert found.metrics["val/activation/false"] == 1.0


def test_choices_without_a_right_option_are_left_out(tmp_path):
    withheld = replace(choice(1), answer_index=None, answer_text=None)
    found, _, lines = measured(tmp_path, [choice(0), withheld], lambda example: answer_with(text="B)"))
    assert found.counts == {"choice": 1}
    assert lines[0] == "evaluate  val  left out: 1 choice without a label to compare with"


def test_choices_have_a_guess_beside_them_and_values_by_sample(tmp_path):
    samples = [choice(0), replace(choice(1, right=0), options=OPTIONS[:2])]
    found, shards, _ = measured(tmp_path, samples, lambda example: answer_with(text="B)"))
    assert constant_baselines(shards, "val", found.scored) == {"val/choice/accuracy": (1 / 4 + 1 / 2) / 2}
    by_sample = values_by_sample("val", [one.row() for one in found.scored], found.metrics)
    assert by_sample["val/choice/accuracy"] == {"choice/c/0": 1.0, "choice/c/1": 0.0}
