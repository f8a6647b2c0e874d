"""The chain on a cluster in miniature: a head without CPUs, two nodes that decode, two that train and evaluate, each in
a network of its own; S3, PostgreSQL behind MLflow, and Redis behind the head. A node of either group is lost while the
job runs, one by a power cut, one by a broken cable; and in the end so is the head, in the middle of a stage, and is
started again."""

import shutil
import signal
import subprocess
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass

import pytest
from mlflow import MlflowClient
from ray.util.state import list_actors, list_nodes, list_tasks

from tests.conftest import use_endpoint
from tests.integration.job_head import RAY, ROOT, environment
from tests.integration.machines import HERE, Machine, machines, possible, redis, until
from tests.integration.test_full_chain import STEPS, overrides, told
from tests.s3_server import s3_server
from tests.tracking_servers import free_port, mlflow_server, postgres, postgres_bin
from tests.unit.models.conftest import base  # noqa: F401 (fixture)
from tpo_core.storage import s3

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.timeout(1500),
    pytest.mark.skipif(not possible(), reason="network namespaces need root on Linux"),
    pytest.mark.skipif(postgres_bin() is None, reason="no PostgreSQL here: apt-get install postgresql"),
    pytest.mark.skipif(not shutil.which("redis-server"), reason="no Redis here: apt-get install redis-server"),
]

GROUPS = {"head": None, "cpu1": "cpu", "cpu2": "cpu", "gpu1": "gpu", "gpu2": "gpu"}
GCS_PORT, DASHBOARD_PORT = 6379, 8265
HEALTH = {  # a node that says nothing for some ten seconds is lost; by default it takes a minute
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "4000",
    "RAY_health_check_failure_threshold": "3",
}


@dataclass
class Miniature:
    """A cluster. redis: what its head remembers by. tracking: the URI of its MLflow."""

    machines: dict[str, Machine]
    redis: str
    tracking: str

    @property
    def address(self) -> str:
        return f"http://{self.machines['head'].address}:{DASHBOARD_PORT}"

    def start_head(self) -> None:
        self.machines["head"].start(
            "--head", f"--port={GCS_PORT}", "--num-cpus=0", "--dashboard-host=0.0.0.0",
            f"--dashboard-port={DASHBOARD_PORT}",
            RAY_REDIS_ADDRESS=self.redis, RAY_external_storage_namespace="tpo", **HEALTH,
        )  # fmt: skip

    def start_node(self, name: str) -> None:
        mark = f'--resources={{"node_group_{GROUPS[name]}": 1}}'
        self.machines[name].start(
            f"--address={self.machines['head'].address}:{GCS_PORT}", "--num-cpus=1", mark, **HEALTH
        )

    def alive(self) -> set[str]:
        """The names of nodes that the head takes to be there; empty while there is no head."""
        try:
            nodes = list_nodes(address=self.address)
        except Exception:  # whatever a client says of a server that comes up
            return set()
        by_address = {each.address: name for name, each in self.machines.items()}
        return {by_address[node.node_ip] for node in nodes if node.state == "ALIVE"}

    def places(self) -> dict[str, set[str]]:
        """On nodes of which groups the actors of each class were, and the tasks of each name."""
        names = {node.node_id: node.node_ip for node in list_nodes(address=self.address)}
        groups = {each.address: GROUPS[name] for name, each in self.machines.items()}
        found = defaultdict(set)
        for actor in list_actors(address=self.address, detail=True, limit=1000):
            if actor.node_id in names:
                found[actor.class_name].add(groups[names[actor.node_id]])
        for task in list_tasks(address=self.address, detail=True, limit=1000, filters=[("type", "=", "NORMAL_TASK")]):
            if task.node_id in names:
                found[task.name.rpartition(".")[2]].add(groups[names[task.node_id]])
        return found

    def submit(self, words: list[str]) -> subprocess.Popen[str]:
        command = [RAY, "job", "submit", "--address", self.address, "--working-dir", ".", "--log-color", "false"]
        return subprocess.Popen(
            [*command, "--", "python", *words],
            cwd=ROOT, env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """All nodes are up."""
    store, port = tmp_path / "s3", free_port()
    store.mkdir()
    with ExitStack() as stack:
        made = stack.enter_context(machines(list(GROUPS), tmp_path))
        use_endpoint(monkeypatch, stack.enter_context(s3_server(store, HERE)))
        s3.client().create_bucket(Bucket="cluster")
        server = mlflow_server(
            stack.enter_context(postgres()), "s3://cluster/mlflow", tmp_path / "mlflow.log", port, HERE
        )
        miniature = Miniature(made, stack.enter_context(redis(tmp_path, free_port())), stack.enter_context(server))
        miniature.start_head()
        until(miniature.alive, "the head")
        for name, group in GROUPS.items():
            if group:
                miniature.start_node(name)
        until(lambda: miniature.alive() == set(GROUPS), "the nodes")
        yield miniature


def follow(job, sign, lines):
    """Reads what the job says up to a line with the sign."""
    for line in job.stdout:
        lines.append(line)
        if sign in line:
            return
    pytest.fail(f"no {sign!r} in:\n{''.join(lines)}")


def resubmitted(cluster, words):
    """What the same job says that ends; it is refused while the one before may be alive, for all that is known."""
    while True:
        job = cluster.submit(words)
        output, _ = job.communicate()
        if "wait for it or stop it" not in output:
            assert job.returncode == 0, output
            return output


def test_the_chain_goes_on_without_the_nodes_that_it_loses(cluster, base):  # noqa: F811
    words = ["pipelines/full_tpo.py", "--recipe", "quickstart", *overrides("s3://cluster/work", base)]
    words += [f"tracking.uri={cluster.tracking}", "train.workers=[1,2]", "train.cpus_per_worker=1"]
    words += ["nodes.preprocess=cpu", "nodes.train=gpu", "nodes.evaluate=gpu", "nodes.decode_workers=2"]
    words += ["stages.multitask.phases.multitask.steps=40"]
    lines = []
    job = cluster.submit(words)
    follow(job, "media into", lines)  # decoding begins
    cluster.machines["cpu2"].kill()
    follow(job, "RUN     task_assignment", lines)
    places = cluster.places()  # of what decoded and of what evaluated the base
    follow(job, "vision_task  [..........] 2/40", lines)
    trained = cluster.places()
    cluster.machines["gpu2"].cut_off()
    follow(job, "RUN     multitask", lines)
    until(lambda: cluster.alive() == {"head", "cpu1", "gpu1"}, "the head to miss the two nodes")
    follow(job, "multitask  [##........] 8/40", lines)
    cluster.machines["head"].kill()
    job.send_signal(signal.SIGKILL)
    job.wait()
    assert told("".join(lines), "DONE") == STEPS[: STEPS.index("multitask")]
    assert trained["RayTrainWorker"] == {"gpu"}
    assert places["MapWorker(Map(_ShardWorker))"] == {"cpu"}
    assert places["run"] == {"gpu"}, "the evaluation of the base"
    kept = ("_Progress", "_QueueActor", "_Desk")
    assert [trained[name] for name in kept] == [{None}] * 3, "what must not be lost is on the head"

    cluster.start_head()
    until(lambda: cluster.alive() == {"head", "cpu1", "gpu1"}, "the head to find its nodes again")
    output = resubmitted(cluster, words)
    assert told(output, "SKIP") == STEPS[: STEPS.index("multitask")], output
    assert told(output, "DONE") == STEPS[STEPS.index("multitask") :]
    assert "multitask  resuming at step" in output
    assert cluster.places()["run"] == {"gpu"}, "the evaluation of the last stage"
    (version,) = MlflowClient(cluster.tracking).search_model_versions("name='tpo'")
    assert version.status == "READY"
