"""The schema of a custom resource as an API server with strict field validation takes it."""

import functools
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

CRDS = Path(__file__).resolve().parents[3].parent / "shared" / "kubernetes" / "kuberay-crds"
INT_OR_STRING = {"anyOf": [{"type": "integer"}, {"type": "string"}]}


@functools.cache
def schema(kind: str, version: str = "v1") -> dict[str, Any]:
    """The schema of a kind of KubeRay, unknown fields refused. Skips where the definitions are not there."""
    file = CRDS / f"ray.io_{kind.lower()}s.yaml"
    if not file.is_file():
        pytest.skip(f"needs the definitions of KubeRay ({CRDS})")
    definition = yaml.load(file.read_text(encoding="utf-8"), yaml.CSafeLoader)
    [found] = [each for each in definition["spec"]["versions"] if each["name"] == version and each["served"]]
    return strict(found["schema"]["openAPIV3Schema"], top=True)


def strict(node: dict[str, Any], top: bool = False) -> dict[str, Any]:
    """JSON Schema of an OpenAPI one: no field that is not named, but for metadata of the object itself."""
    if node.get("x-kubernetes-int-or-string"):
        return INT_OR_STRING
    kept = {key: value for key, value in node.items() if key not in ("description", "default", "format")}
    if "properties" in kept:
        kept["properties"] = {name: strict(each) for name, each in kept["properties"].items()}
        if top:
            kept["properties"]["metadata"] = {"type": "object"}
        if not node.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in node:
            kept["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict):
            kept[key] = strict(kept[key])
    return kept


def mistakes(manifest: dict[str, Any]) -> list[str]:
    """What is wrong with an object of KubeRay, each with its path."""
    validator = jsonschema.Draft7Validator(schema(manifest["kind"]))
    return [f"{'.'.join(map(str, each.absolute_path))}: {each.message}" for each in validator.iter_errors(manifest)]
