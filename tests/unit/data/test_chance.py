import numpy as np

from tpo_core.data.chance import entropy, fractions, raw_numbers


def test_numbers_are_pinned():
    """They decide the order of samples of every run there ever was."""
    assert entropy(0, "mix", "kinds") == 256632900315225088333616030248449881557
    assert raw_numbers(2, 0, "mix", "mask", 1).tolist() == [2938354806174932044, 7622931994633881476]
    assert fractions(2, 0, "mix", 3) == [0.43120889345140956, 0.6616675137843718]


def test_every_part_counts_and_so_does_its_place():
    drawn = {tuple(fractions(2, *parts)) for parts in [(0, "a", 1), (1, "a", 0), (0, "b", 1), (0, "a", 2), (0, "a")]}
    assert len(drawn) == 5


def test_fractions_are_even_over_the_unit_interval():
    drawn = np.array(fractions(4000, "even"))
    assert drawn.min() >= 0
    assert drawn.max() < 1
    assert np.abs(np.bincount((drawn * 4).astype(int)) - 1000).max() < 120
