"""Whether a sweep fits into a cluster: trials that wait for each other's CPUs wait for ever."""

from collections.abc import Mapping, Sequence

from tpo_core.errors import TpoError

DRIVER = {"CPU": 0.1}  # what the process of a trial reserves, which only waits while its workers train

Resources = Mapping[str, float]


def require_room(
    nodes: Sequence[Resources], trials: int, workers: int, each: Resources, alive: int = 0, driver: Resources = DRIVER
) -> None:
    """TpoError when `trials` trials of `workers` workers, each of which reserves `each`, do not fit on the nodes side
    by side; it says how many would. alive: trials whose process, which reserves `driver`, is there whether or not they
    train."""
    if fits(nodes, trials, workers, each, alive, driver):
        return
    most = next((count for count in range(trials - 1, 0, -1) if fits(nodes, count, workers, each, alive, driver)), 0)
    asked = " and ".join(f"{amount:g} {name}" for name, amount in each.items())
    held = ", ".join(
        f"{sum(node.get(name, 0.0) for node in nodes):g} {name}" for name in dict.fromkeys([*driver, *each])
    )
    where = "on its node" if len(nodes) == 1 else f"on {len(nodes)} nodes"
    remedy = f"set sweep.concurrent_trials={most}" if most else "set sweep.workers to fewer, or have fewer trials alive"
    raise TpoError(
        f"the sweep is larger than the cluster: {trials} trials x {workers} workers ({asked} each, and"
        f" {driver['CPU']:g} CPU for each of {max(trials, alive)} trials) side by side, and it has {held} {where}:"
        f" {remedy}, or add nodes"
    )


def fits(
    nodes: Sequence[Resources], trials: int, workers: int, each: Resources, alive: int = 0, driver: Resources = DRIVER
) -> bool:
    """Whether all of them fit at once; workers are placed first, each where it fits first."""
    left = [dict(node) for node in nodes]
    return all(_take(left, each) for _ in range(trials * workers)) and all(
        _take(left, driver) for _ in range(max(trials, alive))
    )


def _take(left: list[dict[str, float]], wanted: Resources) -> bool:
    """Take what is wanted from the first node that has it."""
    for node in left:
        if all(node.get(name, 0.0) + 1e-6 >= amount for name, amount in wanted.items()):
            for name, amount in wanted.items():
                node[name] = node.get(name, 0.0) - amount
            return True
    return False
