"""The native files of the quick-start data, read back by the readers of the big datasets."""

import numpy as np
import pytest

from tpo_core.config.load import load_recipe
from tpo_core.config.schema import GeneratorConfig
from tpo_core.data import rle
from tpo_core.data.frame_reader import DecodeRequest, FrameReader
from tpo_core.data.quickstart.draw import render
from tpo_core.data.quickstart.world import FPS, N_FRAMES, sample_clip
from tpo_core.data.quickstart.write import encode_mp4, write_quickstart
from tpo_core.data.readers import READERS
from tpo_core.data.sample import Sample, answer_targets, prompt_boxes

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("quickstart")
    write_quickstart(
        GeneratorConfig(seed=3, train_clips=6, val_clips=2, test_clips=2, unseen_clips=2), root, lambda line: None
    )
    return root


@pytest.fixture(scope="module")
def samples(written):
    found: dict[str, list[Sample]] = {}
    for source in load_recipe("quickstart").data.sources:
        items = list(READERS[source.reader].read(str(written / source.root), source.split, source.options))
        assert all(isinstance(item, Sample) for item in items), f"{source.name}: {items}"
        found[source.name] = items
    return found


def clip_of(part: str, number: int):
    offset = {"train": 0, "val": 10_000_000, "test": 20_000_000, "unseen": 30_000_000}[part]
    return sample_clip("c", 3 * 1000 + offset + number, unseen=part == "unseen")


def test_every_source_of_the_recipe_is_read_without_a_reject(samples):
    assert all(samples.values())


def test_parts_share_no_clip(samples):
    media = {name: {sample.media[0].uri for sample in items} for name, items in samples.items() if "real" not in name}
    train, val = media["mevis-train"], media["mevis-val"]
    assert not train & val


def test_formats_of_one_clip_name_one_video(samples, written):
    uris = {
        sample.media[0].uri for name in ("mevis-train", "got10k-train", "captions-train") for sample in samples[name]
    }
    assert len(uris) == 6
    assert all((written / "train" / uri).exists() for uri in uris)


def test_talk_is_mostly_short_questions_about_every_clip(samples):
    """Long captions would crowd the answers out of the loss: they are rare. A question is asked alone, too."""
    assert [sample.media[0].uri[-17:-12] for sample in samples["captions-train"]] == ["00000", "00005"]
    talks = {sample.media[0].uri: [turn.text for turn in sample.turns] for sample in samples["conversations-train"]}
    assert len(talks) == 6
    alone = samples["questions-train"]
    assert {sample.media[0].uri for sample in alone} == set(talks)
    for sample in alone:
        question, answer = (turn.text for turn in sample.turns if turn.role != "system")
        talk = talks[sample.media[0].uri]
        assert talk[talk.index(question) + 1] == answer


def test_masks_come_back_as_they_were_drawn(samples):
    clip = clip_of("train", 0)
    _, masks = render(clip)
    mine = [sample for sample in samples["mevis-train"] if "train00000" in sample.media[0].uri]
    assert len(mine) == len(clip.things)
    for thing, sample in enumerate(mine):
        (target,) = answer_targets(sample)
        for entry in target.track:
            drawn = masks[thing, entry.frame]
            assert entry.visible == drawn.any()
            if entry.visible:
                assert np.array_equal(rle.decode(entry.rle), drawn)


def test_boxes_and_tracks_are_zero_based_and_tight(samples):
    _, masks = render(clip_of("train", 0))
    track = next(s for s in samples["got10k-train"] if "train00000" in s.media[0].uri)
    (target,) = answer_targets(track)
    ys, xs = np.nonzero(masks[0, 0])
    assert target.track[0].box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
    assert prompt_boxes(track)[0].box == target.track[0].box


def test_moments_are_the_events(samples):
    found = {
        (sample.media[0].uri, target.span_s)
        for name in ("charades-train", "qvhighlights-train")
        for sample in samples[name]
        for target in answer_targets(sample)
        if target.span_s
    }
    wanted = {
        (f"videos/train{number:05d}_0.0_1.5.mp4", event.span_s())
        for number in range(6)
        for event in clip_of("train", number).events
    }
    assert found == wanted


def test_videos_are_h264_with_every_frame(written, tmp_path):
    frames, _ = render(clip_of("train", 1))
    encode_mp4(tmp_path / "clip.mp4", frames, FPS)
    with FrameReader(deadline_s=30.0) as reader:
        media = reader.decode(
            DecodeRequest(str(tmp_path / "clip.mp4"), "video", n_frames=N_FRAMES, short_side_px=96, jpeg_quality=95)
        )
    assert (media.n_frames, round(media.fps)) == (N_FRAMES, FPS)
    assert not list(tmp_path.glob("*.partial"))
