"""What the runbook says to type is there, and what is there the runbook says to type."""

import importlib.util
import re
import shlex

import pytest

from pipelines import promote
from tests.unit.cluster.manifests import CLUSTER, JOBS, OVERLAYS, PLATFORMS, ROOT, objects, walk

TEXT = (CLUSTER / "README.md").read_text(encoding="utf-8")


def test_every_overlay_that_is_named_is_there_and_every_platform_is_named():
    named = set(re.findall(r"kubectl (?:apply|create) -k cluster/overlays/([\w/-]+)", TEXT))
    assert named <= set(OVERLAYS)
    assert set(PLATFORMS) <= named
    assert {job for job in JOBS if job.endswith("full-tpo")} <= named


def test_a_job_is_created_and_a_platform_is_applied():
    """Applying a job again would change one that runs."""
    applied = set(re.findall(r"kubectl apply -k cluster/overlays/([\w/-]+)", TEXT))
    assert not applied & set(JOBS)


def test_images_that_are_built_are_those_that_the_manifests_of_dev_name():
    built = set(re.findall(r"docker build .* -t (\S+) \.", TEXT))
    used = {
        node["image"]
        for overlay in OVERLAYS
        if overlay.startswith("dev")
        for manifest in objects(overlay)
        for node in walk(manifest)
        if isinstance(node, dict) and str(node.get("image", "")).startswith("tpo:")
    }
    assert used <= built
    dockerfile = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    assert set(re.findall(r"--target (\w+)", TEXT)) <= set(re.findall(r" AS (\S+)", dockerfile))


def test_secrets_that_are_made_are_used_whole():
    made = dict(re.findall(r"create secret generic (\S+)(.*)", TEXT.replace("\\\n", " ")))
    used = {
        (node["secretKeyRef"]["name"], node["secretKeyRef"]["key"])
        for overlay in OVERLAYS
        for manifest in objects(overlay)
        for node in walk(manifest)
        if isinstance(node, dict) and isinstance(node.get("secretKeyRef"), dict)
    }
    assert {(name, key) for name, rest in made.items() for key in re.findall(r"literal=([\w-]+)=", rest)} == used


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", TEXT))))
def test_modules_that_are_run_are_there(module):
    assert importlib.util.find_spec(module) is not None


@pytest.mark.parametrize("path", sorted(set(re.findall(r"\b(?:pipelines|cluster|base|overlays)/[\w./-]+\w", TEXT))))
def test_files_that_are_named_are_there(path):
    assert (ROOT / path).exists() or (CLUSTER / path).exists()


def test_switches_of_the_operator_are_those_that_the_manifests_need():
    needed = set()
    for manifest in (each for overlay in OVERLAYS for each in objects(overlay)):
        needed |= {"RayCronJob"} if manifest["kind"] == "RayCronJob" else set()
        needed |= {"RayJobDeletionPolicy"} if "deletionStrategy" in str(manifest) else set()
    assert set(re.findall(r"featureGates\[\d\]\.name=(\w+)", TEXT)) == needed


def test_the_promotion_that_is_typed_is_one_that_the_pipeline_takes():
    [line] = re.findall(r"^python pipelines/promote\.py (.*)$", TEXT, flags=re.MULTILINE)
    words = shlex.split(line)
    assert words[:2] == ["--recipe", "videochat_tpo"]
    assert all("=" in word for word in words[2:])
    assert promote.__doc__.startswith("python pipelines/promote.py")
    assert "--rollback" in promote.__doc__
