"""Whether a Ray cluster is large enough for what is asked of it, busy or not.

Ray waits for ever for resources that no node has. A Ray of our own gets no further nodes, so there it is an error at
once. A cluster that was joined may have an autoscaler, which no public call of Ray tells, and whose nodes appear some
minutes after work for them is pending; so there it is said at once, and waited for.
"""

import os
import time
from collections.abc import Callable, Mapping

import ray

from tpo_core.config.nodes import group_of
from tpo_core.errors import TpoError

LOOK_EVERY_S = 1.0
ROOM_WAIT_S = 1200.0
UNLIMITED = 1_000_000

Resources = Mapping[str, float]


def joins() -> bool:
    """Whether a cluster is joined and not started here. Ray, too, takes an empty RAY_ADDRESS for none."""
    return bool(os.environ.get("RAY_ADDRESS"))


class Room:
    """Room for `count` times the resources `each`, each time on one node.

    what: who asks, and remedy: what to do where there is none; both are parts of messages. echo: takes a line when
    nodes are waited for.
    """

    def __init__(self, count: int, each: Resources, what: str, remedy: str, echo: Callable[[str], None]) -> None:
        self.count, self.each, self.what, self.remedy, self.echo = count, each, what, remedy, echo
        self.short_since_s: float | None = None

    def there(self) -> bool:
        """Whether it is there now. Raises TpoError where it cannot come, or did not while it was waited for."""
        if room(self.each) >= self.count:
            self.short_since_s = None
            return True
        now_s, patience_s = time.monotonic(), ROOM_WAIT_S if joins() else 0.0
        if self.short_since_s is None and patience_s:
            self.short_since_s = now_s
            self.echo(f"{self.shortage()}: waiting up to {patience_s / 60:.0f} min for an autoscaler to bring nodes")
        elif self.short_since_s is None or now_s - self.short_since_s > patience_s:
            raise TpoError(f"{self.shortage()}: {self.remedy}")
        return False

    def wait(self) -> None:
        """Return when it is there; work that asks for it must be pending, or no autoscaler brings it. Raises TpoError
        as `there` does."""
        while not self.there():
            time.sleep(LOOK_EVERY_S)

    def shortage(self) -> str:
        """What is asked for and what is there, in one line."""
        one = amounts(self.each)
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        held = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
        where = "on its node" if len(nodes) == 1 else f"on {len(nodes)} nodes together, room for {room(self.each)}"
        asked = one if self.count == 1 else f"{self.count} x ({one})"
        return f"Ray has no room for {self.what}, {asked}: it has {amounts(held)} {where}{self._groups(nodes)}"

    def _groups(self, nodes: list[Resources]) -> str:
        """Which groups of nodes there are, where a group is asked for that has no node."""
        asked = {group_of(name) for name in self.each} - {None}
        there = sorted({group for node in nodes for name in node if (group := group_of(name))})
        return "" if asked <= set(there) else f", of group {', '.join(there) or '(none)'}"


def amounts(resources: Resources) -> str:
    """`4 CPU and 1 GPU`, and `on a node of group gpu` where one is asked for."""
    plain = " and ".join(f"{amount:g} {name}" for name, amount in resources.items() if group_of(name) is None)
    return " ".join([plain, *(f"on a node of group {group}" for name in resources if (group := group_of(name)))])


def room(each: Resources) -> int:
    """How many times `each` fits on the nodes that are alive, if nothing else ran there."""
    return sum(fits(each, node["Resources"]) for node in ray.nodes() if node["Alive"])


def fits(each: Resources, node: Resources) -> int:
    """How many times `each` fits on one node."""
    counts = [int(node.get(name, 0.0) / amount + 1e-6) for name, amount in each.items() if amount]
    return min(counts, default=UNLIMITED)
