import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from tpo_core.data.augment import apply_change
from tpo_core.data.example import Change
from tpo_core.data.record import Target, TrackEntry, Turn
from tpo_core.data.rle import encode
from tpo_core.errors import TpoError
from tpo_core.models.processing import Processor
from tpo_core.models.targets import small_mask

LLAVA_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
    "{% for part in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\\n' + part['text'] }}{% endfor %}"
    "{{'<|im_end|>'}}{% endfor %}"
)


@pytest.fixture
def processor(make_model) -> Processor:
    return make_model().processor


def spoken(processor: Processor, encoded) -> str:
    return processor.tokenizer.decode(encoded.labels_L[encoded.labels_L >= 0])


def test_only_the_answer_carries_loss_without_its_slot(processor, make_example):
    assert spoken(processor, processor.encode(make_example("region"))) == "Answer: <box_begin> .<|im_end|>"
    assert spoken(processor, processor.encode(make_example("chat"))) == "It is red.<|im_end|>"


def test_every_assistant_turn_carries_loss(processor, make_example):
    example = make_example("chat")
    turns = (*example.sample.turns, Turn("user", "It is red. Is it?"), Turn("assistant", "Yes."))
    example = dataclasses.replace(example, sample=dataclasses.replace(example.sample, turns=turns))
    encoded = processor.encode(example)
    assert spoken(processor, encoded) == "It is red.<|im_end|>Yes.<|im_end|>"
    assert processor.tokenizer.decode(encoded.input_ids_L).count("Is it?") == 1


def test_the_placeholder_is_repeated_for_the_visual_tokens_of_the_clip(processor, make_example):
    for frames in (1, 3):
        ids = processor.encode(make_example("chat", frames)).input_ids_L
        assert (ids == processor.video_token_id).sum() == frames * 4 + 1
    assert (processor.encode(make_example("chat", 0)).input_ids_L != processor.video_token_id).all()


def test_a_placeholder_written_by_the_user_asks_for_no_pixels(processor, make_example):
    ids = processor.encode(make_example("chat", 1, question="<video> Where?")).input_ids_L
    assert (ids == processor.video_token_id).sum() == 5
    assert "<video> Where?" in processor.tokenizer.decode(ids)


def with_box(example, box):
    targets = (example.sample.targets[0], dataclasses.replace(example.sample.targets[1], box=box))
    return dataclasses.replace(example, sample=dataclasses.replace(example.sample, targets=targets))


def test_a_box_of_the_question_is_cut_at_the_image(processor, make_example):
    example = make_example("mask")
    found = processor.encode(with_box(example, (-8.0, 15.0, 20.0, 300.0)), train=False).slot_box_4
    torch.testing.assert_close(found, torch.tensor([0.0, 0.5, 0.5, 1.0]))
    for outside in ((-9.0, 3.0, -1.0, 9.0), (40.0, 3.0, 44.0, 9.0), (4.0, 3.0, 4.0, 9.0)):
        with pytest.raises(TpoError, match="no area inside the image of 40 x 30 pixels"):
            processor.encode(with_box(example, outside), train=False)


def test_media_without_a_frame_are_refused_and_text_alone_is_not(processor, make_example):
    clip = make_example("chat", 2)
    empty = dataclasses.replace(
        clip, frames_THWC=clip.frames_THWC[:0], times_s=clip.times_s[:0], frame_index=clip.frame_index[:0]
    )
    with pytest.raises(TpoError, match="no frame of clip-0 is there"):
        processor.encode(empty, train=False)
    assert processor.encode(make_example("chat", 0), train=False).pixels_TCHW.shape == (0, 3, 32, 32)


@pytest.mark.parametrize("template", ["plain", "typed"])
def test_the_prompt_is_a_prefix_of_the_training_text(processor, make_example, template):
    if template == "typed":
        processor.tokenizer.chat_template = LLAVA_TEMPLATE
    example = make_example("mask")
    prompt, full = processor.encode(example, train=False), processor.encode(example)
    length = len(prompt.input_ids_L)
    assert prompt.input_ids_L.tolist() == full.input_ids_L[:length].tolist()
    assert full.labels_L[length] >= 0
    assert (full.labels_L[:length] == -100).all()
    assert prompt.target is None


def test_an_answer_ends_with_the_token_that_ends_generation(processor, make_example):
    labels = processor.encode(make_example("chat")).labels_L
    assert labels[labels >= 0][-1].item() in processor.end_token_ids()


def test_pixels_equal_pillows_bicubic_resize(processor, make_example):
    example = make_example("chat", 1)
    expected = np.asarray(Image.fromarray(example.frames_THWC[0]).resize((32, 32), Image.Resampling.BICUBIC))
    found = (processor.pixels(example)[0] * 0.5 + 0.5).permute(1, 2, 0) * 255
    assert np.abs(found.numpy() - expected).max() <= 1.01


def test_targets_are_fractions_and_follow_the_stored_frames(processor, make_example):
    box = processor.encode(make_example("region")).target
    torch.testing.assert_close(box, torch.tensor([0.1, 0.1, 0.5, 0.5]))
    torch.testing.assert_close(processor.encode(make_example("temporal")).target, torch.tensor([[0.25, 0.75]]))
    encoded = processor.encode(make_example("mask"))
    masks, valid, box_only, _ = encoded.target
    assert masks.shape == (4, 16, 16)
    assert valid.all()
    assert not box_only
    torch.testing.assert_close(encoded.slot_box_4, torch.tensor([0.1, 0.1, 0.5, 0.5]))


def with_track(example, *entries: TrackEntry):
    targets = (Target("track", track=entries), example.sample.targets[1])
    return dataclasses.replace(example, sample=dataclasses.replace(example.sample, targets=targets))


def test_frames_that_are_not_annotated_are_not_valid_and_absent_ones_are(processor, make_example):
    mask = encode(np.ones((30, 40), bool))
    entries = TrackEntry(0, True, rle=mask), TrackEntry(4, False), TrackEntry(5, True, rle=mask)
    masks, valid, _, _ = processor.encode(with_track(make_example("mask"), *entries)).target
    assert valid.tolist() == [True, True, False, False]
    assert masks.flatten(1).any(1).tolist() == [True, False, False, False]


def test_a_track_of_boxes_is_box_only_with_nan_where_absent(processor, make_example):
    entries = TrackEntry(0, True, box=(0.0, 0.0, 20.0, 30.0)), TrackEntry(4, False)
    _, valid, box_only, boxes = processor.encode(with_track(make_example("mask"), *entries)).target
    assert box_only
    assert valid.tolist() == [True, True, False, False]
    assert boxes[0].tolist() == [0, 0, 0.5, 1]
    assert boxes[1].isnan().all()


def test_a_tiny_mask_does_not_vanish():
    mask = np.zeros((100, 100), bool)
    mask[3, 3] = True
    assert small_mask(encode(mask), 10).sum() == 1
    assert small_mask(encode(np.zeros((100, 100), bool)), 10).sum() == 0


def test_collate_pads_text_on_the_asked_side_and_frames_at_the_end(processor, make_example):
    rows = [processor.encode(make_example("mask", frames)) for frames in (1, 3)]
    right, left = processor.collate(rows), processor.collate(rows, pad_left=True)
    assert right.attention_mask_BL[0, 0] == 1
    assert right.attention_mask_BL[0, -1] == 0
    assert left.attention_mask_BL[0, 0] == 0
    assert left.attention_mask_BL[0, -1] == 1
    assert right.frame_mask_BT.tolist() == [[True, False, False], [True, True, True]]
    assert right.targets.valid_NT.tolist() == [[True, False, False], [True, True, True]]
    assert right.pixel_values_UTCHW.shape == (2, 3, 3, 32, 32)


def test_rows_that_show_the_same_frames_share_them(processor, make_example):
    clip, other = make_example("mask", 3), make_example("mask", 3, seed=1)
    again = make_example("temporal", 3, question="When is it red?")
    rows = [processor.encode(example, train=False) for example in (clip, other, again, make_example("chat", 0))]
    batch = processor.collate(rows)
    assert batch.clip_B.tolist() == [0, 1, 0, 2]
    assert len(batch.pixel_values_UTCHW) == 3
    torch.testing.assert_close(batch.pixel_values_UTCHW[1], rows[1].pixels_TCHW)
    one_frame = dataclasses.replace(
        clip, frames_THWC=clip.frames_THWC[:1], times_s=clip.times_s[:1], frame_index=clip.frame_index[:1]
    )
    apart = processor.collate([processor.encode(example, train=False) for example in (clip, one_frame)])
    assert apart.clip_B.tolist() == [0, 1], "other frames of the same file are another clip"


def test_frames_that_were_changed_differently_are_not_shared(processor, make_example):
    clip = make_example("temporal", 3)
    looks = [apply_change(clip, change) for change in (Change(), Change(flip=True), Change(flip=True), Change(1.2))]
    rows = [processor.encode(example) for example in looks]
    batch = processor.collate(rows)
    assert batch.clip_B.tolist() == [0, 1, 1, 2]
    for place, row in zip(batch.clip_B.tolist(), rows, strict=True):
        torch.testing.assert_close(batch.pixel_values_UTCHW[place], row.pixels_TCHW)


def test_a_flipped_image_has_its_box_mirrored(processor, make_example):
    image = make_example("region", 1)
    plain, flipped = (processor.encode(apply_change(image, Change(flip=flip))).target for flip in (False, True))
    torch.testing.assert_close(flipped, torch.stack([1 - plain[2], plain[1], 1 - plain[0], plain[3]]))


def test_a_base_without_preprocessor_config_is_refused(processor, tmp_path):
    with pytest.raises(TpoError, match="preprocessor_config"):
        Processor.load(tmp_path, processor.tokenizer, image_size=32, tokens_per_frame=4, video_token_id=4)
