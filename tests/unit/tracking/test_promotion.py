from dataclasses import replace

import pytest

from tests.unit.tracking.shelf import ASKED, GATES, POINTS, TALKS, Shelf, offer, version
from tpo_core.config.schema import GateConfig, PromotionConfig
from tpo_core.errors import TpoError
from tpo_core.tracking.promotion import CHALLENGER, CHAMPION, promote, rollback
from tpo_core.tracking.promotion_log import PromotionLog
from tpo_core.tracking.registry import VersionInfo


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


def test_a_version_without_metrics_is_refused(log):
    shelf = Shelf(version(1, 0.6), VersionInfo(2, {"fingerprint": "f2", "evaluation": "e"}, {}, None, ""))
    first = offer(shelf, 2, log)
    assert [(gate.ok, gate.reason) for gate in first.gates] == [(False, "challenger: not measured")] * 2
    offer(shelf, 1, log)
    assert not offer(shelf, 2, log).ok
    assert shelf.aliases[CHAMPION] == 1


@pytest.mark.parametrize(
    ("again", "change"),
    [((2,), {"metrics": {POINTS: 0.62, TALKS: 0.9}}), ((1, 2), {"tags": {"evaluation": "another"}})],
)
def test_a_champion_that_was_measured_again_is_judged_again(log, again, change):
    """Against the champion before it; what it is judged on now is in the log, and the lineage as it was."""
    shelf = Shelf(version(1, 0.6), version(2, 0.7))
    offer(shelf, 1, log)
    offer(shelf, 2, log)
    for number in again:
        measured_again(shelf, number, **change)
    told = []
    would = promote(shelf, "tpo", ASKED, log, dry_run=True, tell=told.append)
    assert (would.ok, would.moved, would.action, len(log.entries())) == (True, False, "confirm", 2)
    assert "champion v2 was measured again since it was judged" in told[0]
    result = promote(shelf, "tpo", ASKED, log, tell=told.append)
    assert (result.champion.version, [gate.reference for gate in result.gates]) == (1, [0.6, 0.9])
    assert log.entries()[2]["metrics"] == shelf.versions[2].metrics
    assert promote(shelf, "tpo", ASKED, log).gates == []
    assert rollback(shelf, "tpo", log) == (2, 1)


def test_a_champion_that_was_measured_again_and_fails_is_refused(log):
    shelf = Shelf(version(1, 0.6), version(2, 0.7))
    offer(shelf, 1, log)
    offer(shelf, 2, log)
    measured_again(shelf, 2, metrics={POINTS: 0.3, TALKS: 0.9})
    result = promote(shelf, "tpo", ASKED, log)
    assert (result.ok, result.moved, shelf.aliases[CHAMPION], len(log.entries())) == (False, False, 2, 2)
    assert rollback(shelf, "tpo", log) == (2, 1)


def test_a_champion_one_of_whose_numbers_is_nan_was_not_measured_again(log):
    shelf = Shelf(version(1, 0.6))
    shelf.versions[1].metrics["test/mask/j"] = float("nan")
    offer(shelf, 1, log)
    assert promote(shelf, "tpo", ASKED, log).gates == []


def measured_again(shelf, number, metrics=None, tags=None):
    old = shelf.versions[number]
    shelf.versions[number] = replace(old, metrics=metrics or old.metrics, tags=old.tags | (tags or {}))


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
    shelf.set_alias("tpo", CHALLENGER, 2)
    test, *_ = promote(shelf, "tpo", asked, log).gates
    assert (test.ok, test.reason) == (False, "no record of the data of v2 and v1: measure and register again")
    shelf.versions[1].tags["data_digest"] = "d"
    shelf.versions[2].tags["data_digest"] = "other"
    test, *_ = promote(shelf, "tpo", asked, log).gates
    assert (test.ok, test.reason) == (False, "on other data than champion v1: measure and register that one again")
    shelf.versions[2].tags["data_digest"] = "d"
    assert promote(shelf, "tpo", asked, log).gates[0].ok


def test_nothing_is_promoted_without_a_gate(log):
    shelf = Shelf(version(1, 0.6))
    shelf.set_alias("tpo", CHALLENGER, 1)
    with pytest.raises(TpoError, match="gates is empty"):
        promote(shelf, "tpo", PromotionConfig(), log)
    assert CHAMPION not in shelf.aliases
