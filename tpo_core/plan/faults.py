"""How nodes fail, and what that costs a run: the numbers that the simulation takes, and the formulas it is held to.

Formulas: Young (1974, doi 10.1145/361147.361115) and Daly (2006, doi 10.1016/j.future.2004.11.016). Failures come with
exponential gaps, MTBF M of all nodes together; tau: work between two checkpoints, delta: pause of one, R: from a
failure to the first new step. All in seconds.
"""

import math
from collections.abc import Iterable
from typing import Any

import yaml
from pydantic import Field

from tpo_core.config.base import Config
from tpo_core.config.load import validated
from tpo_core.errors import TpoError


class Faults(Config):
    """Nodes, and how they come and go."""

    node_gpus: int = Field(default=8, ge=1, description="GPUs of a node, which fail together")
    node_mtbf_h: float = Field(
        default=6300.0,
        gt=0,
        description="hours between two failures of a GPU node; 419 in 54 days on 16,384 GPUs in arXiv 2407.21783",
    )
    pause_s: float = Field(default=1.0, ge=0, description="seconds that training waits for a checkpoint")
    write_s: float = Field(default=20.0, ge=0, description="seconds from that until it is in the bucket")
    notice_s: float = Field(default=35.0, ge=0, description="seconds until Ray takes a node for lost; measured 35")
    restart_s: float = Field(
        default=300.0, ge=0, description="seconds to start the workers, read base and checkpoint, and take a first step"
    )
    replace_s: float = Field(default=900.0, ge=0, description="seconds until another node stands in for a lost one")
    cpu_nodes_per_gpu_node: float = Field(default=1.0, gt=0, description="nodes of the cpu group for a GPU node")
    cpu_node_cores: int = Field(default=32, ge=1, description="cores of a node of the cpu group")
    cpu_node_mtbf_h: float = Field(default=24.0, gt=0, description="hours until a preemptible cpu node is taken away")
    file_s: float = Field(default=200.0, gt=0, description="seconds in which a core makes one media file of the store")
    files_per_gpu: float = Field(default=61.0, gt=0, description="media files of the data, a GPU")
    stage_hours: dict[str, float] = Field(
        default={"task_assignment": 0.5, "vision_task": 11.0, "multitask": 52.0},
        description="hours of each stage without failures: those of the paper, with data in proportion to GPUs",
    )

    def mtbf_s(self, nodes: int) -> float:
        """Seconds between two failures of any of so many GPU nodes."""
        return self.node_mtbf_h * 3600 / nodes

    def down_s(self, *, elastic: bool) -> float:
        """Seconds from a failure to the first new step. A run of fixed size waits for the new node."""
        return self.notice_s + self.restart_s + (0.0 if elastic else self.replace_s)


def assume_faults(changes: Iterable[str]) -> Faults:
    """The defaults with `KEY=VALUE` texts applied. TpoError for an unknown key or a bad value."""
    raw: dict[str, Any] = {}
    for text in changes:
        key, sign, value = text.partition("=")
        if not sign:
            raise TpoError(f"--assume {text!r}: write it as KEY=VALUE, for example node_mtbf_h=2000")
        raw[key] = yaml.safe_load(value)
    return validated(Faults, raw, "--assume", "the assumptions")


def young_s(pause_s: float, mtbf_s: float) -> float:
    """The best tau to first order: sqrt(2 delta M)."""
    return math.sqrt(2 * pause_s * mtbf_s)


def daly_s(pause_s: float, mtbf_s: float) -> float:
    """The best tau to third order; M where a checkpoint costs more than twice of it."""
    if pause_s >= 2 * mtbf_s:
        return mtbf_s
    part = pause_s / (2 * mtbf_s)
    return young_s(pause_s, mtbf_s) * (1 + math.sqrt(part) / 3 + part / 9) - pause_s


def expected_wall_s(work_s: float, interval_s: float, pause_s: float, down_s: float, mtbf_s: float) -> float:
    """Expected time for some work where a failure may also hit a pause or a restart, and a checkpoint counts from the
    end of its pause: M e^(R/M) (e^((tau + delta)/M) - 1) work / tau (Daly, equation 13)."""
    one = math.expm1((interval_s + pause_s) / mtbf_s)
    return mtbf_s * math.exp(down_s / mtbf_s) * one * work_s / interval_s
