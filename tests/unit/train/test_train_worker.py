"""What a Ray Train worker adds around a rank of a phase, without Ray."""

import errno
from types import SimpleNamespace

import pytest
import torch

from tests.unit.train.stub import stub_recipe
from tpo_core.errors import TpoError
from tpo_core.train import ray_trainer
from tpo_core.train.job import PhaseJob


class SilentDesk:
    """Nobody listens, and nobody asks to stop."""

    def tell(self, line):
        pass

    def pass_on(self, stop):
        pass


def test_a_full_disk_in_a_worker_is_one_line(tmp_path, monkeypatch):
    def build(job, strategy):
        raise OSError(errno.ENOSPC, "No space left on device")

    context = SimpleNamespace(get_local_world_size=lambda: 1, get_world_rank=lambda: 0)
    monkeypatch.setattr("ray.train.get_context", lambda: context)
    monkeypatch.setattr("ray.train.torch.get_device", lambda: torch.device("cpu"))
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    recipe = stub_recipe()
    phase = recipe.stages["vision_task"].phases[0]
    job = PhaseJob(
        recipe=recipe, stage_name="vision_task", phase=phase, shards_uri="none", init_uri="none", output=tmp_path,
    )  # fmt: skip
    with pytest.raises(TpoError, match=rf"^disk full while writing {tmp_path} \(\d+ bytes free on its disk\)"):
        ray_trainer.train_worker(job, ray_trainer.no_sink, build, SilentDesk())
