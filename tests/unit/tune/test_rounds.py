"""Orders and rounds, and the book that keeps them."""

from tests.unit.tune.made_sweep import made, measured
from tpo_core.tune.rounds import Book, Order, Place, Round

WEIGHTS = {"region": 1.0, "mask": 1.0}


def test_an_order_forks_where_it_goes_on_from_what_is_not_its_own():
    here = Place(trial="a", step=10, weights=WEIGHTS)
    assert not Order(trial="a", weights=WEIGHTS, step=40).forks
    assert not Order(trial="a", weights=dict(WEIGHTS), step=40, origin=here).forks
    assert Order(trial="b", weights=WEIGHTS, step=40, origin=here).forks
    assert Order(trial="a", weights={**WEIGHTS, "mask": 2.0}, step=40, origin=here).forks


def test_the_book_gives_back_what_answers_an_order_and_nothing_else(tmp_path):
    book = Book(str(tmp_path / "rounds"))
    first, second = made("a", 10, measured(0.1, 0.2, 0.3)), made("a", 40, measured(0.4, 0.5, 0.6))
    assert book.all() == []
    for one in (first, second, made("b", 10, {}, failed="total nan")):
        book.add(one)
    assert book.of("a") == [first, second]
    assert [one.trial for one in book.all()] == ["a", "a", "b"]
    assert book.find(Order(trial="a", weights=WEIGHTS, step=10)) == first
    at_first = Place(trial="a", step=10, weights=WEIGHTS)
    assert book.find(Order(trial="a", weights=WEIGHTS, step=40, origin=at_first)) == second
    assert book.find(Order(trial="a", weights=WEIGHTS, step=40)) is None
    assert book.find(Order(trial="a", weights={**WEIGHTS, "mask": 2.0}, step=10)) is None
    assert book.find(Order(trial="c", weights=WEIGHTS, step=10)) is None


def test_a_later_life_of_a_trial_is_kept_beside_the_earlier_one(tmp_path):
    book = Book(str(tmp_path))
    origin = Place(trial="b", step=10, weights=WEIGHTS)
    order = Order(trial="a", weights={"region": 2.0, "mask": 1.0}, step=40, origin=origin)
    forked = Round.of(
        order, metrics={}, failed=None, began_s=0.0, ended_s=1.0, training_s=0.0, measuring_s=0.0, workers=1
    )
    for one in (made("a", 40, measured(0.4, 0.5, 0.6)), forked):
        book.add(one)
    assert book.find(order) == forked
    assert len(book.of("a")) == 2
    assert forked.seconds == 1.0
