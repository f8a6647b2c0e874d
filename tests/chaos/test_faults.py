"""What dies, stands still or fills up in a run on Ray changes nothing in its result."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path

import pytest
import ray
import torch
import torch.multiprocessing as mp
from ray.cluster_utils import Cluster

from tests.chaos import driver, victims
from tests.chaos.victims import Script, final_ids, kill, notes, pid_at, train, undisturbed
from tests.conftest import use_endpoint
from tests.s3_server import Faults, faulty_proxy
from tests.unit.train import stub
from tests.unit.train.checkpoints.made import steps_at
from tpo_core.errors import TpoError
from tpo_core.storage import s3

for module in (stub, victims, sys.modules[__name__]):  # workers cannot import the tests
    ray.cloudpickle.register_pickle_by_value(module)

pytestmark = [pytest.mark.ray, pytest.mark.slow]
SEED = int(os.environ.get("TPO_CHAOS_SEED", "0"))  # another one meets other moments
STEPS = 12


@pytest.fixture(scope="module")
def faults():
    """What the S3 server does to one request in ten: an error, or a connection that breaks off."""
    return Faults(0, errors=0.07, resets=0.03)


@pytest.fixture(scope="module")
def proxied_bucket(s3_endpoint, faults):
    with pytest.MonkeyPatch.context() as patch, faulty_proxy(s3_endpoint, faults) as endpoint:
        use_endpoint(patch, endpoint)
        s3.client().create_bucket(Bucket="chaos")
        yield "s3://chaos"
    s3.client.cache_clear()
    s3.file_system.cache_clear()


@pytest.fixture(scope="module")
def cluster(proxied_bucket, tmp_path_factory):
    """Three machines: one for the driver, two that work. Their processes know the S3 server, and their scratch folders
    differ, as those of two machines do."""
    with pytest.MonkeyPatch.context() as patch:
        made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        patch.setenv("RAY_ADDRESS", made.address)
        made.scratch = {}
        for _ in range(2):
            add_node(made, tmp_path_factory.mktemp("scratch"))
        ray.init(address=made.address, log_to_driver=False)
        yield made
        ray.shutdown()
        made.shutdown()


def add_node(cluster, scratch):
    cluster.scratch[str(scratch)] = cluster.add_node(num_cpus=1, env_vars={"TPO_SCRATCH": str(scratch)})


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "steps").mkdir()
    return tmp_path / "steps"


@pytest.fixture
def draw(request):
    """Chooses when and to whom something happens."""
    return random.Random(f"{request.node.name} {SEED}")


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What two processes without Ray and without trouble make."""
    root = tmp_path_factory.mktemp("calm")
    (root / "steps").mkdir()
    mp.spawn(undisturbed, args=(2, root / "out", Script(root / "steps", pause_s=0)), nprocs=2)
    return root


def train_and(deed, *arguments, **settings):
    """Trains, and does a deed meanwhile: in this thread, since a cluster takes nodes from the main one only."""
    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train, *arguments, **settings)
        deed()
        return training.result()


def weights(output):
    return torch.load(output / "model" / "weights.pt")


def rows(output):
    return [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]


def assert_same(output, folder, calm):
    """Bit for bit: same ranks, same arithmetic."""
    assert final_ids(folder) == final_ids(calm / "steps")
    expected, found = weights(calm / "out"), weights(output)
    assert all(torch.equal(tensor, found[name]) for name, tensor in expected.items())
    for before, after in zip(rows(calm / "out"), rows(output), strict=True):
        assert {k: before[k] for k in ("step", "total", "grad_norm", "samples")} == {
            k: after[k] for k in ("step", "total", "grad_norm", "samples")
        }


@pytest.mark.parametrize("turn", [0, 1])
def test_workers_killed_at_any_moment_while_s3_fails(
    cluster, proxied_bucket, faults, folder, tmp_path, calm, draw, turn
):
    met = faults.counts["error"]
    deeds = [(draw.randrange(1, STEPS - 3), draw.randrange(2), draw.random()) for _ in range(2)]
    gone = []

    def deed():
        for step, rank, delay in deeds:
            gone.append(pid_at(folder, step, rank, but=tuple(gone)))
            time.sleep(delay)
            kill(gone[-1])

    script = Script(folder, pause_s=0.4)
    train_and(deed, tmp_path / "out", script, workers=2, checkpoint_uri=f"{proxied_bucket}/{turn}")
    assert len(gone) == 2
    assert faults.counts["error"] > met
    assert_same(tmp_path / "out", folder, calm)


def drain(cluster, folder, step):
    """Announce the end of the node where the first rank is, as a spot market does, and bring another one."""
    pid_at(folder, step, 0)
    scratch = notes(folder)[-1]["scratch"]
    node = cluster.scratch.pop(scratch)
    notice = ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot", "--deadline-remaining-seconds"]
    ray_command = [str(Path(sys.executable).with_name("ray")), "drain-node", "--address", cluster.address]
    subprocess.run([*ray_command, "--node-id", node.node_id, *notice, "60"], check=True, capture_output=True)
    victims.until(lambda: {row["scratch"] for row in notes(folder)} > {scratch})
    cluster.remove_node(node)
    add_node(cluster, folder.parent / "another")


@pytest.mark.parametrize("way", ["signal", "drain"])
def test_workers_that_are_asked_to_stop_cost_no_failure(cluster, folder, tmp_path, calm, draw, way):
    lines, step, rank = [], draw.randrange(2, 7), draw.randrange(2)
    ways = {
        "signal": lambda: os.kill(pid_at(folder, step, rank), signal.SIGTERM),
        "drain": lambda: drain(cluster, folder, step),
    }
    script = Script(folder, pause_s=2.0 if way == "drain" else 0.2)
    rare = {"max_failures": 0, "checkpoint_every_steps": 100}
    train_and(ways[way], tmp_path / "out", script, workers=2, echo=lines.append, **rare)
    assert_same(tmp_path / "out", folder, calm)
    [stopped] = [line for line in lines if "asked to stop: saved and left at step" in line]
    assert any(f"resuming at step {stopped.split()[-1]} " in line for line in lines)
    assert len(notes(folder)) == 2 * STEPS  # no step was taken twice


def test_a_rank_that_hangs_is_ended_and_all_tell_where_they_were(cluster, folder, tmp_path, calm, draw):
    lines, script = [], Script(folder, hangs_at=draw.randrange(1, STEPS))
    train(tmp_path / "out", script, workers=2, hang_timeout_s=15, echo=lines.append)
    assert_same(tmp_path / "out", folder, calm)
    told = [Path(line.split(": ")[-1]) for line in lines if "a worker hung and was ended" in line]
    first, last = sorted(told, key=lambda path: path.name)
    assert (first.name.split("-")[0], last.name.split("-")[0]) == ("rank0", "rank1")
    assert "stand_still_once" in last.read_text()
    assert "distributed_c10d" in first.read_text()  # it waits for the other one


def test_a_disk_that_is_full_for_a_while_and_one_that_stays_full(cluster, folder, tmp_path, calm, draw):
    lines, step, rank = [], draw.randrange(5, STEPS - 1), draw.randrange(2)
    script = Script(folder, full_at=(4,))
    train_and(lambda: kill(pid_at(folder, step, rank)), tmp_path / "out", script, workers=2, echo=lines.append)
    assert_same(tmp_path / "out", folder, calm)
    assert any("the checkpoint of step 4 failed (disk full" in line for line in lines)
    with pytest.raises(TpoError, match=r"^disk full while writing .*: free some space, then run again$"):
        train(tmp_path / "full", Script(folder, full_at=(8,)), workers=1, max_failed_checkpoints=0)


def test_a_driver_killed_and_one_asked_to_stop_are_gone_on_with(cluster, folder, tmp_path, calm, draw):
    command = [sys.executable, driver.__file__, str(tmp_path / "out"), str(folder)]

    def start():
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    killed = start()
    victims.until((tmp_path / "out/checkpoints/step-00000004/checkpoint.json").exists)  # a busy disk takes its time
    gone = pid_at(folder, 4, 0)
    killed.kill()
    assert killed.wait(victims.DEADLINE_S) == -signal.SIGKILL
    asked = start()
    pid_at(folder, draw.randrange(5, 9), 0, but=(gone,))
    asked.terminate()
    said, _ = asked.communicate(timeout=victims.DEADLINE_S)
    assert asked.returncode == 143, said
    assert re.search(r"resuming at step [48] ", said)  # the workers may outlive their driver for a moment
    [step] = re.findall(r"asked to stop: saved and left at step (\d+)", said)
    assert "terminated: the same command goes on from here" in said
    last = start()
    said, _ = last.communicate(timeout=victims.DEADLINE_S)
    assert last.returncode == 0, said
    assert f"resuming at step {step} " in said
    assert_same(tmp_path / "out", folder, calm)


def test_a_lost_node_is_done_without_and_taken_back(cluster, proxied_bucket, folder, tmp_path, draw):
    """The node of rank 0, with all that it wrote: machines share a bucket, no disk. A CPU each is a worker a node."""
    step = draw.randrange(4, 8)  # after the first checkpoint, and with time for the loss before the last step
    undisturbed(0, 1, tmp_path / "calm", Script(folder, pause_s=0, dropout=0.0))
    expected = final_ids(folder)
    (tmp_path / "lost").mkdir()
    script = Script(tmp_path / "lost", pause_s=1.0, dropout=0.0, waits={2: 2, 8: 2})
    lines, gone, exchange = [], [], f"{proxied_bucket}/lost"

    def deed():
        victims.until(lambda: 4 in steps_at(f"{exchange}/checkpoints"))
        pid_at(script.folder, step, 0)
        gone.append(next(row["scratch"] for row in reversed(notes(script.folder)) if row["rank"] == 0))
        cluster.remove_node(cluster.scratch.pop(gone[0]), allow_graceful=False)
        shutil.rmtree(gone[0])
        victims.until(lambda: any(row["world"] == 1 and row["step"] == 8 for row in notes(script.folder)))
        add_node(cluster, tmp_path / "new")

    elastic = {"workers": [1, 2], "cpus_per_worker": 1, "resize_interval_s": 2}
    result = train_and(deed, tmp_path / "out", script, exchange=exchange, echo=lines.append, **elastic)
    seen = notes(script.folder)
    worlds = [world for world, _ in groupby(row["world"] for row in seen)]
    assert worlds[-3:] == [2, 1, 2]  # before that, Ray may not yet know both nodes
    assert {row["scratch"] for row in seen} == {*gone, *cluster.scratch}
    assert final_ids(script.folder) == expected
    assert result["steps"] == 12
    assert [line.split()[2] for line in lines if "/12 " in line][-1] == "12/12"  # told while it ran
    for name, tensor in weights(tmp_path / "calm").items():
        torch.testing.assert_close(weights(tmp_path / "out")[name], tensor, rtol=1e-5, atol=1e-5)
    for before, after in zip(rows(tmp_path / "calm"), rows(tmp_path / "out"), strict=True):
        assert after["total"] == pytest.approx(before["total"], abs=1e-5)


@pytest.mark.parametrize("settings", [{"workers": 4, "cpus_per_worker": 1}, {"gpus_per_worker": 1}])
def test_what_the_cluster_can_never_hold(cluster, folder, tmp_path, monkeypatch, settings):
    monkeypatch.delenv("RAY_ADDRESS")
    with pytest.raises(TpoError, match=r"^Ray has no room for train.workers, .*: ask for fewer or smaller ones"):
        train(tmp_path / "out", Script(folder), **settings)
    assert notes(folder) == []
