"""The manifests as `kubectl apply -k` sends them, and what they are made of."""

import functools
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[3]
CLUSTER = ROOT / "cluster"
PLATFORMS = ("dev", "prod", "kueue")
JOBS = (
    "dev/full-tpo",
    "dev/sweep",
    "dev/nightly-evaluation",
    "prod/full-tpo",
    "prod/sweep",
    "prod/nightly-evaluation",
    "kueue/full-tpo",
    "kueue/sweep",
)
OVERLAYS = (*PLATFORMS, *JOBS)

Object = dict[str, Any]


@functools.cache
def _rendered(overlay: str) -> str:
    if shutil.which("kubectl") is None:
        pytest.skip("needs kubectl, which holds kustomize")
    run = subprocess.run(["kubectl", "kustomize", str(CLUSTER / "overlays" / overlay)], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


def objects(overlay: str) -> list[Object]:
    """All objects of an overlay."""
    return list(yaml.load_all(_rendered(overlay), yaml.CSafeLoader))


def ray_spec(manifest: Object) -> Object | None:
    """The description of the Ray cluster in a RayCluster, a RayJob or a RayCronJob; None for other kinds."""
    spec = manifest.get("spec", {})
    places = {"RayCluster": spec, "RayJob": spec, "RayCronJob": spec.get("jobTemplate", {})}
    if manifest["kind"] not in places:
        return None
    place = places[manifest["kind"]]
    return place if manifest["kind"] == "RayCluster" else place["rayClusterSpec"]


def job_spec(manifest: Object) -> Object:
    """The job of a RayJob or a RayCronJob."""
    return manifest["spec"] if manifest["kind"] == "RayJob" else manifest["spec"]["jobTemplate"]


def the_job(overlay: str) -> Object:
    """The one object of an overlay that is a job."""
    [manifest] = objects(overlay)
    return manifest


def clusters() -> list[tuple[str, Object]]:
    """Every description of a Ray cluster that an overlay sends, with the name of the overlay."""
    return [(overlay, spec) for overlay in OVERLAYS for each in objects(overlay) if (spec := ray_spec(each))]


def walk(node: Any) -> Iterator[Any]:
    """A node and all below it."""
    yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from walk(child)


def pods(manifest: Object) -> list[Object]:
    """The pod specs in an object, wherever they are."""
    return [node for node in walk(manifest) if isinstance(node, dict) and isinstance(node.get("containers"), list)]


def templates(manifest: Object) -> list[Object]:
    """The pod templates in an object: metadata and spec."""
    found = [node for node in walk(manifest) if isinstance(node, dict) and {"metadata", "spec"} <= node.keys()]
    return [node for node in found if isinstance(node["spec"], dict) and "containers" in node["spec"]]


def amount(quantity: str | int | float) -> float:
    """A quantity of Kubernetes as a number."""
    units = {"": 1.0, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
    match = re.fullmatch(r"([\d.]+)(\w*)", str(quantity))
    assert match, quantity
    return float(match[1]) * units[match[2]]
