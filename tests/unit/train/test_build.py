import threading
from types import SimpleNamespace

import pytest

from tpo_core.data.loader import Loader, MicroBatch
from tpo_core.data.prefetch import THREAD_NAME
from tpo_core.train.build import LoaderBatches


class TwoAStep:
    """A loader of six steps of two micro-batches, whose examples are their own numbers."""

    steps = 6

    def plan(self, step):
        return [MicroBatch(2 * step + position, "chat", (10 * step + position,)) for position in range(2)]

    def examples(self, micro):
        return list(micro.indices)

    prefetch = Loader.prefetch


@pytest.fixture(params=[0, 2], ids=["inline", "threads"])
def batches(request):
    processor = SimpleNamespace(encode=lambda example: example + 0.5, collate=tuple)
    made = LoaderBatches(TwoAStep(), processor, counts={"chat": 1}, workers=request.param)
    yield made
    made.close()


def test_each_step_gets_its_micro_batches_encoded(batches):
    assert [list(batches.step(step)) for step in (0, 1)] == [
        [(0.5,), (1.5,)],
        [(10.5,), (11.5,)],
    ]


def test_a_resumed_run_starts_in_the_middle_and_ends_with_the_phase(batches):
    assert [len(list(batches.step(step))) for step in (4, 5)] == [2, 2]
    assert list(batches.step(6)) == []


def test_steps_out_of_order_are_a_bug(batches):
    list(batches.step(0))
    with pytest.raises(AssertionError, match="step 3 was asked for, the loader is at 1"):
        next(batches.step(3))


def test_closing_before_the_end_stops_the_threads(batches):
    next(batches.step(0))
    batches.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(THREAD_NAME)]
