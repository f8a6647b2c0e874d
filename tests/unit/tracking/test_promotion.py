import pytest

from tpo_core.config.schema import GateConfig
from tpo_core.errors import TpoError
from tpo_core.tracking.promotion import CHALLENGER, CHAMPION, promote, read_log, rollback
from tpo_core.tracking.registry import VersionInfo

POINTS, TALKS = "test/region/acc@0.5", "test/qa/accuracy"
GATES = [GateConfig(metric=POINTS, max_drop=0.02), GateConfig(metric=TALKS, against="base", max_drop=0.01)]


class Shelf:
    """A registry in memory: versions and aliases of one model."""

    def __init__(self, *versions):
        self.versions = {info.version: info for info in versions}
        self.aliases = {}

    def get(self, name, version):
        return self.versions[version]

    def get_alias(self, name, alias):
        return self.versions.get(self.aliases.get(alias))

    def set_alias(self, name, alias, version):
        self.aliases[alias] = version

    def delete_alias(self, name, alias):
        del self.aliases[alias]


def version(number, points, talks=0.9, evaluation="e"):
    tags = {"fingerprint": f"f{number}", "evaluation": evaluation}
    return VersionInfo(number, tags, {POINTS: points, TALKS: talks}, {POINTS: 0.0, TALKS: 0.9}, "")


@pytest.fixture
def log(tmp_path):
    return str(tmp_path / "promotion_log.jsonl")


def offer(shelf, number, log, **more):
    shelf.set_alias("tpo", CHALLENGER, number)
    return promote(shelf, "tpo", GATES, log, **more)


def test_the_first_challenger_is_compared_with_its_base(log):
    shelf = Shelf(version(1, 0.6))
    result = offer(shelf, 1, log)
    assert (result.ok, result.moved, shelf.aliases[CHAMPION]) == (True, True, 1)
    assert [gate.reference for gate in result.gates] == [0.0, 0.9]


def test_a_better_challenger_becomes_champion_and_the_log_says_so(log):
    shelf = Shelf(version(1, 0.6), version(2, 0.7))
    offer(shelf, 1, log)
    offer(shelf, 2, log)
    entries = read_log(log)
    assert shelf.aliases[CHAMPION] == 2
    assert [(e["action"], e["from"], e["to"], e["fingerprint"]) for e in entries] == [
        ("promote", None, 1, "f1"),
        ("promote", 1, 2, "f2"),
    ]
    assert entries[1]["metrics"] == {POINTS: 0.7, TALKS: 0.9}
    assert entries[1]["gates"][0]["reference"] == 0.6
    assert entries[1]["who"]
    assert entries[1]["when"].endswith("+00:00")


@pytest.mark.parametrize(
    ("points", "talks", "failing"), [(0.5, 0.9, POINTS), (0.9, 0.8, TALKS), (float("nan"), 0.9, POINTS)]
)
def test_a_worse_challenger_is_refused_and_nothing_changes(log, points, talks, failing):
    shelf = Shelf(version(1, 0.6), version(2, points, talks))
    offer(shelf, 1, log)
    result = offer(shelf, 2, log)
    assert [gate.metric for gate in result.gates if not gate.ok] == [failing]
    assert not result.moved
    assert shelf.aliases[CHAMPION] == 1
    assert len(read_log(log)) == 1


def test_numbers_of_two_evaluations_do_not_compare(log):
    shelf = Shelf(version(1, 0.6), version(2, 0.9, evaluation="another"))
    offer(shelf, 1, log)
    result = offer(shelf, 2, log)
    assert not result.ok
    assert "another evaluation" in result.gates[0].reason


def test_a_dry_run_changes_nothing(log):
    shelf = Shelf(version(1, 0.6))
    result = offer(shelf, 1, log, dry_run=True)
    assert (result.ok, result.moved) == (True, False)
    assert CHAMPION not in shelf.aliases
    assert read_log(log) == []


def test_rollbacks_walk_back_to_no_champion(log):
    shelf = Shelf(*(version(number, 0.5 + number / 10) for number in (1, 2, 3)))
    for number in (1, 2, 3):
        offer(shelf, number, log)
    assert rollback(shelf, "tpo", log, dry_run=True) == (3, 2)
    assert rollback(shelf, "tpo", log) == (3, 2)
    assert rollback(shelf, "tpo", log) == (2, 1)
    assert shelf.aliases[CHAMPION] == 1
    assert rollback(shelf, "tpo", log) == (1, None)
    assert CHAMPION not in shelf.aliases
    assert [e["action"] for e in read_log(log)] == ["promote"] * 3 + ["rollback"] * 3
    with pytest.raises(TpoError, match="no promotion of 'tpo' to undo"):
        rollback(shelf, "tpo", log)


def test_a_crash_before_the_alias_moved_is_finished_by_the_next_attempt(log):
    shelf = Shelf(version(1, 0.6), version(2, 0.7))
    offer(shelf, 1, log)
    moves, shelf.set_alias = shelf.set_alias, None
    shelf.aliases[CHALLENGER] = 2
    with pytest.raises(TypeError):
        promote(shelf, "tpo", GATES, log)
    shelf.set_alias = moves
    promote(shelf, "tpo", GATES, log)
    assert shelf.aliases[CHAMPION] == 2
    assert len(read_log(log)) == 2


def test_promoting_the_champion_again_does_nothing(log):
    shelf = Shelf(version(1, 0.6))
    offer(shelf, 1, log)
    entries = read_log(log)
    again = promote(shelf, "tpo", GATES, log)
    assert (again.ok, again.moved, again.gates) == (True, False, [])
    assert shelf.aliases[CHAMPION] == 1
    assert read_log(log) == entries


def test_mistakes_are_told(log):
    shelf = Shelf(version(1, 0.6), version(2, 0.7))
    with pytest.raises(TpoError, match="has no challenger"):
        promote(shelf, "tpo", GATES, log)
    offer(shelf, 1, log)
    shelf.set_alias("tpo", CHAMPION, 2)
    with pytest.raises(TpoError, match="champion names version 2, the log says version 1"):
        rollback(shelf, "tpo", log)


def test_a_rollback_that_died_before_the_alias_moved_is_finished(log, monkeypatch):
    shelf = Shelf(version(1, 0.6), version(2, 0.7))
    offer(shelf, 1, log)
    offer(shelf, 2, log)
    with monkeypatch.context() as broken:
        broken.setattr(Shelf, "set_alias", lambda *_: (_ for _ in ()).throw(ConnectionError))
        with pytest.raises(ConnectionError):
            rollback(shelf, "tpo", log)
    assert rollback(shelf, "tpo", log) == (2, 1)
    assert shelf.aliases[CHAMPION] == 1
    assert [entry["action"] for entry in read_log(log)] == ["promote", "promote", "rollback"]


def test_nothing_is_promoted_without_a_gate(log):
    shelf = Shelf(version(1, 0.6))
    shelf.set_alias("tpo", CHALLENGER, 1)
    with pytest.raises(TpoError, match="gates is empty"):
        promote(shelf, "tpo", [], log)
    assert CHAMPION not in shelf.aliases
