"""Samples and media of a recipe, before they are there."""

from types import SimpleNamespace

import pytest

from tpo_core.config.load import load_recipe
from tpo_core.config.schema import DataConfig, FramesConfig, PhaseConfig
from tpo_core.errors import TpoError
from tpo_core.plan.assumptions import Assumptions, assume
from tpo_core.plan.facts import DATA_SETS, DataSet
from tpo_core.plan.pool import Pool, limited, parse_data_sets
from tpo_core.train.stages import phases_of

ONE_EPOCH = {"name": "p", "epochs": 1, "batch_size": 4, "micro_batch_size": 4}


def data(*sources):
    rows = [{"name": f"s{place}", "root": "/data", "split": "train", **row} for place, row in enumerate(sources)]
    return DataConfig(sources=rows)


def phase(mixture, **more):
    return PhaseConfig(mixture=mixture, **{**ONE_EPOCH, **more})


def test_counts_are_those_of_the_data_sets_of_the_phase():
    pool = Pool(load_recipe("videochat_tpo").data, {}, None)
    refs = {ref.name: ref.phase for ref in phases_of(load_recipe("videochat_tpo"))}
    regions = pool.counts(refs["vision_task.region"], "region")
    names = ("refcoco", "refcoco+", "refcocog")
    assert regions == {"region": 200_000 + 200_000 + sum(DATA_SETS[name].samples for name in names)}
    assert pool.unknown == []
    assert set(pool.counts(refs["multitask.conversation"], "c")) == {"temporal", "region", "mask", "chat"}


def test_evaluation_sources_are_not_trained_on():
    both = data(
        {"reader": "didemo", "part": "train"},
        {"reader": "charades_sta", "part": "test"},
    )
    assert list(Pool(both, {}, None).data_sets) == ["didemo"]


def test_limits_and_steps_of_a_source():
    full = DataSet("region", 1001, 500)
    source = data({"reader": "refcoco", "part": "train", "step": 10, "limit": 90}).sources[0]
    assert limited(full, source).samples == 90
    assert limited(full, source).media == 90
    assert limited(full, source.model_copy(update={"limit": None})).samples == 101


def test_an_unknown_size_matters_to_epochs_alone():
    own = data({"reader": "llava", "part": "train", "options": {"dataset": "mine"}})
    pool = Pool(own, {}, None)
    assert pool.unknown == ["mine"]
    with pytest.raises(TpoError, match=r"phase x counts epochs over 'mine'.*--data-set mine=KIND.*--shards URI"):
        pool.counts(phase({"chat": 1}), "x")
    assert pool.counts(phase({"chat": 1}, epochs=None, steps=5), "x") == {"chat": 1}
    given = Pool(own, parse_data_sets(["mine=chat,700"]), None)
    assert given.counts(phase({"chat": 1}), "x") == {"chat": 700}
    assert given.unknown == []


def test_a_shard_set_knows_best():
    shards = SimpleNamespace(counts=lambda part, datasets: {"chat": len(datasets), "mask": 7})
    pool = Pool(data({"reader": "llava", "part": "train", "options": {"dataset": "mine"}}), {}, shards)
    assert pool.counts(phase({"chat": 1}, datasets=["mine"]), "x") == {"chat": 1, "mask": 7}


def test_rendered_data_holds_its_clips():
    recipe = load_recipe("quickstart")
    pool = Pool(recipe.data, {}, None)
    assert pool.counts(phase({"region": 1, "chat": 1}), "x") == {"region": 2000, "chat": 2000}
    assert pool.decoding(recipe.data.frames, Assumptions()).media == 0


def test_images_show_one_frame_and_videos_all():
    mixed = Pool(
        data({"reader": "llava", "part": "train", "options": {"dataset": "sharegpt4v"}}),
        {"film": DataSet("chat", 140_000, 10, 20.0, 480)},
        None,
    )
    frames = mixed.frames_of(phase({"chat": 1}), "chat", 16)
    assert frames == {1: 0.75, 16: 0.25}
    assert mixed.frames_of(phase({"region": 1}), "region", 16) == {1: 1.0}
    assert mixed.frames_of(phase({"mask": 1}), "mask", 16) == {16: 1.0}


def test_decoding_walks_between_keyframes_but_not_beyond_the_film():
    assumed = Assumptions(
        decode_mpx_per_core_s=1.0, jpeg_mpx_per_core_s=1.0, jpeg_bytes_per_px=0.5, aspect=1.0, keyframe_gap_frames=10
    )
    frames = FramesConfig(n_frames=4, short_side_px=100)
    none = data({"reader": "charades_sta", "part": "test"})
    long = Pool(none, {"v": DataSet("chat", 9, 3, 60.0, 1000)}, None).decoding(frames, assumed)
    assert long.core_hours == pytest.approx(3 * (4 * 5 * 1.0 + 4 * 0.01) / 3600)
    assert long.stored_bytes == pytest.approx(3 * 4 * 100 * 100 * 0.5)
    brief = Pool(none, {"v": DataSet("chat", 9, 3, 0.1, 1000)}, None).decoding(frames, assumed)
    assert brief.core_hours == pytest.approx(3 * (3 * 1.0 + 4 * 0.01) / 3600)
    image = Pool(none, {"v": DataSet("chat", 9, 3, 0.0, 1000)}, None).decoding(frames, assumed)
    assert image.stored_bytes == pytest.approx(3 * 100 * 100 * 0.5)
    assert image.media == 3


def test_a_data_set_on_the_command_line():
    assert parse_data_sets(["a=temporal,12000,3000,60,720"]) == {"a": DataSet("temporal", 12_000, 3_000, 60.0, 720)}
    assert parse_data_sets(["a=region,12"]) == {"a": DataSet("region", 12, 12)}


@pytest.mark.parametrize("text", ["a", "a=", "a=region", "a=region,x", "a=region,0", "a=region,1,2,3,4,5", "a=chat,-1"])
def test_a_data_set_that_is_none(text):
    with pytest.raises(TpoError, match=r"--data-set '.*': write it as NAME=KIND,SAMPLES"):
        parse_data_sets([text])


def test_a_kind_that_is_none():
    with pytest.raises(TpoError, match=r"unknown kind 'regoin'.*region"):
        parse_data_sets(["a=regoin,1"])


def test_assumptions_are_checked():
    assert assume(["mfu=0.5", "gpu_hour_usd=3"]).mfu == 0.5
    with pytest.raises(TpoError, match=r"--assume: unknown key 'mfo'.*mfu"):
        assume(["mfo=0.5"])
    with pytest.raises(TpoError, match=r"mfu = 2: must be > 0 and <= 1"):
        assume(["mfu=2"])
    with pytest.raises(TpoError, match=r"write it as KEY=VALUE"):
        assume(["mfu"])
