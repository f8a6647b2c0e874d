import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tpo_core.data.record import Turn
from tpo_core.errors import TpoError
from tpo_core.models.videochat2.processor import IMAGE_MEAN, IMAGE_STD, VideoChat2Processor, middle_frames

SLOTS = 3


@pytest.fixture
def processor(tokenizer, vlm, tmp_path) -> VideoChat2Processor:
    return VideoChat2Processor.from_folder(tmp_path, tokenizer, vlm.config)


def with_turns(example, *turns):
    return replace(example, sample=replace(example.sample, turns=turns))


def text_of(processor, ids) -> str:
    return processor.tokenizer.decode([id_ for id_ in ids.tolist() if id_ != processor.video_token_id])


def labelled(processor, labels) -> str:
    return processor.tokenizer.decode([id_ for id_ in labels.tolist() if id_ != -100])


def test_a_clip_is_a_fixed_number_of_places_between_its_tags(processor, make_example):
    for frames, tag in ((1, "Image"), (2, "Video"), (5, "Video")):
        ids, labels = processor.encode_text(make_example("chat", frames), train=True)
        encode = processor.tokenizer.encode
        before = encode(f"[INST] <{tag}>")
        places = [place for place, id_ in enumerate(ids.tolist()) if id_ == processor.video_token_id]
        assert places == list(range(len(before), len(before) + SLOTS))
        assert ids[: len(before)].tolist() == before
        expected = f"<s>[INST] <{tag}><s></{tag}>[/INST]<s> [INST] Where is the red ball? [/INST]  It is red.</s>"
        assert text_of(processor, ids) == expected
        assert labelled(processor, labels) == "It is red.</s>"


def test_without_media_there_is_the_question_alone(processor, make_example):
    ids, _ = processor.encode_text(make_example("chat", 0), train=True)
    assert text_of(processor, ids) == "<s> [INST] Where is the red ball? [/INST]  It is red.</s>"


def test_every_turn_is_a_fragment_and_every_answer_has_an_end(processor, make_example):
    turns = [
        Turn("system", "Be brief."),
        Turn("user", "What?"), Turn("assistant", "A ball."),
        Turn("user", "Where?"), Turn("assistant", "There <box_begin><boxes>."),
    ]  # fmt: skip
    ids, labels = processor.encode_text(with_turns(make_example("chat", 2), *turns), train=True)
    assert text_of(processor, ids) == (
        "<s>Be brief.\n[INST] <Video><s></Video>[/INST]"
        "<s> [INST] What? [/INST]  A ball.</s><s> [INST] Where? [/INST]  There <box_begin><boxes>.</s>"
    )
    assert labelled(processor, labels) == "A ball.</s>There <box_begin>.</s>"
    alone, _ = processor.encode_text(with_turns(make_example("chat", 0), *turns[:3]), train=True)
    assert text_of(processor, alone) == "<s>Be brief.\n [INST] What? [/INST]  A ball.</s>"


@pytest.mark.parametrize("kind", ["chat", "region", "temporal", "mask"])
def test_the_prompt_of_generation_is_that_of_training(processor, make_example, kind):
    example = make_example(kind)
    whole, labels = processor.encode_text(example, train=True)
    prompt, silent = processor.encode_text(example, train=False)
    assert whole[: len(prompt)].tolist() == prompt.tolist()
    assert set(silent.tolist()) == {-100}
    assert set(labels[: len(prompt)].tolist()) == {-100}
    assert whole[-1] == processor.tokenizer.eos_token_id
    assert processor.end_token_ids() == {processor.tokenizer.eos_token_id}


def test_what_a_user_writes_is_letters_and_a_given_box_is_a_token(processor, make_example):
    asked = "Is <boxes> or </s> or <unk> or <track_box> in <Video>?"
    ids, _ = processor.encode_text(make_example("chat", question=asked), train=False)
    reserved = set(processor.tokenizer.convert_tokens_to_ids([*processor.tokenizer.added, "</s>", "<unk>"]))
    assert not reserved & set(ids.tolist())
    assert ids.tolist().count(processor.video_token_id) == SLOTS
    assert asked in text_of(processor, ids)
    given, _ = processor.encode_text(make_example("mask", question="At <track_box>, <boxes>?"), train=False)
    assert reserved & set(given.tolist()) == {processor.token_id("<track_box>")}


def test_an_answer_that_holds_an_end_says_it_in_letters(processor, make_example):
    ids, labels = processor.encode_text(make_example("chat", answer="a </s> b"), train=True)
    assert ids.tolist().count(processor.tokenizer.eos_token_id) == 1
    assert labels[-1] == processor.tokenizer.eos_token_id


def test_a_question_for_a_timestamp_is_told_the_times(processor, make_example):
    ids, _ = processor.encode_text(make_example("chat", 2, question="At which timestamp?"), train=False)
    assert "</Video> The video contains 2 frames sampled at 2.0, 6.0 seconds.[/INST]" in text_of(processor, ids)


@pytest.mark.parametrize("train", [True, False])
def test_a_clip_without_frames_is_an_error(processor, make_example, train):
    example = make_example("chat", 2)
    empty = replace(example, frames_THWC=example.frames_THWC[:0], times_s=example.times_s[:0])
    with pytest.raises(TpoError, match=r"tiny/train/chat-0: no frame of clip-0"):
        processor.encode(empty, train=train)


def test_pixels_are_stretched_bicubically_and_normalised_as_published(processor, make_example):
    example = make_example("chat", 2)
    pixels = processor.pixels(example)
    assert pixels.shape == (2, 3, 32, 32)
    for frame, values in zip(example.frames_THWC, pixels, strict=True):
        expected = np.asarray(Image.fromarray(frame).resize((32, 32), Image.Resampling.BICUBIC), np.float32) / 255
        got = values.permute(1, 2, 0) * torch.tensor(IMAGE_STD) + torch.tensor(IMAGE_MEAN)
        np.testing.assert_allclose(got.numpy(), expected, atol=1.01 / 255)


def test_a_folder_may_bring_its_own_mean_and_deviation(processor, tokenizer, vlm, tmp_path):
    assert (processor.image_mean, processor.image_std) == (list(IMAGE_MEAN), list(IMAGE_STD))
    processor.image_mean = [0.1, 0.2, 0.3]
    processor.save(tmp_path)
    again = VideoChat2Processor.from_folder(tmp_path, tokenizer.from_pretrained(tmp_path), vlm.config)
    assert again.image_mean == [0.1, 0.2, 0.3]
    assert again.tokenizer.encode("<boxes> ball") == tokenizer.encode("<boxes> ball")


def test_batches_are_padded_on_either_side_and_processors_travel(processor, make_example):
    other = pickle.loads(pickle.dumps(processor))
    rows = [other.encode(make_example("chat", 2)), other.encode(make_example("chat", 5, question="Where?"))]
    right, left = other.collate(rows), other.collate(rows, pad_left=True)
    short = len(rows[1].input_ids_L)
    assert right.attention_mask_BL[1].tolist() == [1] * short + [0] * (right.input_ids_BL.shape[1] - short)
    assert left.input_ids_BL[1, -short:].tolist() == rows[1].input_ids_L.tolist()
    assert right.frame_mask_BT.sum(1).tolist() == [2, 5]


def test_published_frames_are_the_middles_of_equal_stretches():
    assert middle_frames(160) == list(range(4, 160, 10))
    assert middle_frames(16) == list(range(16))
    assert middle_frames(40, 3) == [6, 19, 32]  # stretches 0-12, 13-25, 26-39
    assert all(0 <= frame < 1001 for frame in middle_frames(1001))


def test_a_short_video_repeats_its_last_frame_and_an_empty_one_is_an_error():
    assert middle_frames(5) == [0, 1, 2, 3] + [4] * 12
    with pytest.raises(TpoError, match=r"the video has no frame"):
        middle_frames(0)
