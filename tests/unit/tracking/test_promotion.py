import pytest

from tpo_core.config.schema import GateConfig, PromotionConfig
from tpo_core.errors import TpoError
from tpo_core.tracking.promotion import CHALLENGER, CHAMPION, promote, rollback
from tpo_core.tracking.promotion_log import PromotionLog
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


def version(number, points, talks=0.9, evaluation="e"):
    tags = {"fingerprint": f"f{number}", "evaluation": evaluation}
    return VersionInfo(number, tags, {POINTS: points, TALKS: talks}, {POINTS: 0.0, TALKS: 0.9}, "")


@pytest.fixture
def log(tmp_path):
    return PromotionLog(str(tmp_path / "promotions"))


def offer(shelf, number, log, **more):
    shelf.set_alias("tpo", CHALLENGER, number)
    return promote(shelf, "tpo", ASKED, log, **more)


def test_the_first_challenger_is_compared_with_its_base(log):
    shelf = Shelf(version(1, 0.6))
    result = offer(shelf, 1, log)
    assert (result.ok, result.moved, shelf.aliases[CHAMPION]) == (True, True, 1)
    assert [gate.reference for gate in result.gates] == [0.0, 0.9]


def test_a_better_challenger_becomes_champion_and_the_log_says_so(log):
    shelf = Shelf(version(1, 0.6), version(2, 0.7))
    offer(shelf, 1, log)
    offer(shelf, 2, log)
    entries = log.entries()
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
    assert len(log.entries()) == 1


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
    assert log.entries() == []


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
    assert [e["action"] for e in log.entries()] == ["promote"] * 3 + ["rollback"] * 3
    with pytest.raises(TpoError, match="no promotion of 'tpo' to undo"):
        rollback(shelf, "tpo", log)


def test_a_crash_before_the_alias_moved_is_finished_by_the_next_attempt(log):
    shelf = Shelf(version(1, 0.6), version(2, 0.7))
    offer(shelf, 1, log)
    moves, shelf.set_alias = shelf.set_alias, None
    shelf.aliases[CHALLENGER] = 2
    with pytest.raises(TypeError):
        promote(shelf, "tpo", ASKED, log)
    shelf.set_alias = moves
    promote(shelf, "tpo", ASKED, log)
    assert shelf.aliases[CHAMPION] == 2
    assert len(log.entries()) == 2


def test_promoting_the_champion_again_does_nothing(log):
    shelf = Shelf(version(1, 0.6))
    offer(shelf, 1, log)
    entries = log.entries()
    again = promote(shelf, "tpo", ASKED, log)
    assert (again.ok, again.moved, again.gates) == (True, False, [])
    assert shelf.aliases[CHAMPION] == 1
    assert log.entries() == entries


def test_without_a_challenger(log):
    with pytest.raises(TpoError, match="has no challenger"):
        promote(Shelf(version(1, 0.6)), "tpo", ASKED, log)


def broken(*_):
    raise ConnectionError


def test_a_rollback_that_died_before_the_alias_moved_is_finished_once(log, monkeypatch):
    shelf = Shelf(*(version(number, 0.5 + number / 10) for number in (1, 2, 3)))
    for number in (1, 2, 3):
        offer(shelf, number, log)
    with monkeypatch.context() as away:
        away.setattr(Shelf, "set_alias", broken)
        with pytest.raises(ConnectionError):
            rollback(shelf, "tpo", log)
    assert rollback(shelf, "tpo", log) == (3, 2)
    assert shelf.aliases[CHAMPION] == 2
    assert [entry["action"] for entry in log.entries()] == ["promote"] * 3 + ["rollback"]


def test_a_promotion_that_died_before_the_alias_moved_is_told_and_finished(log, monkeypatch):
    shelf = Shelf(version(1, 0.6), version(2, 0.7), version(3, 0.1))
    offer(shelf, 1, log)
    with monkeypatch.context() as away:
        shelf.set_alias("tpo", CHALLENGER, 2)
        away.setattr(Shelf, "set_alias", broken)
        with pytest.raises(ConnectionError):
            promote(shelf, "tpo", ASKED, log)
    assert shelf.aliases[CHAMPION] == 1
    shelf.set_alias("tpo", CHALLENGER, 3)
    assert promote(shelf, "tpo", ASKED, log, dry_run=True).notes
    assert shelf.aliases[CHAMPION] == 1
    result = promote(shelf, "tpo", ASKED, log)
    assert result.notes == ["a promote to v2 was cut off: it is finished now"]
    assert (result.ok, result.champion.version, shelf.aliases[CHAMPION]) == (False, 2, 2)
    assert [entry["done"] for entry in log.entries()] == [True, True]


def test_of_two_promotions_at_once_one_is_refused_by_the_log(log, monkeypatch):
    """Both have judged against version 1 when the first one writes."""
    shelf = Shelf(version(1, 0.6), version(2, 0.7), version(3, 0.8))
    offer(shelf, 1, log)
    shelf.set_alias("tpo", CHALLENGER, 2)
    append, writes = PromotionLog.append, []

    def second_first(self, entry, after):
        if not writes:
            writes.append(entry)
            offer(shelf, 3, log)
        return append(self, entry, after)

    monkeypatch.setattr(PromotionLog, "append", second_first)
    with pytest.raises(TpoError, match="another entry meanwhile"):
        promote(shelf, "tpo", ASKED, log)
    assert shelf.aliases[CHAMPION] == 3
    assert [entry["to"] for entry in log.entries()] == [1, 3]


def test_an_alias_that_was_moved_by_hand_is_told_and_no_yardstick(log):
    shelf = Shelf(version(1, 0.6), version(2, 0.1), version(3, 0.5))
    offer(shelf, 1, log)
    shelf.set_alias("tpo", CHAMPION, 2)
    result = offer(shelf, 3, log)
    assert result.notes == ["alias champion was moved by hand to v2, the log says v1: --rollback puts it back"]
    assert (result.ok, result.champion.version) == (False, 1)  # better than 2, which never passed
    assert rollback(shelf, "tpo", log) == (2, 1)
    assert shelf.aliases[CHAMPION] == 1
    assert offer(shelf, 3, log).notes == []


def test_a_challenger_that_was_made_champion_by_hand_is_judged_all_the_same(log):
    shelf = Shelf(version(1, 0.6), version(2, 0.1))
    offer(shelf, 1, log)
    shelf.set_alias("tpo", CHAMPION, 2)
    result = offer(shelf, 2, log)
    assert (result.ok, result.moved, len(result.notes)) == (False, False, 1)
    first = Shelf(version(7, 0.6, talks=0.1))
    first.set_alias("tpo", CHAMPION, 7)
    assert not offer(first, 7, PromotionLog(f"{log.uri}-of-another")).ok


def test_an_alias_that_was_taken_away_by_hand_comes_back(log):
    shelf = Shelf(version(1, 0.6))
    offer(shelf, 1, log)
    shelf.delete_alias("tpo", CHAMPION)
    assert rollback(shelf, "tpo", log) == (None, 1)
    assert shelf.aliases[CHAMPION] == 1


def test_a_champion_that_was_deleted_is_told_and_the_one_before_it_judges(log):
    shelf = Shelf(version(1, 0.6), version(2, 0.7), version(3, 0.5), version(4, 0.65))
    offer(shelf, 1, log)
    offer(shelf, 2, log)
    del shelf.versions[2]
    refused = offer(shelf, 3, log)
    assert refused.notes == ["champion v2 was deleted: v1 stands in for it"]
    assert (refused.ok, refused.champion.version) == (False, 1)
    assert rollback(shelf, "tpo", log) == (None, 1)
    assert offer(shelf, 4, log).ok
    assert shelf.aliases[CHAMPION] == 4
    assert rollback(shelf, "tpo", log) == (4, 1)


def test_a_log_holds_several_models(log):
    shelf, other = Shelf(version(1, 0.6)), Shelf(version(5, 0.6))
    offer(shelf, 1, log)
    other.set_alias("other", CHALLENGER, 5)
    promote(other, "other", ASKED, log)
    assert [(entry["number"], entry["model"], entry["to"]) for entry in log.entries()] == [
        (1, "tpo", 1),
        (2, "other", 5),
    ]
    assert rollback(shelf, "tpo", log) == (1, None)


def test_samples_decide_where_a_gate_asks_for_it(log):
    """Version 2 gets a tenth of the samples more right than 1; the numbers of their tags are the same."""
    shelf = Shelf(version(1, 0.5), version(2, 0.5))
    paired = PromotionConfig(gates=[GateConfig(metric=POINTS, max_drop=0.0, worst_drop=0.02)])
    offer(shelf, 1, log)
    shelf.set_alias("tpo", CHALLENGER, 2)
    (gate,) = promote(shelf, "tpo", paired, log).gates
    assert gate.ok
    assert 0 < gate.low < 0.1 < gate.high
    (back,) = promote(exchanged(shelf), "tpo", paired, PromotionLog(f"{log.uri}2")).gates
    assert not back.ok
    assert "dropped by more than 0 allows" in back.reason


def exchanged(shelf):
    """The same versions with their places exchanged."""
    other = Shelf(*shelf.versions.values())
    other.aliases = {CHAMPION: 2, CHALLENGER: 1}
    return other


def test_required_parts(log):
    shelf = Shelf(version(1, 0.6), version(2, 0.7))
    asked = PromotionConfig(gates=GATES, required_parts=["test", "val"])
    shelf.set_alias("tpo", CHALLENGER, 1)
    test, val, *_ = promote(shelf, "tpo", asked, log).gates
    assert (test.ok, val.ok) == (True, False)
    assert "not evaluated: add val to evaluation.parts" in val.reason
    offer(shelf, 1, log)
    shelf.versions[2].tags["data_digest"] = "other"
    shelf.set_alias("tpo", CHALLENGER, 2)
    test, *_ = promote(shelf, "tpo", asked, log).gates
    assert (test.ok, test.reason) == (False, "on other data than champion v1: measure and register that one again")


def test_nothing_is_promoted_without_a_gate(log):
    shelf = Shelf(version(1, 0.6))
    shelf.set_alias("tpo", CHALLENGER, 1)
    with pytest.raises(TpoError, match="gates is empty"):
        promote(shelf, "tpo", PromotionConfig(), log)
    assert CHAMPION not in shelf.aliases
