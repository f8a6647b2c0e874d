"""The gauges of a phase, read where Prometheus reads them: from Ray's own agent."""

import re
import time
from urllib.request import urlopen

import pytest
import ray

from tpo_core.train.prometheus import PrometheusSink

pytestmark = [pytest.mark.ray, pytest.mark.slow]
DEADLINE_S = 120.0  # Ray exports every 10 s


@pytest.fixture
def exported():
    """What the agent of a Ray of our own exports of ours, as {name{tags of ours}: value}, once there is something."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    [node] = ray.nodes()
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"

    def read():
        end_s = time.monotonic() + DEADLINE_S
        while time.monotonic() < end_s:
            lines = urlopen(url, timeout=30).read().decode().splitlines()
            ours = [line for line in lines if line.startswith("ray_tpo_")]
            if ours:
                return {
                    re.sub(r"\{.*\}", tags_of(line), line.rpartition(" ")[0]): float(line.split()[-1]) for line in ours
                }
            time.sleep(0.5)
        pytest.fail(f"nothing of ours at {url}")

    yield read
    ray.shutdown()


def tags_of(line):
    found = dict(re.findall(r'(\w+)="([^"]*)"', line))
    return "{" + ", ".join(f"{tag}={found[tag]}" for tag in ("phase", "name", "group") if tag in found) + "}"


def test_a_row_of_rank_0_reaches_prometheus(exported):
    @ray.remote
    class Rank:
        def log(self):
            self.sink = PrometheusSink("vision_task")
            self.sink.log_metrics({"total": 1.5, "loss/region": 0.5, "lr/lora": 0.25, "data_wait": 0.125}, 20)

    rank = Rank.remote()
    ray.get(rank.log.remote())
    found = exported()
    age_s = time.time() - found.pop("ray_tpo_checkpoint_unix_s{phase=vision_task}")
    assert 0 <= age_s < DEADLINE_S
    assert found == {
        "ray_tpo_step{phase=vision_task}": 20.0,
        "ray_tpo_loss{phase=vision_task, name=total}": 1.5,
        "ray_tpo_loss{phase=vision_task, name=region}": 0.5,
        "ray_tpo_lr{phase=vision_task, group=lora}": 0.25,
        "ray_tpo_data_wait{phase=vision_task}": 0.125,
    }
