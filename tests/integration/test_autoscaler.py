"""The autoscaler of Ray, on nodes that it believes to start and stop: which groups preprocessing and training ask for.

Groups and their resources are those of the manifest of the cluster; the nodes are further raylets on this machine
(Ray's fake provider), so that the decisions are Ray's own. What is watched are the requests of our own code.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import ray
import yaml
from PIL import Image
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_ID, FakeMultiNodeProvider
from ray.autoscaler.v2.sdk import get_cluster_status

from tests.unit.train import stub
from tests.unit.train.stub import build_stub, stub_recipe
from tpo_core.config.nodes import NodesConfig, group_resources
from tpo_core.config.schema import DataConfig
from tpo_core.data import preprocess
from tpo_core.train.ray_trainer import run_phase

for module in (stub, sys.modules[__name__]):  # workers cannot import the tests
    ray.cloudpickle.register_pickle_by_value(module)

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(300)]

MANIFEST = Path(__file__).resolve().parents[2] / "cluster" / "base" / "raycluster" / "raycluster.yaml"
IDLE_MINUTES = 0.05  # in place of the minutes of the manifest
OBJECT_STORE_BYTES = 100 << 20
N_IMAGES = 6
NOTHING_TO_COPY = ("cluster_synced_files", "rsync_exclude", "rsync_filter")
NOTHING_TO_RUN = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands",
)  # fmt: skip
RAY = str(Path(sys.executable).parent / "ray")


@dataclass(frozen=True)
class Look:
    """requests: of each group, in work that runs and in work that waits. nodes: of each group, ready."""

    requests: dict[str, float]
    nodes: dict[str, int]


@dataclass
class Watch:
    """Looks at the cluster every now and then, in a thread of its own."""

    address: str
    groups: list[str]
    looks: list[Look] = field(default_factory=list)
    errors: list[Exception] = field(default_factory=list)

    def look(self) -> Look:
        status = get_cluster_status(self.address)
        nodes = status.active_nodes + status.idle_nodes
        used = {each.resource_name: each.used for each in status.cluster_resource_usage}
        waiting = [
            (bundle.bundle, bundle.count)
            for demands in (
                status.resource_demands.ray_task_actor_demand,
                status.resource_demands.placement_group_demand,
            )
            for demand in demands
            for bundle in demand.bundles_by_count
        ]
        requests = {}
        for group in self.groups:
            (name,) = group_resources(group)
            asked = sum(bundle.get(name, 0.0) * count for bundle, count in waiting)
            requests[group] = used.get(name, 0.0) + asked
        return Look(requests, {group: sum(n.ray_node_type_name == group for n in nodes) for group in self.groups})

    @contextlib.contextmanager
    def during(self) -> Iterator[list[Look]]:
        """What is seen inside."""
        ended, looks = threading.Event(), []

        def watch() -> None:
            try:
                while not ended.wait(0.2):
                    looks.append(self.look())
            except Exception as error:
                self.errors.append(error)

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield looks
        finally:
            ended.set()
            thread.join()
        assert self.errors == []

    def until(self, there: Callable[[Look], bool], deadline_s: float = 120.0) -> Look:
        end = time.monotonic() + deadline_s
        while not there(look := self.look()):
            assert time.monotonic() < end, f"still {look}"
            time.sleep(0.2)
        return look


def groups_of(manifest: Path) -> dict[str, dict]:
    """The node groups of the cluster as types of the autoscaler, two nodes at most of each."""
    spec = yaml.safe_load(manifest.read_text(encoding="utf-8"))["spec"]
    types = {}
    for group in spec["workerGroupSpecs"]:
        resources = {name: float(amount) for name, amount in group["resources"].items()}
        types[group["groupName"]] = {
            "resources": {**resources, "object_store_memory": OBJECT_STORE_BYTES},
            "node_config": {},
            "min_workers": group["minReplicas"],
            "max_workers": min(2, group["maxReplicas"]),
        }
    return types


@pytest.fixture(scope="module")
def watch() -> Iterator[Watch]:
    """A head without CPUs, whose autoscaler has all groups and no node yet."""
    folder = tempfile.mkdtemp(prefix="tpo-as-", dir="/tmp")  # sockets below it allow for no long path
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    host = ray.util.get_node_ip_address()  # which Ray puts in the place of 127.0.0.1
    address = f"{host}:{port}"
    types = groups_of(MANIFEST)
    head = {"ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0}}
    config = {
        "cluster_name": "fake",
        "max_workers": 4,
        "idle_timeout_minutes": IDLE_MINUTES,
        "head_node_type": "ray.head.default",
        "available_node_types": {**types, **head},
        "auth": {},
        **dict.fromkeys((*NOTHING_TO_COPY, *NOTHING_TO_RUN), ()),
        "file_mounts": {},
        "provider": {
            "type": "external",  # as "fake_multinode" it wants a file of defaults that Ray's wheel lacks (2.60)
            "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
            "disable_node_updaters": True,
            "gcs_address": address,
            "head_node_id": FAKE_HEAD_NODE_ID,
            "launch_multiple": True,
        },
    }
    Path(folder, "autoscaler.json").write_text(json.dumps(config))
    environment = {
        **os.environ,
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",  # as the manifest says
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
    }
    command = [
        RAY, "start", "--head", "--block", "--num-cpus=0", f"--port={port}",
        f"--node-ip-address={host}", f"--temp-dir={folder}", "--include-dashboard=false", "--disable-usage-stats",
        f"--object-store-memory={OBJECT_STORE_BYTES}", f"--autoscaling-config={folder}/autoscaler.json",
    ]  # fmt: skip
    # A process of Ray keeps the way to authenticate that it met first: the token that ray.init() of other tests makes.
    subprocess.run([RAY, "get-auth-token", "--generate"], check=True, capture_output=True)
    with Path(folder, "head.log").open("w") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("RAY_ADDRESS", address)  # as a submitted job has it: then no node yet is no mistake
            connect(host, port, process)
            yield Watch(address, sorted(types))
    finally:
        ray.shutdown()
        end(process, folder)
        shutil.rmtree(folder, ignore_errors=True)


def connect(host: str, port: int, head: subprocess.Popen, deadline_s: float = 60.0) -> None:
    """Joins the cluster once its head listens: Ray itself would wait for minutes for one that does not yet."""
    limit = time.monotonic() + deadline_s
    while True:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            break
        assert head.poll() is None, "the head ended"
        assert time.monotonic() < limit, "the head did not start"
        time.sleep(0.2)
    ray.init(address=f"{host}:{port}", log_to_driver=False)


def end(process: subprocess.Popen, folder: str) -> None:
    """This cluster's processes, which name its folder, and no other's."""
    process.terminate()
    own = []
    for each in psutil.process_iter(["cmdline"]):
        if any(folder in word for word in each.info["cmdline"] or ()):
            own.append(each)
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
    psutil.wait_procs(own, timeout=10)
    process.wait(10)


def test_preprocessing_asks_for_cpu_nodes_and_training_for_none(watch, tmp_path):
    nodes = NodesConfig(preprocess="cpu", train="gpu", decode_workers=2)
    assert watch.look() == Look({"cpu": 0, "gpu": 0}, {"cpu": 0, "gpu": 0})

    data = write_data(tmp_path / "data")
    with watch.during() as looks:
        result = preprocess.preprocess(
            data,
            str(tmp_path / "data"),
            tmp_path / "out",
            echo=print,
            cpus=nodes.decode_workers,
            group=nodes.preprocess,
        )
    assert result["decoded"] == N_IMAGES
    assert max(look.requests["cpu"] for look in looks) > 0
    assert max(look.nodes["cpu"] for look in looks) > 0
    assert {(look.requests["gpu"], look.nodes["gpu"]) for look in looks} == {(0, 0)}

    watch.until(lambda look: look.requests["cpu"] == 0)  # the autoscaler hears of what ended a moment later
    recipe = stub_recipe(workers=2, cpus_per_worker=0.4).model_copy(update={"nodes": nodes})
    with watch.during() as looks:
        done = run_phase(
            recipe, "vision_task", recipe.stages["vision_task"].phases[0], shards_uri="none", init_uri="none",
            output=tmp_path / "phase", open_tracker=None, resume=True, echo=print, build=build_stub,
        )  # fmt: skip
    assert done["steps"] == 12
    assert max(look.requests["gpu"] for look in looks) > 0
    assert max(look.nodes["gpu"] for look in looks) > 0
    assert {look.requests["cpu"] for look in looks} == {0}

    watch.until(lambda look: look.nodes["cpu"] == 0)  # most often long before training ends


def write_data(root: Path) -> DataConfig:
    """Images with a box each."""
    rows = []
    (root / "own").mkdir(parents=True)
    for number in range(N_IMAGES):
        name = f"{number}.png"
        Image.new("RGB", (80, 60), (40 * number, 100, 0)).save(root / "own" / name)
        media = {"uri": name, "kind": "image", "width": 80, "height": 60}
        rows.append(
            {
                "sample_id": f"own/{number}",
                "dataset": "own",
                "split": "train",
                "task": "box",
                "media": [media],
                "turns": [
                    {"role": "user", "text": "Where?", "media_refs": [0]},
                    {"role": "assistant", "text": "There <box_begin><boxes>.", "target_refs": [0]},
                ],
                "targets": [{"kind": "box", "box": [4, 4, 20, 20]}],
                "provenance": {
                    "source_file": "train.jsonl",
                    "row": number,
                    "native_id": str(number),
                    "reader": "jsonl",
                },
            }
        )
    (root / "own/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = {"name": "own", "reader": "jsonl", "root": "own", "split": "train", "part": "train"}
    return DataConfig.model_validate(
        {"root": str(root), "frames": {"n_frames": 4, "short_side_px": 32}, "sources": [source]}
    )
