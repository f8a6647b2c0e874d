"""Discrete events of a run: failures, restarts, nodes that come back; checkpoints in between are counted at once."""

import heapq
import math
from dataclasses import dataclass, field

import numpy as np

from tpo_core.plan.faults import Faults


@dataclass
class Training:
    """Training on `nodes` nodes that fail. Work counts in seconds of all nodes together. `run` begins at the first
    step; `start` before it takes the time until then.

    elastic: goes on with the nodes that are left, and restarts once more when another one comes; otherwise, and where
    none is left, the run waits for it. After `run`: time_s, and where it went besides work: pauses_s for checkpoints,
    lost_s (work that is done again), slow_s (what missing nodes would have done), down_s.
    """

    work_s: float
    nodes: int
    faults: Faults
    interval_s: float
    elastic: bool
    rng: np.random.Generator
    time_s: float = 0.0
    saved_s: float = 0.0
    pauses_s: float = 0.0
    lost_s: float = 0.0
    slow_s: float = 0.0
    down_s: float = 0.0
    failures: int = 0
    alive: int = field(init=False)
    returns: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.alive = self.nodes

    def start(self) -> "Training":
        """Up to the first step, which takes as long as after a failure."""
        self.restart(self.faults.restart_s)
        return self

    def run(self) -> "Training":
        """To the end of the work."""
        while self.saved_s < self.work_s:
            failure_s = self.failure_s()
            back_s = self.returns[0] - self.time_s if self.returns else math.inf
            if self.stretch(min(failure_s, back_s)):
                break
            if failure_s <= back_s:
                self.fail()
            else:
                self.join()
                self.restart(self.faults.restart_s)
        return self

    def failure_s(self) -> float:
        """Until the next failure; gaps are exponential, so that it may be drawn anew whenever the rate changes."""
        return float(self.rng.exponential(self.faults.mtbf_s(self.alive)))

    def stretch(self, seconds: float) -> bool:
        """Train until an event that takes `seconds` to come, which costs what is not in the bucket by then; whether the
        work ends before. One checkpoint at a time is written, so that a long write stretches the cycle."""
        speed, pause_s, left_s = self.alive / self.nodes, self.faults.pause_s, self.work_s - self.saved_s
        cycle_s = max(self.interval_s / speed + pause_s, self.faults.write_s)
        marks = math.ceil(left_s / self.interval_s) - 1  # none at the end
        end_s = marks * cycle_s + (left_s - marks * self.interval_s) / speed
        ended = end_s <= seconds
        seconds = max(0.0, min(seconds, end_s))
        begun = min(marks, int(seconds / cycle_s))
        rest_s = seconds - begun * cycle_s
        done_s = begun * self.interval_s + min(self.interval_s, speed * rest_s)
        written = max(0, min(begun, int((seconds - self.faults.write_s) / cycle_s)))
        kept_s = left_s if ended else written * self.interval_s
        self.time_s += seconds
        self.pauses_s += begun * pause_s + min(pause_s, max(0.0, rest_s - self.interval_s / speed))
        self.slow_s += done_s / speed - done_s
        self.lost_s += 0.0 if ended else done_s - kept_s
        self.saved_s += kept_s
        return ended

    def fail(self) -> None:
        """A node is lost; the run is up again after as many tries as it takes."""
        self.failures += 1
        wait_s = self.faults.down_s(elastic=False)
        if self.elastic and self.alive > 1:
            self.alive -= 1
            heapq.heappush(self.returns, self.time_s + self.faults.replace_s)
            wait_s = self.faults.down_s(elastic=True)
        self.restart(wait_s)

    def restart(self, seconds: float) -> None:
        """So much time without a step, unless another node is lost in it."""
        failure_s = self.failure_s()
        self.time_s += min(seconds, failure_s)
        self.down_s += min(seconds, failure_s)
        if failure_s < seconds:
            self.fail()
        self.join()

    def join(self) -> None:
        """Nodes that are back take part from the next step on."""
        while self.returns and self.returns[0] <= self.time_s:
            heapq.heappop(self.returns)
            self.alive += 1


def preprocessing_s(files: int, nodes: int, faults: Faults, rng: np.random.Generator) -> float:
    """Seconds in which preemptible nodes make so many files, a file a core at a time. A node that is taken away loses
    the files in flight, and another one stands in for it; files that are done stay."""
    left, end_s = files, 0.0
    ready = [(0.0, node) for node in range(nodes)]
    doomed_s = [float(rng.exponential(faults.cpu_node_mtbf_h * 3600)) for _ in range(nodes)]
    heapq.heapify(ready)
    while left > 0:
        time_s, node = heapq.heappop(ready)
        taken = min(left, faults.cpu_node_cores)
        if time_s + faults.file_s <= doomed_s[node]:
            left -= taken
            end_s = max(end_s, time_s + faults.file_s)
            heapq.heappush(ready, (time_s + faults.file_s, node))
        else:
            back_s = doomed_s[node] + faults.replace_s
            doomed_s[node] = back_s + float(rng.exponential(faults.cpu_node_mtbf_h * 3600))
            heapq.heappush(ready, (back_s, node))
    return end_s
