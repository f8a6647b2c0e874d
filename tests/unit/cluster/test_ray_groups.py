"""What the jobs ask for against what the cluster has, as Ray's own autoscaler reads the manifests and decides."""

import shlex

import pytest
from ray._private import ray_constants
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from ray.autoscaler.v2.event_logger import AutoscalerEventLogger
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest
from ray.scripts.scripts import start

from pipelines import evaluate
from pipelines.sweep_loss_weights import plan_of
from tests.unit.cluster.manifests import (
    CLUSTER,
    JOBS,
    OVERLAYS,
    ROOT,
    amount,
    clusters,
    job_spec,
    objects,
    ray_spec,
    the_job,
)
from tpo_core.config.load import load_recipe
from tpo_core.config.nodes import group_of, group_resources
from tpo_core.config.schema import Recipe, TrainConfig
from tpo_core.data.preprocess import CPUS_PER_WORKER
from tpo_core.train import room
from tpo_core.train.ray_trainer import FIXED_START_FAILURES, FIXED_START_S, START_TIMEOUT, resources

CHAINS = tuple(job for job in JOBS if job.endswith("/full-tpo"))
SCALED = tuple(job for job in CHAINS if not job.startswith("kueue/"))  # Kueue fixes the size of a cluster


class Silent(AutoscalerEventLogger):
    """Tells nobody."""

    def __init__(self):
        pass

    def log_cluster_scheduling_update(self, **_):
        pass


def node_types(overlay):
    """The groups of a cluster as the autoscaler beside its head takes them from the manifest."""
    cluster = {"metadata": {"name": "tpo", "namespace": "tpo"}, "spec": ray_spec(the_job(overlay))}
    return AutoscalingConfig(_derive_autoscaling_config_from_ray_cr(cluster)).get_node_type_configs()


def launched(overlay, count, each, gang=False):
    """Nodes by group that the autoscaler starts on an empty cluster, when so much is pending."""
    asked = [ResourceRequestUtil.make(each) for _ in range(count)]
    reply = ResourceDemandScheduler(Silent()).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=node_types(overlay),
            resource_requests=[] if gang else ResourceRequestUtil.group_by_count(asked),
            gang_resource_requests=[GangResourceRequest(requests=asked)] if gang else [],
        )
    )
    unmet = [*reply.infeasible_resource_requests, *reply.infeasible_gang_resource_requests]
    assert unmet == []
    return {each.instance_type: each.count for each in reply.to_launch if each.instance_type != "headgroup"}


def words(overlay):
    return shlex.split(job_spec(the_job(overlay))["entrypoint"])


def recipe_of(overlay) -> Recipe:
    """The recipe that a job runs, its overrides applied."""
    line = words(overlay)
    return load_recipe(line[line.index("--recipe") + 1], [word for word in line if "=" in word])


def worker(recipe: Recipe) -> dict[str, float]:
    """What a training worker of the recipe asks Ray for."""
    return resources(recipe)


@pytest.mark.parametrize("overlay", JOBS)
def test_a_job_starts_a_pipeline_with_a_recipe_that_holds(overlay):
    line = words(overlay)
    assert line[0] == "python"
    assert (ROOT / line[1]).is_file()
    assert recipe_of(overlay).work_uri
    assert "$" not in job_spec(the_job(overlay))["entrypoint"]  # the submitter's shell would fill it in, from its own


@pytest.mark.parametrize("overlay", [job for job in JOBS if job.endswith("/sweep")])
def test_a_sweep_runs_a_recipe_that_says_what_to_search(overlay):
    plan = plan_of(recipe_of(overlay))
    assert plan.config.part in {source.part for source in plan.recipe.data.sources}
    assert plan.first() is not None  # the weights of the recipe are among those that are tried


@pytest.mark.parametrize("overlay", [job for job in JOBS if job.endswith("/nightly-evaluation")])
def test_the_nightly_evaluation_is_a_line_that_its_pipeline_takes(overlay):
    args = evaluate.parser_of().parse_intermixed_args(words(overlay)[2:])
    assert args.model == "models:/tpo@champion"
    assert args.suite in evaluate.suite_names()
    assert recipe_of(overlay).tracking.uri


@pytest.mark.parametrize("overlay", JOBS)
def test_groups_that_a_job_asks_for_are_groups_of_its_cluster(overlay):
    nodes = recipe_of(overlay).nodes
    there = {group for each in node_types(overlay).values() for name in each.resources if (group := group_of(name))}
    assert there == {"cpu", "gpu"}
    assert nodes.preprocess == "cpu"
    assert nodes.evaluate == "gpu"
    assert {nodes.train} <= there | {None}
    assert nodes.decode_workers is not None  # a group that is scaled to nothing has no CPU to count


@pytest.mark.parametrize("overlay", SCALED)
def test_decoding_brings_nodes_of_the_group_cpu_alone(overlay):
    recipe, types = recipe_of(overlay), node_types(overlay)
    each = {"CPU": CPUS_PER_WORKER, **group_resources(recipe.nodes.preprocess)}
    wanted = -(-recipe.nodes.decode_workers * CPUS_PER_WORKER // types["cpu"].resources["CPU"])
    assert launched(overlay, recipe.nodes.decode_workers, each) == {"cpu": wanted}
    assert wanted <= types["cpu"].max_worker_nodes


@pytest.mark.parametrize("overlay", SCALED)
def test_training_brings_nodes_of_the_group_gpu_alone_and_nothing_brings_none(overlay):
    recipe, types = recipe_of(overlay), node_types(overlay)
    each = worker(recipe)
    found = launched(overlay, recipe.train.least_workers, each, gang=True)
    assert found.keys() == {"gpu"}
    assert found["gpu"] * room.fits(each, types["gpu"].resources) >= recipe.train.least_workers
    assert launched(overlay, 0, each) == {}


def test_work_of_one_gpu_asks_for_no_gpu_twice():
    """A worker without a group would take the CPUs of GPU nodes; the recipe of the paper fills four nodes of eight."""
    assert launched("prod/full-tpo", 32, worker(recipe_of("prod/full-tpo")), gang=True) == {"gpu": 4}


@pytest.mark.parametrize("overlay", CHAINS)
def test_what_training_needs_fits_into_the_group_as_it_may_grow(overlay):
    recipe, group = recipe_of(overlay), node_types(overlay)["gpu"]
    assert group.max_worker_nodes * room.fits(worker(recipe), group.resources) >= recipe.train.most_workers


@pytest.mark.parametrize("overlay", JOBS)
def test_workers_that_decode_fit_into_the_group_as_it_may_grow(overlay):
    """Those that do not would be waited for; under Kueue, where no node comes, for ever."""
    recipe, group = recipe_of(overlay), node_types(overlay)["cpu"]
    each = {"CPU": CPUS_PER_WORKER, **group_resources(recipe.nodes.preprocess)}
    assert group.max_worker_nodes * room.fits(each, group.resources) >= recipe.nodes.decode_workers


@pytest.mark.parametrize("job", ["full-tpo", "sweep"])
def test_kueue_runs_the_line_of_prod_but_for_the_workers_that_decode(job):
    queued, plain = words(f"kueue/{job}"), words(f"prod/{job}")
    [changed] = [pair for pair in zip(queued, plain, strict=True) if len(set(pair)) == 2]
    assert [word.partition("=")[0] for word in changed] == ["nodes.decode_workers"] * 2


# vCPUs, GiB and GPUs of machines that README.md names
GPU_MACHINES = {"a2-ultragpu-8g": (96, 1360, 8), "p4de.24xlarge": (96, 1152, 8), "ND96amsr_A100_v4": (96, 1900, 8)}
CPU_MACHINES = {"n2-standard-16": (16, 64, 0), "m6i.4xlarge": (16, 64, 0), "D16s_v5": (16, 64, 0)}


@pytest.mark.parametrize(("component", "machines"), [("ray-cpu", CPU_MACHINES), ("ray-gpu", GPU_MACHINES)])
def test_a_pod_of_prod_leaves_a_machine_what_kubernetes_keeps(component, machines):
    """The kubelet and the agents of a node take up to a core and a tenth of such memory."""
    for overlay, spec in clusters():
        for group in spec["workerGroupSpecs"] if overlay.startswith("prod") else ():
            if group["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == component:
                asked = group["template"]["spec"]["containers"][0]["resources"]["requests"]
                for cores, gib, gpus in machines.values():
                    assert amount(asked["cpu"]) <= cores - 1
                    assert amount(asked["memory"]) <= 0.9 * gib * 2**30
                    assert int(asked.get("nvidia.com/gpu", 0)) == gpus
    named = (CLUSTER / "README.md").read_text(encoding="utf-8")
    assert [name for name in machines if name not in named] == []


def test_the_head_has_no_room_for_work():
    for overlay in JOBS:
        head = node_types(overlay)["headgroup"].resources
        assert head["CPU"] == 0
        assert "GPU" not in head
        assert not [name for name in head if group_of(name)]


def test_start_parameters_are_options_of_this_ray():
    known = {option.removeprefix("--") for parameter in start.params for option in parameter.opts}
    for overlay, spec in clusters():
        for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
            assert group["rayStartParams"].keys() <= known, overlay


def test_pods_have_the_cpus_and_gpus_that_ray_is_told_of():
    for overlay, spec in clusters():
        for group in spec["workerGroupSpecs"]:
            limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
            assert limits["cpu"] == group["resources"]["CPU"], overlay
            assert limits.get("nvidia.com/gpu") == group["resources"].get("GPU"), overlay


def test_a_worker_has_time_to_save_before_ray_kills_it_and_ray_before_its_pod_is_killed():
    deadline_s, named = TrainConfig().stop_deadline_s, "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"
    assert hasattr(ray_constants, named), "this Ray knows it by another name"
    for overlay in (each for each in OVERLAYS if "/" not in each):
        [environment] = [each for each in objects(overlay) if each["metadata"]["name"] == "tpo-environment"]
        drain_s = float(environment["data"][named])
        assert drain_s >= 2 * deadline_s  # a step may have to end first
        for _, spec in clusters():
            for group in spec["workerGroupSpecs"]:
                assert group["template"]["spec"]["terminationGracePeriodSeconds"] >= drain_s + 10


def test_nodes_have_minutes_to_come_before_ray_train_gives_up():
    """The code knows how long, for runs of a fixed size and for others; a variable would be for both."""
    assert FIXED_START_S * (FIXED_START_FAILURES + 1) >= room.ROOM_WAIT_S
    for overlay in (each for each in OVERLAYS if "/" not in each):
        [environment] = [each for each in objects(overlay) if each["metadata"]["name"] == "tpo-environment"]
        assert START_TIMEOUT not in environment["data"]
