"""Where a registered version comes from, as a tree for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.tree import Tree

from tpo_core.tracking.promotion_log import PromotionLog, finite, judged
from tpo_core.tracking.registry import FINGERPRINT, LINEAGE, Registry, VersionInfo

SHOWN = 12  # signs of a digest


def explain(registry: Registry, name: str, version: str, log: PromotionLog | None) -> Tree:
    """Commit, recipe, data, parent artifacts and evaluation of a version, given by number or alias, and what it was
    promoted on, which the log says: the numbers in the registry are those that it was measured at last.

    TpoError when there is no such model, version or alias.
    """
    found = registry.chosen(name, version)
    record = registry.record(found, LINEAGE)
    tree = Tree(f"{name} v{found.version}  {found.uri}")
    for key in ("commit", "recipe", "base"):
        tree.add(f"{key}  {found.tags.get(key, 'not recorded')}")
    _data(tree, found, record)
    _artifacts(tree, found, record)
    _evaluation(tree, found, record)
    if log is not None:
        _promotion(tree, name, found, log)
    if found.run_id:
        tree.add(f"MLflow run  {found.run_id}")
    return tree


def _data(tree: Tree, found: VersionInfo, record: Mapping[str, Any]) -> None:
    data = tree.add(f"data  manifest {found.tags.get('data_digest', 'not recorded')}")
    for source in record.get("sources", []):
        data.add(f"{source['name']}  {source['reader']}, split {source['split']} as {source['part']}")


def _artifacts(tree: Tree, found: VersionInfo, record: Mapping[str, Any]) -> None:
    """The step that made the weights, below it those that it read, and so on."""
    artifacts = record.get("artifacts", {})
    if not artifacts:
        tree.add(f"made by  {found.tags.get(FINGERPRINT, 'not recorded')}")
        return
    _artifact(tree.add("made by"), record["made_by"], artifacts)


def _artifact(tree: Tree, step: str, artifacts: Mapping[str, Any]) -> None:
    one = artifacts.get(step)
    if one is None:  # a step that nothing but this one read, like `render`
        tree.add(step)
        return
    told = f"{step}  {one['fingerprint'][:SHOWN]}, {one['finished_at']}, commit {one['commit'][:SHOWN]}"
    branch = tree.add(f"{told}  {one['uri']}")
    for parent in one["inputs"]:
        _artifact(branch, parent, artifacts)


def _evaluation(tree: Tree, found: VersionInfo, record: Mapping[str, Any]) -> None:
    of = found.tags.get("evaluation", "not recorded")
    place = record.get("artifacts", {}).get("evaluate", {}).get("uri", "")
    evaluation = tree.add(f"evaluation  {of[:SHOWN] if of != 'not recorded' else of}  {place}".rstrip())
    for metric, value in sorted(found.metrics.items()):
        base = (found.base_metrics or {}).get(metric)
        evaluation.add(f"{metric}  {value:.4f}" + ("" if base is None else f"  (base {base:.4f})"))
    if not found.metrics:
        evaluation.add("no metrics: no gate lets this version pass")


def _promotion(tree: Tree, name: str, found: VersionInfo, log: PromotionLog) -> None:
    entry = judged(log.entries(), name, found.version, found.tags.get(FINGERPRINT))
    if entry is None:
        tree.add("promoted  never")
        return
    same = entry["metrics"] == finite(found.metrics)
    told = f"promoted  {entry['when']} by {entry['who']}, on {'these' if same else 'other'} numbers"
    promotion = tree.add(told)
    for metric, value in sorted(entry["metrics"].items() if not same else ()):
        promotion.add(f"{metric}  {'nan' if value is None else f'{value:.4f}'}")


def lineage_of(artifacts: Mapping[str, Any], made_by: str, sources: list[Mapping[str, str]]) -> dict[str, Any]:
    """The record that `explain` reads. artifacts: by step, of the execution room; made_by: the step of the weights."""
    assert made_by in artifacts
    return {
        "made_by": made_by,
        "sources": sources,
        "artifacts": {
            step: {
                "fingerprint": one.fingerprint,
                "uri": one.uri,
                "inputs": list(one.inputs),
                "commit": str(one.provenance["commit"]),
                "finished_at": one.provenance["finished_at"],
            }
            for step, one in artifacts.items()
        },
    }
