"""The order of samples: pure, complete, in proportion, and the same at any number of ranks."""

from collections import Counter

import numpy as np
import pytest

from tpo_core.config.schema import PhaseConfig
from tpo_core.data.example import load_example
from tpo_core.data.loader import Loader, MicroBatch, bundles, steps_for
from tpo_core.data.record import Media, Provenance, Sample, Target, Turn
from tpo_core.errors import TpoError

SIZES = {"chat": 50, "mask": 7, "region": 30, "temporal": 24}


class Table:
    """Stands in for SampleTable: sample i is its number."""

    def __init__(self, sizes):
        kinds = np.array([kind for k in range(max(sizes.values())) for kind, n in sizes.items() if k < n])
        self.kind_index = {kind: np.flatnonzero(kinds == kind) for kind in sizes}
        self.media_numbers = np.arange(len(kinds)) % 9

    def __getitem__(self, index):
        return index

    def members(self, datasets):
        """Every seven samples belong to another of two data sets."""
        halves = {"even": 0, "odd": 1}
        kept = {halves[name] for name in datasets or halves}
        return {kind: index[np.isin(index // 7 % 2, list(kept))] for kind, index in self.kind_index.items()}


class Shards:
    def __init__(self, sizes=SIZES):
        self.table = Table(sizes)

    def samples(self, part):
        assert part == "train"
        return self.table


@pytest.fixture(autouse=True)
def numbers_as_examples(monkeypatch):
    monkeypatch.setattr("tpo_core.data.loader.load_example", lambda shards, sample, draw: sample)


def phase(name="all", *, batch=24, micro=4, steps=100, epochs=None, per_media=1, **mixture):
    mixture = mixture or {"chat": 1.0, "mask": 1.0, "region": 2.0, "temporal": 4.0}
    if epochs is not None:
        steps = None
    return PhaseConfig(
        name=name,
        mixture=mixture,
        steps=steps,
        epochs=epochs,
        batch_size=batch,
        micro_batch_size=micro,
        samples_per_media=per_media,
    )


def loader(config=None, *, seed=0, rank=0, world=1, sizes=SIZES):
    return Loader(Shards(sizes), "train", config or phase(), seed=seed, rank=rank, world=world)


def test_the_order_is_the_same_at_any_number_of_ranks():
    plans = {world: [loader(rank=world - 1, world=world).plan(step) for step in range(5)] for world in (1, 2, 4)}
    assert plans[1] == plans[2] == plans[4]
    for micro in plans[1][0]:
        shares = [loader(rank=rank, world=4).examples(micro) for rank in range(4)]
        assert all(len(share) == 1 for share in shares)
        assert sorted(index for share in shares for index in share) == sorted(micro.indices)


def test_ranks_that_do_not_divide_a_micro_batch_share_it_unevenly():
    for micro in loader().plan(0):
        shares = [loader(rank=rank, world=3).examples(micro) for rank in range(3)]
        assert [len(share) for share in shares] == [1, 1, 2]
        assert sorted(index for share in shares for index in share) == sorted(micro.indices)


def test_what_heads_draw_is_of_the_sample_and_its_micro_batch_and_not_of_the_rank(monkeypatch):
    monkeypatch.setattr("tpo_core.data.loader.load_example", lambda shards, sample, draw: (sample, draw))
    alone = {micro.number: loader().examples(micro) for step in range(8) for micro in loader().plan(step)}
    for micro in loader().plan(0):
        shares = [loader(rank=rank, world=3).examples(micro) for rank in range(3)]
        assert [pair for share in shares for pair in share] == alone[micro.number]
    drawn = [draw for pairs in alone.values() for _, draw in pairs]
    assert len(set(drawn)) == len(drawn), "a sample that comes again draws anew"


def test_a_phase_may_draw_from_some_data_sets_alone():
    config = phase(steps=50)
    half = loader(config.model_copy(update={"datasets": ["even"]}))
    drawn = {index for step in range(50) for micro in half.plan(step) for index in micro.indices}
    assert {index // 7 % 2 for index in drawn} == {0}
    both = loader(config.model_copy(update={"datasets": ["even", "odd"]}))
    assert [both.plan(step) for step in range(5)] == [loader(config).plan(step) for step in range(5)]


def test_a_plan_depends_on_nothing_but_its_arguments():
    one, other = loader(), loader()
    later = [one.plan(step) for step in (3000, 2, 700)]
    assert later == [other.plan(step) for step in (3000, 2, 700)]
    assert [other.plan(step) for step in (2, 700, 3000)] == [later[1], later[2], later[0]]


def test_seed_and_phase_change_the_order():
    plans = [loader(seed=0).plan(0), loader(seed=1).plan(0), loader(phase("other")).plan(0)]
    assert plans[0] != plans[1] != plans[2] != plans[0]


def test_the_first_plan_is_pinned():
    assert loader().plan(0)[:2] == [
        MicroBatch(0, "region", (84, 88, 68, 6)),
        MicroBatch(1, "chat", (73, 28, 8, 43)),
    ]


def test_a_kind_with_a_size_of_its_own_walks_its_samples_in_larger_strides():
    wide = phase().model_copy(update={"micro_batch_sizes": {"region": 10}})
    plans = [micro for step in range(40) for micro in loader(wide).plan(step)]
    assert {(micro.kind, len(micro.indices)) for micro in plans} == {
        ("region", 10), ("chat", 4), ("mask", 4), ("temporal", 4),
    }  # fmt: skip
    met = [index for micro in plans if micro.kind == "region" for index in micro.indices]
    assert all(len(set(met[at : at + 30])) == 30 for at in range(0, len(met) - 29, 30)), "epochs of all 30 samples"


def test_every_micro_batch_holds_one_kind():
    subject = loader()
    for step in range(20):
        plan = subject.plan(step)
        assert len(plan) == 6
        for micro in plan:
            assert set(micro.indices) <= set(subject.samples.kind_index[micro.kind].tolist())


def test_every_sample_comes_once_an_epoch():
    subject = loader(phase(mask=1.0, batch=4))
    order = [index for step in range(14) for micro in subject.plan(step) for index in micro.indices]
    members = sorted(subject.samples.kind_index["mask"].tolist())
    epochs = [order[first : first + 7] for first in range(0, 56, 7)]
    assert all(sorted(epoch) == members for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_samples_of_one_media_come_together_and_still_once_an_epoch():
    config = phase(region=1.0, micro=6, batch=6, per_media=2)
    subject = loader(config)
    order = [index for step in range(10) for micro in subject.plan(step) for index in micro.indices]
    members = sorted(subject.samples.kind_index["region"].tolist())
    assert [sorted(order[first : first + 30]) for first in (0, 30)] == [members, members]
    assert order[:30] != order[30:]
    media = subject.samples.media_numbers[order]
    neighbours = np.count_nonzero(np.diff(media) == 0)
    assert neighbours >= 2 * 9, "in each epoch each of the nine media has a pair"
    shares = [loader(config, rank=rank, world=3).examples(subject.plan(0)[0]) for rank in range(3)]
    assert [index for share in shares for index in share] == list(subject.plan(0)[0].indices)


def test_a_bundle_holds_one_media_and_no_more_than_asked():
    media = np.array([5, 6, 5, 5, 6, 7])

    def runs(members, most):
        ordered, starts = bundles(np.array(members), media, most)
        return [run.tolist() for run in np.split(ordered, starts[1:])]

    assert runs([0, 1, 2, 3, 4, 5], 2) == [[0, 2], [3], [1, 4], [5]]
    assert runs([3, 1], 1) == [[3], [1]]


def test_kinds_come_in_the_proportions_of_the_mixture_at_every_length():
    subject = loader()
    kinds = [micro.kind for step in range(1500) for micro in subject.plan(step)]
    assert len(kinds) > 2 * 4096
    for length in (24, 240, len(kinds)):
        counts = Counter(kinds[:length])
        for kind, share in {"chat": 1 / 8, "mask": 1 / 8, "region": 2 / 8, "temporal": 4 / 8}.items():
            assert counts[kind] == pytest.approx(share * length, abs=4)


def test_a_kind_without_samples_is_refused():
    with pytest.raises(TpoError, match=r"names 'mask' but the data has no such samples \(it has region\)"):
        loader(phase(mask=1.0, region=1.0), sizes={"region": 5})


def test_a_micro_batch_has_a_sample_for_every_rank():
    with pytest.raises(TpoError, match="a micro-batch of 4 chat samples leaves some of 5 workers without any"):
        loader(rank=0, world=5)


def test_steps_are_given_or_follow_from_epochs():
    assert steps_for(phase(steps=17), SIZES) == 17
    assert steps_for(phase(epochs=2.0, region=1.0, temporal=1.0), SIZES) == 5  # ceil(2 * 54 / 24)
    assert loader(phase(epochs=1.0)).steps == 5  # ceil(111 / 24)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_prefetching_gives_the_plan_in_order(workers):
    subject = loader()
    with subject.prefetch(3, 6, sum, workers=workers) as batches:
        got = list(batches)
    expected = [(step, micro) for step in range(3, 6) for micro in subject.plan(step)]
    assert [(item.step, item.micro) for item in got] == expected
    assert [item.item for item in got] == [sum(micro.indices) for _, micro in expected]
    assert [item.last for item in got] == ([False] * 5 + [True]) * 3


class Film:
    """A stored video of four of its frames; every pixel of frame k is k."""

    width, height, duration_s = 4, 2, 3.0
    frame_index = np.array([0, 10, 20, 30])
    times_s = np.array([0.0, 1.0, 2.0, 3.0])
    features_SD = None

    def frames_THWC(self, rows):
        return np.tile(self.frame_index[rows].astype(np.uint8)[:, None, None, None], (1, 2, 4, 3))


class FilmShards:
    def media(self, uri):
        assert uri == "film"
        return Film()


def boxed(frame):
    answer = Turn("assistant", "Answer: <box_begin><boxes> .", target_refs=(0,))
    return Sample(
        sample_id="s", dataset="d", split="train", task="box", media=(Media("film", "video"),),
        turns=(Turn("user", "Where?"), answer), targets=(Target("box", box=(0, 0, 1, 1), frame=frame),),
        provenance=Provenance(source_file="f", row=0, native_id="n", reader="r"),
    )  # fmt: skip


def test_a_box_on_one_frame_of_a_video_comes_with_that_frame_alone():
    example = load_example(FilmShards(), boxed(20))
    assert (example.frame_index.tolist(), example.times_s.tolist()) == ([20], [2.0])
    assert example.frames_THWC.shape == (1, 2, 4, 3)
    assert (example.frames_THWC == 20).all()


def test_a_box_without_a_frame_comes_with_all_that_is_stored():
    assert load_example(FilmShards(), boxed(None)).frame_index.tolist() == [0, 10, 20, 30]
