"""Batches of a real shard set, samples and pixels: the same for any number of ranks and threads, from any step on."""

import hashlib
import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from tpo_core.config.schema import PhaseConfig
from tpo_core.data.loader import Loader
from tpo_core.data.record import Media, Provenance, Sample, Target, TrackEntry, Turn
from tpo_core.data.shards import ShardSet, write_manifest, write_media_index, write_media_shard, write_samples

STEPS = 4
WIDTH, HEIGHT, N_FRAMES = 16, 12, 3
SIZES = {"chat": 4, "mask": 4, "region": 8, "temporal": 4}
TASKS = {"region": "box", "temporal": "span", "mask": "track", "chat": "caption"}
AUGMENT = {"brightness": 0.3, "contrast": 0.3, "flip": 0.5}


def media_row(uri, kind, rng):
    count = 1 if kind == "image" else N_FRAMES
    frames = []
    for _ in range(count):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(file, "JPEG")
        frames.append(file.getvalue())
    return {
        "uri": uri, "kind": kind, "width": WIDTH, "height": HEIGHT, "stored_width": WIDTH, "stored_height": HEIGHT,
        "n_frames": count, "duration_s": float(count), "media_duration_s": float(count), "decoder": "none",
        "frame_index": list(range(count)), "frame_times_s": [k + 0.5 for k in range(count)], "frames": frames,
    }  # fmt: skip


def make_sample(kind, number, media):
    box = (1.0, 2.0, 5.0 + number % 9, 8.0)
    targets = {
        "region": (Target("box", box=box),),
        "temporal": (Target("span", span_s=(0.0, 1.0 + number % 2)),),
        "mask": (Target("track", track=tuple(TrackEntry(k, True, box=box) for k in range(N_FRAMES))),),
        "chat": (),
    }[kind]
    turns = (Turn("user", "Where?"), Turn("assistant", "There.", target_refs=tuple(range(len(targets)))))
    origin = Provenance(source_file="f", row=number, native_id=str(number), reader="r")
    return Sample(f"{kind}/{number}", "set", "train", TASKS[kind], (media,), turns, origin, targets=targets)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Six images and five videos; thirteen samples of each kind, so that no epoch ends with a micro-batch."""
    root, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    kinds = {f"m{k}": "image" if k < 6 else "video" for k in range(11)}
    rows = [media_row(uri, kind, rng) for uri, kind in kinds.items()]
    files = {"media/0.arrow": write_media_shard(root / "media/0.arrow", rows)}
    files |= write_media_index(root, [(uri, 0, k) for k, uri in enumerate(kinds)])
    samples = []
    for kind in SIZES:
        for number in range(13):
            uri = f"m{number % 6}" if kind == "region" else f"m{6 + number % 5}"
            samples.append(make_sample(kind, number, Media(uri, kinds[uri], WIDTH, HEIGHT)))
    files |= write_samples(root, "train", samples)
    write_manifest(root, {"files": files, "counts": {"train": {kind: {"set": 13} for kind in SIZES}}})
    return ShardSet.open(root)


def phase(**changes):
    return PhaseConfig.model_validate(
        {
            "name": "mix", "mixture": {"chat": 1, "mask": 1, "region": 2, "temporal": 4}, "steps": STEPS,
            "batch_size": 20, "micro_batch_size": 4, "micro_batch_sizes": {"region": 8}, "augment": AUGMENT, **changes,
        }
    )  # fmt: skip


def describe(examples):
    """What training sees of each example: its name, the digest of its pixels, its labels and what was changed."""
    return [
        (e.sample.sample_id, hashlib.sha256(e.frames_THWC.tobytes()).hexdigest(), e.sample.targets, e.change)
        for e in examples
    ]


def run(shards, config, *, rank=0, world=1, workers=0, first=0, seed=3):
    """(step, micro-batch, description of the examples, is the last of its step) of one rank, in order."""
    loader = Loader(shards, "train", config, seed=seed, rank=rank, world=world)
    with loader.prefetch(first, STEPS, describe, workers=workers) as batches:
        return [(each.step, each.micro, each.item, each.last) for each in batches]


@pytest.fixture(scope="module")
def straight(shards):
    """One rank, nothing ahead: what all others must equal."""
    return run(shards, phase())


@pytest.mark.parametrize("workers", [0, 1, 2, 4])
@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("per_media", [1, 3])
def test_batches_are_the_same_at_any_number_of_ranks_and_threads(shards, world, workers, per_media):
    config = phase(samples_per_media=per_media)
    expected = run(shards, config)
    ranks = [run(shards, config, rank=rank, world=world, workers=workers) for rank in range(world)]
    joined = [
        (*parts[0][:2], [e for part in parts for e in part[2]], parts[0][3]) for parts in zip(*ranks, strict=True)
    ]
    assert joined == expected
    for parts in zip(*ranks, strict=True):
        assert {part[1] for part in parts} == {parts[0][1]}, "all ranks know the same global micro-batch"
        assert {len(part[2]) for part in parts} == {len(parts[0][1].indices) // world}


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("first", range(STEPS + 1))
def test_a_run_resumed_at_any_step_equals_the_straight_one(shards, straight, first, workers):
    assert run(shards, phase(), first=first, workers=workers) == [each for each in straight if each[0] >= first]


def test_micro_batches_hold_one_kind_at_its_size(straight):
    for _, micro, examples, _ in straight:
        assert {name.split("/")[0] for name, *_ in examples} == {micro.kind}
        assert len(examples) == SIZES[micro.kind]
    assert {micro.kind for _, micro, _, _ in straight} == set(SIZES)


def test_kinds_come_by_weight_and_every_sample_before_any_comes_again(shards):
    loader = Loader(shards, "train", phase(), seed=3, rank=0, world=1)
    plans = [micro for step in range(200) for micro in loader.plan(step)]
    assert [micro.number for micro in plans] == list(range(1000))
    shares = Counter(micro.kind for micro in plans)
    assert shares == pytest.approx({"chat": 125, "mask": 125, "region": 250, "temporal": 500}, abs=4)
    for kind in SIZES:
        met = [index for micro in plans if micro.kind == kind for index in micro.indices]
        assert all(len(set(met[at : at + 13])) == 13 for at in range(0, len(met) - 12, 13))


def test_steps_end_where_the_plan_ends(straight):
    assert [(step, last) for step, _, _, last in straight] == [(s, k == 4) for s in range(STEPS) for k in range(5)]


def test_augmentation_changes_frames_and_not_the_order(shards, straight):
    plain = run(shards, phase(augment={}))
    assert [each[1] for each in plain] == [each[1] for each in straight]
    pairs = [pair for a, b in zip(plain, straight, strict=True) for pair in zip(a[2], b[2], strict=True)]
    assert all(before[0] == after[0] and before[1] != after[1] for before, after in pairs)
    flipped = {after[0].split("/")[0] for _, after in pairs if after[3].flip}
    assert flipped == {"region", "temporal"}
    assert all((before[2] != after[2]) == (after[3].flip and "region" in after[0]) for before, after in pairs)


def test_the_same_sample_is_changed_differently_when_it_comes_again(shards):
    drawn = [change for _, _, examples, _ in run(shards, phase(mixture={"mask": 1}, micro_batch_sizes={}))
             for name, _, _, change in examples if name == "mask/0"]  # fmt: skip
    assert len(drawn) == len(set(drawn)) > 3
    other = run(shards, phase(), seed=4)
    assert {e[3] for each in other for e in each[2]}.isdisjoint(drawn)


def test_samples_bundled_by_media_change_together(shards):
    """They share one pass through the vision tower, so their frames have to be the same."""
    config = phase(samples_per_media=4, mixture={"temporal": 1}, micro_batch_sizes={}, augment=AUGMENT)
    shared = 0
    for _, _, examples, _ in run(shards, config):
        number = [int(name.split("/")[1]) % 5 for name, *_ in examples]
        looks = {(media, pixels) for media, (_, pixels, _, _) in zip(number, examples, strict=True)}
        assert len(looks) == len(set(number))
        shared += len(number) - len(looks)
    assert shared > 20


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_sample_is_raised_where_it_would_have_come(shards, straight, workers, monkeypatch):
    victim = straight[7][2][0][0]
    place = next(k for k, each in enumerate(straight) if any(name == victim for name, *_ in each[2]))

    def prepare(examples):
        if any(example.sample.sample_id == victim for example in examples):
            raise ValueError(f"broken {victim}")
        return describe(examples)

    loader = Loader(shards, "train", phase(), seed=3, rank=0, world=1)
    with loader.prefetch(0, STEPS, prepare, workers=workers) as batches:
        assert [next(batches).item for _ in range(place)] == [each[2] for each in straight[:place]]
        with pytest.raises(ValueError, match=f"broken {victim}"):
            next(batches)
        assert list(batches) == []
