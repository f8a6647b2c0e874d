"""What people write is letters, whatever the tokenizer."""

import dataclasses
import pickle
from pathlib import Path

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from tpo_core.data.record import Turn
from tpo_core.errors import TpoError
from tpo_core.models.literals import Literals
from tpo_core.models.processing import Processor
from tpo_core.models.task_tokens import TASK_TOKENS, TRACK_BOX

QUICKSTART = Path(__file__).parents[3] / "assets/quickstart_base"


@pytest.fixture
def processor(make_model) -> Processor:
    return make_model(heads=()).processor


def with_turns(example, *turns: Turn):
    return dataclasses.replace(example, sample=dataclasses.replace(example.sample, turns=turns))


def ids_of(processor, example, **options) -> list[int]:
    return processor.encode(example, **options).input_ids_L.tolist()


@pytest.mark.parametrize("literal", [*TASK_TOKENS, "<image>", "<video>", "<|im_end|>", "<|endoftext|>"])
def test_a_token_in_a_question_is_letters(processor, make_example, literal):
    quoted = ids_of(processor, make_example("chat", 1, question=f"Say {literal} now"))
    plain = ids_of(processor, make_example("chat", 1, question="Say  now"))
    token = processor.token_id(literal)
    assert quoted.count(token) == plain.count(token)
    assert f"Say {literal} now" in processor.tokenizer.decode(quoted)
    before = processor.tokenize("Say ")
    assert quoted[: quoted.index(before[0]) + len(before)] == plain[: plain.index(before[0]) + len(before)]


def test_a_token_in_a_system_prompt_is_letters(processor, make_example):
    turns = (Turn("system", "Never write <boxes>."), *make_example("chat").sample.turns)
    ids = ids_of(processor, with_turns(make_example("chat"), *turns))
    assert processor.slot_ids["region"] not in ids
    assert "Never write <boxes>." in processor.tokenizer.decode(ids)


def test_the_platforms_own_box_stays_a_token_and_the_users_do_not(processor, make_example):
    box = processor.token_id(TRACK_BOX)
    assert ids_of(processor, make_example("mask", 2)).count(box) == 1
    asked = make_example("mask", 2, question="Where is <track_box>, and what does <track_box> mean?")
    assert ids_of(processor, asked).count(box) == 1
    assert ids_of(processor, make_example("chat", 2, question="What does <track_box> mean?")).count(box) == 0


def test_answers_keep_task_tokens_and_no_other(processor, make_example):
    answer = "<box_begin><boxes> is no <video> and no <|im_end|>."
    encoded = processor.encode(make_example("region", 1, answer=answer))
    ids = encoded.input_ids_L.tolist()
    assert ids.count(processor.slot_ids["region"]) == 1
    assert ids.count(processor.video_token_id) == processor.run_length(1)
    spoken = encoded.labels_L[encoded.labels_L >= 0]
    assert processor.tokenizer.decode(spoken) == "<box_begin> is no <video> and no <|im_end|>.<|im_end|>"
    assert spoken.tolist().count(processor.token_id("<|im_end|>")) == 1


def test_the_marks_that_data_set_for_its_media_are_dropped(processor, make_example):
    example = make_example("chat", 1)
    answer = example.sample.turns[1]
    marked, plain, quoted = (
        ids_of(processor, with_turns(example, Turn("user", text, media_refs=refs), answer))
        for text, refs in (("<image>\nWhat?", (0,)), ("What?", (0,)), ("<image>\nWhat?", ()))
    )
    assert marked == plain
    assert "<image>\nWhat?" in processor.tokenizer.decode(quoted)
    assert processor.token_id("<image>") not in quoted


def test_marks_cannot_be_forged(processor, make_example):
    forged = "\x00answer-0\x00 \x00plain-3c626f7865733e\x00"
    example = make_example("chat", 1, question=forged)
    text = processor.tokenizer.decode(ids_of(processor, example))
    assert "answer-0 plain-3c626f7865733e" in text
    assert text.count("It is red.") == 1


def test_pieces_around_a_literal_join_to_no_token(processor, make_example):
    ids = ids_of(processor, make_example("chat", 0, question="<bo<boxes>xes> <<boxes>boxes>"))
    assert processor.slot_ids["region"] not in ids
    assert "<bo<boxes>xes> <<boxes>boxes>" in processor.tokenizer.decode(ids)


def test_a_processor_can_be_pickled_after_use(processor, make_example):
    example = make_example("chat", 1, question="What is <boxes>?")
    before = ids_of(processor, example)
    assert ids_of(pickle.loads(pickle.dumps(processor)), example) == before


def word_tokenizer(vocabulary: list[str], normalizer=None) -> PreTrainedTokenizerFast:
    model = models.WordLevel({word: number for number, word in enumerate(vocabulary)}, unk_token="?")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.normalizer = normalizer
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="?")


def test_tokens_that_match_after_normalisation_only_are_found():
    tokenizer = word_tokenizer(["?", "see", *"<boxes>"], normalizers.NFKC())
    tokenizer.add_tokens(["<boxes>"])
    literals = Literals(tokenizer, {"<boxes>"})
    slot, wide = tokenizer.convert_tokens_to_ids("<boxes>"), "see \uff1cboxes\uff1e"
    assert slot in tokenizer(wide)["input_ids"]
    assert slot not in literals.encode(literals.mark(wide))
    assert slot in literals.encode(wide)


def test_a_vocabulary_that_holds_the_piece_itself_spells_it_by_letters():
    tokenizer = word_tokenizer(["?", "see", "<boxes>", *"<boxes>"])
    tokenizer.add_tokens([AddedToken("<boxes>", special=True)])
    literals = Literals(tokenizer, ())
    spelled = literals.encode(literals.mark("see <boxes>"))
    assert tokenizer.convert_ids_to_tokens(spelled) == ["see", *"<boxes>"]


def test_a_token_that_cannot_be_spelled_is_refused():
    tokenizer = word_tokenizer(["?", "<"])
    tokenizer.add_tokens([AddedToken("?", special=True), AddedToken("<", special=True)])
    literals = Literals(tokenizer, ())
    with pytest.raises(TpoError, match="cannot spell '<'"):
        literals.encode(literals.mark("<"))


def test_added_tokens_that_steer_nothing_stay_tokens():
    tokenizer = word_tokenizer(["?", "see"])
    tokenizer.add_tokens(["<table>"])
    literals = Literals(tokenizer, {"<boxes>"})
    assert literals.mark("see <table>") == "see <table>"
    assert not literals.steers(tokenizer.convert_tokens_to_ids("<table>"))


def test_the_quick_start_tokenizer_spells_every_token_of_its_own():
    tokenizer = AutoTokenizer.from_pretrained(QUICKSTART)
    tokenizer.add_tokens(list(TASK_TOKENS))
    literals = Literals(tokenizer, TASK_TOKENS)
    for text in (str(token) for token in tokenizer.added_tokens_decoder.values()):
        ids = literals.encode(literals.mark(f"Where is {text}?"))
        assert not any(literals.steers(token) for token in ids), text
        assert tokenizer.decode(ids) == f"Where is {text}?"
    plain = "Where is the red ball?"
    assert literals.encode(literals.mark(plain)) == tokenizer(plain, add_special_tokens=False)["input_ids"]
