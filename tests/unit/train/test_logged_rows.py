"""What a row says of the steps since the last one."""

from dataclasses import asdict

import pytest

from tests.unit.train.stub import Run, StubBatches
from tpo_core.train.rows import Progress, make_row, numbers


def two_steps():
    progress = Progress()
    for _ in range(2):
        progress.finish_step(kinds={"region": 4, "chat": 12}, tokens=100, flops=3e12, seconds=0.5, wait_s=0.1)
    return progress


def row(progress, peak_flops=None):
    return make_row(progress, {"lora": 1e-3}, steps=10, memory_bytes=7, peak_flops=peak_flops)


def test_throughput_is_of_all_ranks_over_the_time_of_the_steps():
    told = row(two_steps(), peak_flops=24e12)
    assert (told["samples_per_s"], told["tokens_per_s"], told["tflops_per_s"], told["mfu"]) == (32, 200, 6.0, 0.25)
    assert (told["data_wait"], told["eta_s"], told["memory_bytes"]) == (pytest.approx(0.2), 4.0, 7)
    assert (told["samples/region"], told["samples/chat"], told["samples"]) == (8, 24, 32)


def test_what_is_not_known_is_absent():
    assert "mfu" not in row(two_steps())
    progress = Progress()
    progress.finish_step(kinds={"chat": 1}, tokens=1, flops=0.0, seconds=1.0, wait_s=0.0)
    assert {"mfu", "tflops_per_s"} & set(row(progress, peak_flops=1e12)) == set()


def test_a_row_is_recorded_at_its_step_as_numbers():
    told = numbers(row(two_steps()))
    assert all(isinstance(value, float) for value in told.values())
    assert {"step", "steps"} & set(told) == set()
    assert {"lr/lora", "samples_per_s", "memory_bytes"} <= set(told)


def test_progress_of_before_flops_were_counted_is_still_read():
    state = asdict(two_steps())
    del state["window"]["flops"], state["window"]["kinds"]
    assert Progress.from_dict(state).step == 2


def test_the_loop_fills_all_of_it_for_each_window():
    rows = Run(steps=4, log_every=2, flops=lambda batch: 1e9, peak_flops=1e12).train(StubBatches()).rows
    for told in rows:
        assert (told["samples/region"], told["samples/chat"]) == (8, 8)
        assert told["mfu"] * told["samples_per_s"] > 0
        assert told["mfu"] == pytest.approx(told["tflops_per_s"])
        assert told["memory_bytes"] > 1e6
