"""What a Ray Train worker adds around a rank of a phase, without Ray."""

import errno

import pytest
import torch

from tests.unit.train.stub import stub_recipe
from tpo_core.errors import TpoError
from tpo_core.train import ray_trainer
from tpo_core.train.phase import NoSink, PhaseJob


def test_a_full_disk_in_a_worker_is_one_line(tmp_path, monkeypatch):
    def build(job, strategy):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("ray.train.torch.get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    recipe = stub_recipe()
    phase = recipe.stages["vision_task"].phases[0]
    job = PhaseJob(
        recipe=recipe, stage_name="vision_task", phase=phase, shards_uri="none", init_uri="none", output=tmp_path,
    )  # fmt: skip
    with pytest.raises(TpoError, match=rf"^disk full while writing {tmp_path} \(\d+ bytes free on its disk\)"):
        ray_trainer.train_worker(job, NoSink, build)
