"""What one object names, another is: config maps, secrets, accounts, classes, services, ports, volumes, labels."""

import re

import pytest
import ray._common.utils
from ray._private import utils
from ray._private.services import determine_plasma_store_config

from tests.unit.cluster.manifests import (
    CLUSTER,
    JOBS,
    OVERLAYS,
    PLATFORMS,
    amount,
    objects,
    pods,
    ray_spec,
    templates,
    walk,
)

SERVICES = {"mlflow", "postgres", "redis", "s3"}


def beside(overlay):
    """What is in the namespace when an overlay is sent: a job comes after its platform."""
    platform = overlay.partition("/")[0]
    return objects(platform) + (objects(overlay) if overlay != platform else [])


def names(overlay, kind):
    return {each["metadata"]["name"] for each in beside(overlay) if each["kind"] == kind}


def containers(overlay):
    return [each for manifest in objects(overlay) for pod in pods(manifest) for each in pod["containers"]]


def secrets_of_the_runbook():
    """Secrets that cluster/README.md has the user make, with their keys."""
    text = (CLUSTER / "README.md").read_text(encoding="utf-8").replace("\\\n", " ")
    made = re.findall(r"kubectl -n tpo create secret generic (\S+)(.*)", text)
    return {name: set(re.findall(r"--from-literal=([\w-]+)=", rest)) for name, rest in made}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_config_maps_accounts_and_classes_are_there(overlay):
    found = [node for manifest in objects(overlay) for node in walk(manifest) if isinstance(node, dict)]
    maps = {node["configMapRef"]["name"] for node in found if "configMapRef" in node}
    maps |= {node["configMap"]["name"] for node in found if isinstance(node.get("configMap"), dict)}
    assert maps <= names(overlay, "ConfigMap")
    used = [pod for manifest in objects(overlay) for pod in pods(manifest)]
    assert {pod.get("serviceAccountName") for pod in used} - {None} <= names(overlay, "ServiceAccount")
    assert {pod.get("priorityClassName") for pod in used} - {None} <= names(overlay, "PriorityClass")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_come_by_reference_and_the_runbook_makes_them(overlay):
    assert not [each for each in objects(overlay) if each["kind"] == "Secret"]
    made = secrets_of_the_runbook()
    for manifest in objects(overlay):
        for node in walk(manifest):
            if isinstance(node, dict) and isinstance(node.get("secretKeyRef"), dict):
                reference = node["secretKeyRef"]
                assert reference["key"] in made[reference["name"]]
    for container in containers(overlay):
        plain = {each["name"] for each in container.get("env", []) if "value" in each}
        assert not [name for name in plain if re.search(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY", name)]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_mount_has_its_volume_with_a_limit(overlay):
    for manifest in objects(overlay):
        claims = {each["metadata"]["name"] for each in manifest.get("spec", {}).get("volumeClaimTemplates", [])}
        for pod in pods(manifest):
            volumes = {each["name"]: each for each in pod.get("volumes", [])}
            mounts = {each["name"] for container in pod["containers"] for each in container.get("volumeMounts", [])}
            assert mounts == volumes.keys() | claims
            assert all("sizeLimit" in each["emptyDir"] for each in volumes.values() if "emptyDir" in each)


def store_directory(memory, shm, tmp_path, monkeypatch):
    """Where Ray puts the object store of a pod with so much memory, as it starts there."""
    monkeypatch.setattr(utils, "get_shared_memory_bytes", lambda: shm)
    monkeypatch.setattr(ray._common.utils, "get_system_memory", lambda: memory)
    size = utils.resolve_object_store_memory(memory)  # all of it is free: KubeRay starts Ray first
    return determine_plasma_store_config(size, str(tmp_path))[0]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_spilled_objects_go_to_a_volume_and_the_store_fits_its_memory(overlay, tmp_path, monkeypatch):
    for manifest in objects(overlay):
        spec = ray_spec(manifest)
        for group in [] if spec is None else [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            pod = group["template"]["spec"]
            container = pod["containers"][0]
            places = {each["name"]: each["mountPath"] for each in container["volumeMounts"]}
            assert group["rayStartParams"]["object-spilling-directory"] == places["spill"]
            shm = next(each for each in pod["volumes"] if each["name"] == "shm")["emptyDir"]
            assert shm["medium"] == "Memory"
            assert places["shm"] == "/dev/shm"
            memory, shared = int(amount(container["resources"]["limits"]["memory"])), int(amount(shm["sizeLimit"]))
            assert shared < memory
            assert store_directory(memory, shared, tmp_path, monkeypatch) == places["shm"], "not in memory"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_as_the_namespace_demands(overlay):
    """Its label enforces the standard `restricted`; others than ours are refused one by one when they start."""
    for manifest in objects(overlay):
        for pod in pods(manifest):
            assert pod["securityContext"]["runAsNonRoot"]
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            assert pod["enableServiceLinks"] is False  # MLFLOW_PORT=tcp://... of a service would be taken for an option
            for container in pod["containers"]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert container["resources"]["requests"].keys() >= {"cpu", "memory"}
                assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_but_the_head_talks_to_the_api_server(overlay):
    for manifest in objects(overlay):
        for pod in pods(manifest):
            if pod.get("serviceAccountName") != "tpo-head":
                assert pod["automountServiceAccountToken"] is False


def labels_of_pods(platform):
    """The labels of every pod that a platform and its jobs start."""
    places = (platform, *(job for job in JOBS if job.startswith(f"{platform}/")))
    return [
        template["metadata"].get("labels", {})
        for place in places
        for manifest in objects(place)
        for template in templates(manifest)
    ]


def selected(selector, labels):
    return selector.items() <= labels.items()


@pytest.mark.parametrize("platform", PLATFORMS)
def test_selectors_select_something(platform):
    pods_there = labels_of_pods(platform)
    for each in objects(platform):
        kind, spec = each["kind"], each.get("spec", {})
        selectors = {
            "Service": lambda spec: spec["selector"],
            "PodDisruptionBudget": lambda spec: spec["selector"]["matchLabels"],
            "NetworkPolicy": lambda spec: spec["podSelector"].get("matchLabels", {}),
            "PodMonitor": lambda spec: spec["selector"]["matchLabels"],
        }
        if kind in selectors:
            selector = selectors[kind](spec)
            assert any(selected(selector, labels) for labels in pods_there), each["metadata"]["name"]
    spread = [
        (constraint["labelSelector"]["matchLabels"], template["metadata"]["labels"])
        for job in JOBS
        if job.startswith(f"{platform}/")
        for manifest in objects(job)
        for template in templates(manifest)
        for constraint in template["spec"].get("topologySpreadConstraints", [])
    ]
    assert spread
    assert all(selected(selector, labels) for selector, labels in spread)


def test_every_service_has_a_policy_that_opens_its_port_to_its_clients():
    services = {each["metadata"]["name"]: each for each in objects("dev") if each["kind"] == "Service"}
    assert services.keys() == SERVICES
    policies = [each for each in objects("dev") if each["kind"] == "NetworkPolicy"]
    for name, service in services.items():
        [owner] = [
            (template, manifest)
            for manifest in objects("dev")
            if manifest["kind"] in ("Deployment", "StatefulSet")
            for template in templates(manifest)
            if selected(service["spec"]["selector"], template["metadata"]["labels"])
        ]
        ports = {each["name"]: each["containerPort"] for each in owner[0]["spec"]["containers"][0]["ports"]}
        target = service["spec"]["ports"][0]["targetPort"]
        [policy] = [
            each
            for each in policies
            if each["spec"]["podSelector"].get("matchLabels", {}).get("app.kubernetes.io/component") == name
        ]
        [rule] = policy["spec"]["ingress"]
        assert [each["port"] for each in rule["ports"]] == [ports[target]]
        for peer in rule["from"]:
            clients = peer["podSelector"]["matchLabels"]
            assert any(selected(clients, labels) for labels in labels_of_pods("dev")), (name, clients)


def test_hosts_that_dev_names_are_its_services():
    text = str(
        [each for overlay in ("dev", *(job for job in JOBS if job.startswith("dev/"))) for each in objects(overlay)]
    )
    named = set(re.findall(r"(?:https?://|@)([a-z0-9.-]+):\d+", text)) | set(
        re.findall(r"'redisAddress': '([a-z.]+):", text)
    )
    assert named == SERVICES


def test_prod_points_at_nothing_of_dev():
    for overlay in (each for each in OVERLAYS if not each.startswith("dev")):
        kinds = {each["kind"] for each in objects(overlay)}
        assert not kinds & {"Deployment", "StatefulSet", "Service"}
        text = str([each for each in objects(overlay) if each["kind"] != "ConfigMap"])
        assert not re.findall(r"//(?:mlflow|s3|postgres):\d", text)
        assert "redis:6379" not in text


def test_everything_is_shut_but_for_what_a_policy_opens():
    for platform in PLATFORMS:
        [shut] = [each for each in objects(platform) if each["metadata"]["name"] == "nothing-comes-in"]
        assert shut["spec"] == {"podSelector": {}, "policyTypes": ["Ingress"]}


def test_queues_name_flavors_that_there_are_and_jobs_name_the_queue():
    found = {
        kind: [each for each in objects("kueue") if each["kind"] == kind] for kind in ("ResourceFlavor", "ClusterQueue")
    }
    [queue] = found["ClusterQueue"]
    flavors = {each["metadata"]["name"]: each["spec"]["nodeLabels"] for each in found["ResourceFlavor"]}
    [group] = queue["spec"]["resourceGroups"]
    assert {each["name"] for each in group["flavors"]} == flavors.keys()
    for job in ("kueue/full-tpo", "kueue/sweep"):
        [manifest] = objects(job)
        labels = manifest["metadata"]["labels"]
        assert labels["kueue.x-k8s.io/queue-name"] in names("kueue", "LocalQueue")
        assert labels["kueue.x-k8s.io/priority-class"] in names("kueue", "WorkloadPriorityClass")
        spec = ray_spec(manifest)
        asked = [(1, spec["headGroupSpec"])] + [(each["replicas"], each) for each in spec["workerGroupSpecs"]]
        for count, ray_group in asked:
            pod = ray_group["template"]["spec"]
            [flavor] = [name for name, labels in flavors.items() if labels == pod["nodeSelector"]]
            [quota] = [each["resources"] for each in group["flavors"] if each["name"] == flavor]
            there = {each["name"]: amount(each["nominalQuota"]) for each in quota}
            for resource, needed in pod["containers"][0]["resources"]["requests"].items():
                assert count * amount(needed) <= there[resource], (flavor, resource)
