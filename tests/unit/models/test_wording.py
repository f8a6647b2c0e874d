from dataclasses import replace

import numpy as np
import pytest
import torch

from tpo_core.config.schema import ModelConfig
from tpo_core.data.record import Target, TrackEntry, Turn
from tpo_core.data.rle import encode
from tpo_core.errors import TpoError
from tpo_core.models.tpo import TpoModel
from tpo_core.models.wording import box_text, key_places, label_texts, span_text, worded

BOX_TEXT = "[10, 10, 50, 50]"  # of the examples: 4, 3, 20, 15 of 40 x 30 pixels


def said(example) -> list[str]:
    return [turn.text for turn in worded(example, example.sample.turns)]


def changed(example, **fields):
    return replace(example, sample=replace(example.sample, **fields))


def tracked(example, *entries: TrackEntry):
    return changed(example, targets=(Target("track", track=entries), example.sample.targets[1]))


def test_numbers_stand_where_the_task_tokens_stood(make_example):
    assert said(make_example("region")) == ["Where is the red ball?", f"Answer: {BOX_TEXT} ."]
    assert said(make_example("temporal"))[1] == "Answer: 2.00 to 6.00 ."
    question, answer = said(make_example("mask"))
    assert question == f"Where is the ball at {BOX_TEXT}?"
    assert answer == f"Answer: {BOX_TEXT} {BOX_TEXT} {BOX_TEXT} ."


def test_conversation_and_what_people_write_stay_as_they_are(make_example):
    for kind, question in (("chat", "What is <box_begin><boxes>?"), ("region", "Is <track_box> a word?")):
        example = make_example(kind, question=question)
        assert said(example)[0] == question
    assert said(make_example("chat", answer="<box_begin><boxes>"))[1] == "<box_begin><boxes>"


@pytest.mark.parametrize(
    ("box", "text"),
    [
        ((0.0, 0.0, 1.0, 1.0), "[00, 00, 99, 99]"),
        ((0.059, 0.9999, 0.5, 0.75), "[05, 99, 50, 75]"),
        ((-0.2, 0.0, 1.4, 0.01), "[00, 00, 99, 01]"),
    ],
)
def test_a_coordinate_is_the_number_of_its_hundredth(box, text):
    assert box_text(torch.tensor(box)) == text


def test_times_have_as_many_decimals_as_the_clip_needs():
    assert span_text(torch.tensor([0.375, 12.0]), 9.9) == "0.38 to 12.00"
    assert span_text(torch.tensor([0.375, 12.0]), 30.0) == "0.4 to 12.0"


def test_several_moments_are_joined_and_none_is_said(make_example):
    example = make_example("temporal")
    spans = tuple(Target("span", span_s=span, set_rule="union") for span in ((1.0, 2.0), (4.0, 8.0)))
    turns = (example.sample.turns[0], replace(example.sample.turns[1], target_refs=(0, 1)))
    assert label_texts(changed(example, targets=spans, turns=turns)) == ["1.00 to 2.00 and 4.00 to 8.00"]
    assert label_texts(changed(example, targets=(), turns=(turns[0], Turn("assistant", "")))) == ["none"]


def test_each_box_of_an_answer_has_its_own_numbers(make_example):
    two = "<box_begin><boxes> and <box_begin><boxes>"
    example = make_example("region", answer=two)
    boxes = (Target("box", box=(0.0, 0.0, 20.0, 15.0)), Target("box", box=(20.0, 15.0, 40.0, 30.0)))
    turns = (example.sample.turns[0], Turn("assistant", two, target_refs=(0, 1)))
    assert said(changed(example, targets=boxes, turns=turns))[1] == "[00, 00, 50, 50] and [50, 50, 99, 99]"
    apart = (*(replace(turns[1], text="<box_begin><boxes>", target_refs=(ref,)) for ref in (0, 1)),)
    assert said(changed(example, targets=boxes, turns=(turns[0], *apart)))[1:] == [
        "[00, 00, 50, 50]",
        "[50, 50, 99, 99]",
    ]


def test_a_mask_is_its_box_on_the_first_middle_and_last_frame():
    assert key_places(8).tolist() == [0, 4, 7]
    assert key_places(4).tolist() == [0, 2, 3]
    assert key_places(1).tolist() == [0, 0, 0]


def test_an_absent_object_is_none_and_a_frame_without_a_label_takes_the_nearest(make_example):
    mask = np.zeros((30, 40), bool)
    mask[15:30, 20:40] = True
    there = TrackEntry(4, True, rle=encode(mask))
    assert label_texts(tracked(make_example("mask"), TrackEntry(0, False), there)) == [
        "none [50, 50, 99, 99] [50, 50, 99, 99]"
    ]
    with pytest.raises(TpoError, match=r"tiny/train/mask-0: no stored frame carries a label"):
        label_texts(tracked(make_example("mask"), TrackEntry(1, False)))


def text_model(base) -> TpoModel:
    config = ModelConfig(base=str(base), lora={"rank": 2, "alpha": 4}, heads=[], coordinates="text")
    torch.manual_seed(0)
    return TpoModel.from_base(str(base), config, [])


def test_a_model_that_writes_coordinates_learns_them_and_asks_with_them(base, make_example, tmp_path):
    model = text_model(base)
    example, processor = make_example("mask"), model.processor
    encoded = processor.encode(example)
    answer = processor.tokenizer.decode(encoded.labels_L[encoded.labels_L >= 0])
    assert answer == f"Answer: {BOX_TEXT} {BOX_TEXT} {BOX_TEXT} .<|im_end|>"
    losses, _ = model(processor.collate([encoded, processor.encode(example)]))
    assert list(losses) == ["lm"]
    prompt = processor.tokenizer.decode(processor.encode(example, train=False).input_ids_L)
    assert f"Where is the ball at {BOX_TEXT}?" in prompt
    assert "Answer" not in prompt
    assert model.chat([example], 3)[0].found == []
    model.save_pretrained(tmp_path)
    again = TpoModel.from_pretrained(tmp_path)
    assert again.processor.writes_coordinates
    assert torch.equal(again.processor.encode(example).input_ids_L, encoded.input_ids_L)


def test_a_prompt_needs_no_labels(base, make_example):
    example = changed(make_example("region"), targets=(), turns=(Turn("user", "Where is the red ball?"),))
    prompt = text_model(base).processor.encode(example, train=False)
    assert prompt.target is None


def test_heads_and_text_exclude_each_other(base):
    with pytest.raises(ValueError, match=r"coordinates text are written without heads: set model\.heads=\[\]"):
        ModelConfig(base=str(base), coordinates="text")
