"""How many trials of a population train at a time, though all of them are alive: Tune knows no such limit."""

from __future__ import annotations

import time
from typing import Any

import ray
from ray.exceptions import ActorDiedError, RayActorError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

ASK_EVERY_S = 0.5


class Slots:
    """A context that an actor, as the process of a trial is one, enters for a round; picklable. The slot of one that
    has died is free again.

    It is kept on the node of who makes it, which stays.
    """

    def __init__(self, count: int) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._actor: Any = ray.remote(_Slots).options(num_cpus=0, scheduling_strategy=here).remote(count)

    def __enter__(self) -> None:
        while not self.take():
            time.sleep(ASK_EVERY_S)

    def __exit__(self, *how: object) -> None:
        ray.get(self._actor.give.remote(ray.get_runtime_context().get_actor_id()))

    def take(self) -> bool:
        """Whether there was a free one, which is this actor's now."""
        me = ray.get_runtime_context()
        return ray.get(self._actor.take.remote(me.get_actor_id(), me.current_actor))


class _Slots:
    """The actor. Each holder has a call of its own waiting in its queue: of one that dies, Ray fails that call, while
    the call of one that trains just waits."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.held: dict[str, tuple[Any, ray.ObjectRef]] = {}

    def take(self, name: str, holder: Any) -> bool:
        if len(self.held) >= self.count:
            self.drop_dead()
        if len(self.held) >= self.count:
            return False
        self.held[name] = holder, holder.__ray_ready__.remote()
        return True

    def give(self, name: str) -> None:
        self.held.pop(name, None)

    def drop_dead(self) -> None:
        for name, (holder, call) in list(self.held.items()):
            if not ray.wait([call], timeout=0)[0]:
                continue
            try:
                ray.get(call)
            except ActorDiedError:
                del self.held[name]
                continue
            except RayActorError:  # out of reach for now: only the next call tells whether for good
                pass
            self.held[name] = holder, holder.__ray_ready__.remote()
