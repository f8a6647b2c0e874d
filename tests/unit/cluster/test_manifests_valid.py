"""Every object that an overlay sends is one that the API server takes."""

import copy

import kubernetes_validate
import pytest

from tests.unit.cluster.crd import mistakes
from tests.unit.cluster.manifests import JOBS, OVERLAYS, PLATFORMS, job_spec, objects, pods, ray_spec, the_job

VERSIONS = ("1.30", "1.34")  # of Kubernetes, the oldest and the newest that the manifests are for
OPERATORS = {  # kinds whose operators publish no schema here
    "PodMonitor",
    "PrometheusRule",
    "ResourceFlavor",
    "ClusterQueue",
    "LocalQueue",
    "WorkloadPriorityClass",
}
RAY = {"RayCluster", "RayJob", "RayCronJob"}
MAX_NAME = 47  # of a RayJob: KubeRay appends to it


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_objects_of_ray_hold_to_the_definitions_of_kuberay(overlay):
    found = [each for each in objects(overlay) if each["kind"] in RAY]
    assert {each["metadata"]["name"]: mistakes(each) for each in found} == {
        each["metadata"]["name"]: [] for each in found
    }


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("overlay", PLATFORMS)
def test_objects_of_kubernetes_hold_to_its_schemas(overlay, version):
    own = [each for each in objects(overlay) if each["kind"] not in RAY | OPERATORS]
    assert {each["kind"] for each in own} >= {"Namespace", "ServiceAccount", "ConfigMap", "NetworkPolicy"}
    for each in own:
        kubernetes_validate.validate(each, version, strict=True)


def test_the_validators_refuse_what_they_are_for():
    """They pass everything when a schema is not found, so they are tried on mistakes."""
    job = the_job("dev/full-tpo")
    for path, key, value in (
        ((), "entrypont", "x"),
        (("rayClusterSpec", "headGroupSpec", "template", "spec"), "serviceAcountName", "x"),
        (("rayClusterSpec", "workerGroupSpecs", 0), "maxReplicas", "many"),
    ):
        wrong = copy.deepcopy(job)
        node = wrong["spec"]
        for step in path:
            node = node[step]
        node[key] = value
        assert len(mistakes(wrong)) == 1
    [service] = [each for each in objects("dev") if each["kind"] == "Service" and each["metadata"]["name"] == "s3"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate({**service, "spec": {**service["spec"], "selektor": {}}}, VERSIONS[0], strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_everything_namespaced_is_in_one_namespace(overlay):
    cluster_wide = {"Namespace", "PriorityClass", "ResourceFlavor", "ClusterQueue", "WorkloadPriorityClass"}
    found = [each for each in objects(overlay) if each["kind"] not in cluster_wide]
    assert {each["metadata"].get("namespace") for each in found} == {"tpo"}


@pytest.mark.parametrize("overlay", JOBS)
def test_a_job_holds_to_what_the_operator_checks_beyond_the_schema(overlay):
    manifest = the_job(overlay)
    spec, cluster = job_spec(manifest), ray_spec(manifest)
    assert len(manifest["metadata"]["name"]) <= MAX_NAME
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["backoffLimit"] > 0
    if overlay.startswith("kueue/"):  # Kueue refuses a cluster that outlives its job, or changes its size
        assert spec["shutdownAfterJobFinishes"]
        assert "deletionStrategy" not in spec
        assert not cluster["enableInTreeAutoscaling"]
        assert "autoscalerOptions" not in cluster
        assert all(
            each["replicas"] == each["minReplicas"] == each["maxReplicas"] for each in cluster["workerGroupSpecs"]
        )
        return
    assert "shutdownAfterJobFinishes" not in spec  # excluded by deletion rules
    for ended in ({"jobStatus": "SUCCEEDED"}, {"jobDeploymentStatus": "Failed"}):
        seconds = {
            rule["policy"]: rule["condition"]["ttlSeconds"]
            for rule in spec["deletionStrategy"]["deletionRules"]
            if ended.items() <= rule["condition"].items()
        }
        assert seconds["DeleteCluster"] <= seconds["DeleteSelf"], "a job that ended is kept for ever, or shorter"
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert all("restartPolicy" not in pod for pod in pods(cluster))  # refused by the second autoscaler


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_resources_are_said_once(overlay):
    """KubeRay refuses a group that says them both as start parameters and as resources."""
    for each in objects(overlay):
        for group in (ray_spec(each) or {"workerGroupSpecs": []})["workerGroupSpecs"]:
            assert not {"num-cpus", "num-gpus", "memory", "resources"} & group["rayStartParams"].keys()


def test_the_nightly_evaluation_waits_to_be_wanted():
    for overlay in ("dev/nightly-evaluation", "prod/nightly-evaluation"):
        assert the_job(overlay)["spec"]["suspend"] is True
    assert [each["kind"] for each in objects("prod") if each["kind"] in RAY] == ["RayCronJob"]
