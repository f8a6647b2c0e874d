"""The section of a recipe about groups of nodes: which of them preprocessing, training and evaluation ask for.

A node of group `cpu` has a custom resource `node_group_cpu`, which work asks a grain of; so work for one group never
lands on another, and an autoscaler knows which one to enlarge. Groups of cluster/base/raycluster have these resources.
"""

from typing import Annotated

from pydantic import Field

from tpo_core.config.base import Config, execution

GRAIN = 0.001  # of the 1 that a node has: it marks the node, and limits nothing
PREFIX = "node_group_"

Group = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]


class NodesConfig(Config):
    """Groups of nodes, as the cluster names them; null is any node."""

    preprocess: Group | None = execution(None, description="group of nodes that decodes media; null: any node")
    train: Group | None = execution(None, description="group of nodes that trains; null: any node")
    evaluate: Group | None = execution(None, description="group of nodes that evaluates; null: any node")
    decode_workers: int | None = execution(
        None,
        ge=1,
        description="workers that decode; null: one per CPU that nodes of that group have when decoding starts, which"
        " an autoscaler may have scaled to nothing",
    )


def group_resources(group: str | None) -> dict[str, float]:
    """What work asks Ray for, beside CPUs and GPUs, to land on a node of the group."""
    return {} if group is None else {f"{PREFIX}{group}": GRAIN}


def group_of(resource: str) -> str | None:
    """The group that a custom resource of Ray stands for; None for a resource that is none."""
    return resource.removeprefix(PREFIX) if resource.startswith(PREFIX) else None
