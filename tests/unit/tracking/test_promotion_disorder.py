"""Promotion where log and alias differ: moves cut off, versions deleted, aliases moved by hand, two runs at once."""

import pytest

from tests.unit.tracking.shelf import ASKED, Shelf, offer, version
from tpo_core.errors import TpoError
from tpo_core.tracking.promotion import CHALLENGER, CHAMPION, promote, rollback
from tpo_core.tracking.promotion_log import PromotionLog

BY_HAND = "alias champion was moved by hand to v{}, the log says {}: --rollback puts it back"


@pytest.fixture
def told():
    return []


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


def test_a_promotion_that_died_before_the_alias_moved_is_told_and_finished(log, told, monkeypatch):
    shelf = Shelf(version(1, 0.6), version(2, 0.7), version(3, 0.1))
    offer(shelf, 1, log)
    with monkeypatch.context() as away:
        shelf.set_alias("tpo", CHALLENGER, 2)
        away.setattr(Shelf, "set_alias", broken)
        with pytest.raises(ConnectionError):
            promote(shelf, "tpo", ASKED, log)
    assert shelf.aliases[CHAMPION] == 1
    shelf.set_alias("tpo", CHALLENGER, 3)
    promote(shelf, "tpo", ASKED, log, dry_run=True, tell=told.append)
    assert shelf.aliases[CHAMPION] == 1
    result = promote(shelf, "tpo", ASKED, log, tell=told.append)
    assert told == [
        "a promote to v2 was cut off: the next run finishes it",
        "a promote to v2 was cut off: it is finished now",
    ]
    assert (result.ok, result.champion.version, shelf.aliases[CHAMPION]) == (False, 2, 2)
    assert [entry["done"] for entry in log.entries()] == [True, True]


def test_an_alias_that_was_moved_by_hand_is_told_and_no_yardstick(log, told):
    shelf = Shelf(version(1, 0.6), version(2, 0.1), version(3, 0.5))
    offer(shelf, 1, log)
    shelf.set_alias("tpo", CHAMPION, 2)
    result = offer(shelf, 3, log, tell=told.append)
    assert told == [BY_HAND.format(2, "v1")]
    assert (result.ok, result.champion.version) == (False, 1)  # better than 2, which never passed
    assert rollback(shelf, "tpo", log) == (2, 1)
    assert shelf.aliases[CHAMPION] == 1
    told.clear()
    offer(shelf, 3, log, tell=told.append)
    assert told == []


def test_a_challenger_that_was_made_champion_by_hand_is_judged_all_the_same(log, told):
    shelf = Shelf(version(1, 0.6), version(2, 0.1))
    offer(shelf, 1, log)
    shelf.set_alias("tpo", CHAMPION, 2)
    result = offer(shelf, 2, log, tell=told.append)
    assert (result.ok, result.moved, len(told)) == (False, False, 1)
    first = Shelf(version(7, 0.6, talks=0.1))
    first.set_alias("tpo", CHAMPION, 7)
    assert not offer(first, 7, PromotionLog(f"{log.uri}-of-another")).ok


def test_an_alias_by_hand_is_no_yardstick_where_everything_was_rolled_back_and_goes_away(log, told):
    shelf = Shelf(version(1, 0.6), version(2, 0.9), version(3, 0.7))
    offer(shelf, 1, log)
    rollback(shelf, "tpo", log)
    shelf.set_alias("tpo", CHAMPION, 2)
    result = offer(shelf, 3, log, dry_run=True, tell=told.append)
    assert (result.ok, result.champion) == (True, None)
    assert told == [BY_HAND.format(2, "nothing")]
    assert rollback(shelf, "tpo", log) == (2, None)
    assert CHAMPION not in shelf.aliases
    assert [(entry["action"], entry["from"], entry["to"]) for entry in log.entries()[2:]] == [("rollback", 2, None)]
    with pytest.raises(TpoError, match="no promotion of 'tpo' to undo"):
        rollback(shelf, "tpo", log)


def test_where_the_log_is_empty_an_alias_by_hand_is_the_yardstick_and_nothing_promises_to_undo_it(log, told):
    shelf = Shelf(version(1, 0.6), version(2, 0.5))
    shelf.set_alias("tpo", CHAMPION, 1)
    result = offer(shelf, 2, log, tell=told.append)
    assert (result.ok, result.champion.version) == (False, 1)
    (note,) = told
    assert "set to v1 by hand" in note
    assert "--rollback" not in note
    with pytest.raises(TpoError, match="no promotion of 'tpo' to undo"):
        rollback(shelf, "tpo", log, tell=told.append)
    assert (told, shelf.aliases[CHAMPION]) == ([note, note], 1)


def test_the_alias_goes_back_to_a_champion_that_is_the_challenger_and_the_lineage_stays(log):
    shelf = Shelf(version(1, 0.6), version(2, 0.7))
    offer(shelf, 1, log)
    offer(shelf, 2, log)
    shelf.set_alias("tpo", CHAMPION, 1)
    would = promote(shelf, "tpo", ASKED, log, dry_run=True)
    assert (would.action, would.moved, shelf.aliases[CHAMPION]) == ("rollback", False, 1)
    result = promote(shelf, "tpo", ASKED, log)
    assert (result.gates, result.moved, shelf.aliases[CHAMPION]) == ([], True, 2)
    assert rollback(shelf, "tpo", log) == (2, 1)
    assert shelf.aliases[CHAMPION] == 1


def test_disorder_is_told_before_anything_raises(log, told):
    shelf = Shelf(version(1, 0.6), version(2, 0.7))
    offer(shelf, 1, log)
    shelf.set_alias("tpo", CHAMPION, 2)
    shelf.delete_alias("tpo", CHALLENGER)
    with pytest.raises(TpoError, match="has no challenger"):
        promote(shelf, "tpo", ASKED, log, tell=told.append)
    rollback(shelf, "tpo", log, tell=told.append)
    assert told == [BY_HAND.format(2, "v1")] * 2


def test_a_deleted_champion_and_an_alias_by_hand_are_both_told(log, told):
    shelf = Shelf(*(version(number, 0.5 + number / 10) for number in (1, 2, 3)))
    offer(shelf, 1, log)
    offer(shelf, 2, log)
    del shelf.versions[2]
    shelf.set_alias("tpo", CHAMPION, 3)
    offer(shelf, 3, log, dry_run=True, tell=told.append)
    assert told == ["champion v2 was deleted: v1 stands in for it", BY_HAND.format(3, "v1")]


def test_an_alias_that_was_taken_away_by_hand_comes_back(log):
    shelf = Shelf(version(1, 0.6))
    offer(shelf, 1, log)
    shelf.delete_alias("tpo", CHAMPION)
    assert rollback(shelf, "tpo", log) == (None, 1)
    assert shelf.aliases[CHAMPION] == 1


def test_a_champion_that_was_deleted_is_told_and_the_one_before_it_judges(log, told):
    shelf = Shelf(version(1, 0.6), version(2, 0.7), version(3, 0.5), version(4, 0.65))
    offer(shelf, 1, log)
    offer(shelf, 2, log)
    del shelf.versions[2]
    refused = offer(shelf, 3, log, tell=told.append)
    assert told == ["champion v2 was deleted: v1 stands in for it"]
    assert (refused.ok, refused.champion.version) == (False, 1)
    assert rollback(shelf, "tpo", log) == (None, 1)
    assert offer(shelf, 4, log).ok
    assert shelf.aliases[CHAMPION] == 4
    assert rollback(shelf, "tpo", log) == (4, 1)


def test_another_model_under_the_number_of_a_deleted_one_is_not_that_one(log, told):
    """MLflow counts from 1 again after a registered model was deleted."""
    shelf = Shelf(version(1, 0.6), version(2, 0.7))
    offer(shelf, 1, log)
    offer(shelf, 2, log)
    shelf.versions[1] = version(1, 0.1, fingerprint="another")
    assert rollback(shelf, "tpo", log) == (2, None)
    assert CHAMPION not in shelf.aliases
    shelf.set_alias("tpo", CHAMPION, 1)
    result = offer(shelf, 1, log, dry_run=True, tell=told.append)
    assert (result.champion, len(result.gates)) == (None, 2)
    assert told == [BY_HAND.format(1, "nothing")]


def test_a_move_that_was_cut_off_does_not_go_to_another_model_of_that_number(log, told, monkeypatch):
    shelf = Shelf(version(1, 0.6), version(2, 0.7))
    offer(shelf, 1, log)
    with monkeypatch.context() as away:
        away.setattr(Shelf, "set_alias", broken)
        shelf.aliases[CHALLENGER] = 2
        with pytest.raises(ConnectionError):
            promote(shelf, "tpo", ASKED, log)
    shelf.versions[2] = version(2, 0.1, fingerprint="another")
    result = promote(shelf, "tpo", ASKED, log, tell=told.append)
    assert (result.ok, result.champion.version, shelf.aliases[CHAMPION]) == (False, 1, 1)
    assert told == [
        "a promote to v2 was cut off, and v2 was deleted since: the alias stays where it is",
        "champion v2 was deleted: v1 stands in for it",
    ]


def test_a_champion_that_was_registered_anew_under_its_number_was_deleted(log, told):
    shelf = Shelf(version(1, 0.6))
    offer(shelf, 1, log)
    shelf.versions[1] = version(1, 0.6, talks=0.1, fingerprint="another")
    result = offer(shelf, 1, log, tell=told.append)
    assert (result.ok, result.champion, len(result.gates)) == (False, None, 2)
    assert told == ["champion v1 was deleted: nothing stands in for it", BY_HAND.format(1, "nothing")]
    assert rollback(shelf, "tpo", log) == (1, None)
    assert CHAMPION not in shelf.aliases


def test_a_challenger_that_is_deleted_before_the_alias_moves_was_not_promoted(log, monkeypatch):
    shelf = Shelf(version(1, 0.6), version(2, 0.7), version(3, 0.65))
    offer(shelf, 1, log)
    append = PromotionLog.append

    def deleted_then(self, entry, after):
        del shelf.versions[2]
        return append(self, entry, after)

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(PromotionLog, "append", deleted_then)
        with pytest.raises(TpoError, match="v2 was deleted meanwhile: alias champion was not moved to it"):
            offer(shelf, 2, log)
    assert shelf.aliases[CHAMPION] == 1
    assert rollback(shelf, "tpo", log) == (1, 1)
    assert offer(shelf, 3, log).champion.version == 1
    assert rollback(shelf, "tpo", log) == (3, 1)


def test_of_two_runs_at_once_the_newest_entry_wins(log, monkeypatch):
    """The first has written its entry when the second finishes that one and promotes another version."""
    shelf = Shelf(version(1, 0.6), version(2, 0.7), version(3, 0.8))
    offer(shelf, 1, log)
    set_alias, between = Shelf.set_alias, []

    def second_first(self, name, alias, number):
        if (alias, number, between) == (CHAMPION, 2, []):
            between.append(number)
            offer(shelf, 3, log)
        set_alias(self, name, alias, number)

    monkeypatch.setattr(Shelf, "set_alias", second_first)
    with pytest.raises(TpoError, match="another run has moved alias champion to v3 meanwhile"):
        offer(shelf, 2, log)
    assert shelf.aliases[CHAMPION] == 3
    assert [entry["to"] for entry in log.entries()] == [1, 2, 3]
