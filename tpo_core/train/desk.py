"""Where the workers of a phase and its driver meet: lines for people go one way, the request to stop the other. An
error that would come again is left here, because Ray Train starts a group again whatever it failed with.

A tiny actor on the driver's node, because a worker cannot reach the driver's process, nor, on a cluster without a
shared file system, its files.
"""

import threading
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from tpo_core.train.stop import StopRequest

ASK_EVERY_S = 0.5


class _Desk:
    """The actor: what it holds is lost with the driver, and so is the run."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stopping = False
        self.error: Exception | None = None

    def tell(self, line: str) -> None:
        self.lines.append(line)

    def take(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines

    def stop(self) -> None:
        self.stopping = True

    def stops(self) -> bool:
        return self.stopping

    def fail(self, error: Exception) -> None:
        self.error = self.error or error

    def failed(self) -> Exception | None:
        return self.error


class Desk:
    """A handle for driver and workers; picklable."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._actor: Any = ray.remote(_Desk).options(num_cpus=0, scheduling_strategy=here).remote()

    def tell(self, line: str) -> None:
        """For the driver to show; does not wait."""
        self._actor.tell.remote(line)

    def take(self) -> list[str]:
        """The lines that were told since the last call, in order."""
        return ray.get(self._actor.take.remote())

    def stop(self) -> None:
        """Ask all workers to save and leave."""
        ray.get(self._actor.stop.remote())

    def fail(self, error: Exception) -> None:
        """Leave an error for whoever asks; the first one stays. It is there when this returns."""
        ray.get(self._actor.fail.remote(error))

    def failed(self) -> Exception | None:
        """The error that a worker left."""
        return ray.get(self._actor.failed.remote())

    def clear(self) -> None:
        """End the actor."""
        ray.kill(self._actor)

    def pass_on(self, stop: StopRequest) -> None:
        """Keep a worker informed, from a thread of its own: ask `stop` when the driver wants it."""
        threading.Thread(target=self._pass_on, args=(stop,), name="desk", daemon=True).start()

    def _pass_on(self, stop: StopRequest) -> None:
        done = threading.Event()
        while not done.wait(ASK_EVERY_S):
            if ray.get(self._actor.stops.remote()):
                stop.ask()
                return
