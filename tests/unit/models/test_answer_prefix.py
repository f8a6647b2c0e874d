"""An answer that is asked for may be begun; the model goes on from there."""

from dataclasses import replace

import torch

PREFIX = "Best option:("


def test_the_prompt_ends_with_what_the_answer_begins_with(make_model, make_example):
    processor = make_model().processor
    plain = make_example("chat")
    before, _ = processor.encode_text(plain, train=False)
    begun, labels = processor.encode_text(replace(plain, answer_prefix=PREFIX), train=False)
    assert begun[: len(before)].tolist() == before.tolist()
    assert processor.tokenizer.decode(begun[len(before) :]) == PREFIX
    assert (labels == -100).all()
    assert len(labels) == len(begun)


def test_the_answer_is_what_the_model_adds(make_model, make_example):
    model = make_model(heads=())
    (answer,) = model.chat([replace(make_example("chat"), answer_prefix=PREFIX)], 3)
    assert PREFIX not in answer.text
    assert len(answer.token_ids) <= 3


def test_examples_without_a_prefix_are_as_ever(make_model, make_example):
    processor = make_model().processor
    example = make_example("region")
    with_none = processor.encode(replace(example, answer_prefix=""), train=False)
    assert torch.equal(with_none.input_ids_L, processor.encode(example, train=False).input_ids_L)
