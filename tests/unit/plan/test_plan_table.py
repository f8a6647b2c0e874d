"""Numbers as they are printed, and the arithmetic of memory and mixtures behind them."""

from types import SimpleNamespace

import pytest

from tpo_core.config.load import load_recipe
from tpo_core.plan.assumptions import Assumptions
from tpo_core.plan.facts import GPUS
from tpo_core.plan.memory import STRATEGIES, memory_of
from tpo_core.plan.phases import kinds_of_samples
from tpo_core.plan.pool import Decoding
from tpo_core.plan.skeleton import Activations
from tpo_core.plan.table import gib, markdown, short, stage_table
from tpo_core.plan.warn import GIB
from tpo_core.train.stages import find_phase

MODEL = SimpleNamespace(size=1000, trained_size=100, gathered_size=300)
KEPT = Activations(row_bytes=50.0, copy_bytes=7.0)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (12, "12"), (999, "999"), (1000, "1.00 k"), (28.84e6, "28.8 M"), (181e18, "181 E"), (5e9, "5.00 G")],
)
def test_three_digits_and_a_unit(value, text):
    assert short(value) == text


def test_gib_lose_their_fraction_where_there_are_many():
    assert [gib(each * GIB) for each in (0.04, 45.16, 972.6, 2540.2)] == ["0.0", "45.2", "973", "2,540"]


def test_a_table_has_text_on_the_left():
    assert markdown(("a", "b"), [("x", "1")]) == ["| a | b |", "|---|--:|", "| x | 1 |"]


def stage(name, hours, model_gib, checkpoint_gib):
    return SimpleNamespace(stage=name, hours=hours, model_bytes=model_gib * GIB, checkpoint_bytes=checkpoint_gib * GIB)


def test_stages_sum_their_phases_and_keep_the_checkpoints_of_one_at_a_time():
    phases = [stage("vision_task", 1.0, 10, 2), stage("vision_task", 2.0, 10, 5), stage("multitask", 26.0, 10, 1)]
    assumed = Assumptions(gpu_hour_usd=2.0, cpu_hour_usd=0.5, s3_gib_month_usd=0.1, mfu=0.4)
    decoding = Decoding(media=3, core_hours=20.0, stored_bytes=100 * GIB)
    lines = stage_table(phases, decoding, GPUS["h100"], 64, assumed, paper=True)
    assert lines[2:] == [
        "| preprocess | 20 core hours | - | 10 | unknown | 100 | 10 | - | - | - | - |",
        "| vision_task | 3.00 h | 192 | 384 | - | 25.0 | 2 | 11 h | 704 | 1,408 | 10.9% |",
        "| multitask | 26.00 h | 1,664 | 3,328 | - | 11.0 | 1 | 52 h | 3,328 | 6,656 | 20.0% |",
    ]
    known = assumed.model_copy(update={"raw_gib": 4000.0})
    plain = stage_table(phases, decoding, GPUS["h100"], 64, known, paper=False)
    assert plain[2] == "| preprocess | 20 core hours | - | 10 | 4,000 | 100 | 10 |"
    assert plain[-1] == "| multitask | 26.00 h | 1,664 | 3,328 | - | 11.0 | 1 |"


def test_what_each_strategy_cuts_into_pieces():
    four = {name: memory_of(name, MODEL, KEPT, rows=2, world=4) for name in STRATEGIES}
    assert [four[name].parameters for name in STRATEGIES] == [4000, 4000, 1000 + 1200, 1000 + 1200]
    assert [four[name].gradients for name in STRATEGIES] == [400, 100, 100, 100]
    assert [four[name].optimizer for name in STRATEGIES] == [800, 200 + 100, 200 + 100, 200]
    assert {each.activations for each in four.values()} == {107.0}
    assert {each.buckets for each in four.values()} == {800.0}
    assert four["ddp"].total == 4000 + 400 + 800 + 107 + 800


def test_alone_there_is_nothing_to_share():
    alone = {name: memory_of(name, MODEL, KEPT, rows=1, world=1) for name in STRATEGIES}
    assert {each.parameters for each in alone.values()} == {4000}
    assert {each.buckets for each in alone.values()} == {0}


def test_a_mixture_counts_micro_batches_of_different_sizes():
    ref = find_phase(
        load_recipe("quickstart"), "multitask"
    )  # region 3, temporal 1, mask 1, chat 5; region twice as large
    shares = kinds_of_samples(ref, 1300)
    assert shares == pytest.approx({"region": 600, "temporal": 100, "mask": 100, "chat": 500})
