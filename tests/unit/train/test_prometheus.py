"""A row as gauges. What Ray does with them is Ray's; that it takes them is tested with its own class."""

import pytest
from ray.util.metrics import Gauge

from tpo_core.train import prometheus
from tpo_core.train.prometheus import PrometheusSink
from tpo_core.train.rows import Progress, make_row, numbers

VALUES = {"total": 1.5, "loss/region": 0.5, "kind/chat": 2.0, "grad_norm": 0.9, "report/region/iou": 0.4}


class Recorded:
    """Stands for Ray's gauge."""

    values: dict = {}

    def __init__(self, name, description, tag_keys):
        self.name, self.tag_keys = name, tag_keys

    def set(self, value, tags):
        assert set(tags) == set(self.tag_keys)
        self.values[self.name, *(text for key, text in tags.items() if key != "phase")] = value
        assert tags["phase"] == "vision_task"


@pytest.fixture
def values(monkeypatch):
    monkeypatch.setattr(prometheus, "Gauge", Recorded)
    monkeypatch.setattr(prometheus.time, "time", lambda: 1000.0)
    monkeypatch.setattr(Recorded, "values", {})
    return Recorded.values


def test_each_number_has_its_gauge_and_the_newest_row_counts(values):
    sink = PrometheusSink("vision_task")
    for step, loss in ((10, 2.5), (20, 1.5)):
        sink.log_metrics({**VALUES, "total": loss, "lr/lora": 1e-3, "checkpoint_step": 16.0}, step)
    sink.close("FINISHED")
    assert values == {
        ("tpo_step",): 20,
        ("tpo_loss", "total"): 1.5,
        ("tpo_loss", "region"): 0.5,
        ("tpo_kind_loss", "chat"): 2.0,
        ("tpo_grad_norm",): 0.9,
        ("tpo_report", "region/iou"): 0.4,
        ("tpo_lr", "lora"): 1e-3,
        ("tpo_checkpoint_step",): 16.0,
        ("tpo_checkpoint_unix_s",): 1000.0,
    }


def test_the_age_of_a_checkpoint_counts_from_the_row_that_first_tells_of_it(values, monkeypatch):
    sink, times = PrometheusSink("vision_task"), []
    for now_s, step, checkpoint in ((100, 10, {}), (200, 20, {}), (300, 30, {"checkpoint_step": 25.0})):
        monkeypatch.setattr(prometheus.time, "time", lambda now_s=now_s: float(now_s))
        sink.log_metrics(VALUES | checkpoint, step)
        times.append(values["tpo_checkpoint_unix_s",])
    sink.log_metrics(VALUES | {"checkpoint_step": 25.0}, 40)
    assert [*times, values["tpo_checkpoint_unix_s",]] == [100.0, 100.0, 300.0, 300.0]


def test_throughput_wait_memory_and_mfu_of_a_row_are_shown(values):
    progress = Progress()
    progress.finish_step(kinds={"chat": 8}, tokens=80, flops=1e12, seconds=2.0, wait_s=1.0)
    row = make_row(progress, {"lora": 1e-3}, steps=4, memory_bytes=7, peak_flops=1e12)
    PrometheusSink("vision_task").log_metrics(numbers(row), 1)
    shown = {
        name: values[f"tpo_{name}",] for name in ("samples_per_s", "tokens_per_s", "mfu", "data_wait", "memory_bytes")
    }
    assert shown == {"samples_per_s": 4, "tokens_per_s": 40, "mfu": 0.5, "data_wait": 0.5, "memory_bytes": 7}


def test_ray_takes_them(monkeypatch):
    made = []
    monkeypatch.setattr(prometheus, "Gauge", lambda *about: made.append(Gauge(*about)) or made[-1])
    PrometheusSink("vision_task").log_metrics(VALUES, 1)
    assert [gauge._discard_metric for gauge in made] == [False] * len(made)  # Ray drops names that Prometheus refuses
    assert len(made) == 6
