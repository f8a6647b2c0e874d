"""A registry in memory, and versions to put on it."""

from tpo_core.config.schema import GateConfig, PromotionConfig
from tpo_core.tracking.promotion import CHALLENGER, promote
from tpo_core.tracking.registry import VersionInfo

POINTS, TALKS = "test/region/acc@0.5", "test/qa/accuracy"
GATES = [GateConfig(metric=POINTS, max_drop=0.02), GateConfig(metric=TALKS, against="base", max_drop=0.01)]
ASKED = PromotionConfig(gates=GATES)

SAMPLES = {
    number: {"model": {POINTS: {f"s{i}": float(i % 10 < number + 4) for i in range(200)}}} for number in (1, 2, 3)
}


class Shelf:
    """A registry in memory: versions and aliases of one model."""

    def __init__(self, *versions):
        self.versions = {info.version: info for info in versions}
        self.aliases = {}

    def find(self, name, version):
        return self.versions.get(version)

    def samples(self, of):
        return SAMPLES[of.version]

    def get_alias(self, name, alias):
        return self.versions.get(self.aliases.get(alias))

    def set_alias(self, name, alias, version):
        self.aliases[alias] = version

    def delete_alias(self, name, alias):
        del self.aliases[alias]


def version(number, points, talks=0.9, evaluation="e", fingerprint=None):
    """A version whose fingerprint is f<number> if none is given."""
    tags = {"fingerprint": fingerprint or f"f{number}", "evaluation": evaluation}
    return VersionInfo(number, tags, {POINTS: points, TALKS: talks}, {POINTS: 0.0, TALKS: 0.9}, "")


def offer(shelf, number, log, **more):
    """Make a version the challenger and promote it; more: of `promote`."""
    shelf.set_alias("tpo", CHALLENGER, number)
    return promote(shelf, "tpo", ASKED, log, **more)
