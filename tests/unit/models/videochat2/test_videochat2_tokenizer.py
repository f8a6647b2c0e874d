import pickle

import pytest
from sentencepiece import SentencePieceProcessor

from tpo_core.errors import TpoError
from tpo_core.models.task_tokens import TASK_TOKENS
from tpo_core.models.videochat2.tokenizer import FragmentTokenizer, Marker, marked

TEXTS = [
    "Where is the red ball?",
    " [INST] Where? [/INST] ",
    "  two  blanks ",
    "\n line\tbreaks \n",
    "The box is <box_begin><boxes>.</s>",
    "<box_begin> <boxes>",
    "x<boxes>y",
    "<unk><s></s>",
    "na\u00efve \u4e2d\u6587 \U0001f642",
    "<Box_begin> box_begin> <box_begin",
]


@pytest.fixture
def sp(spm: bytes) -> SentencePieceProcessor:
    return SentencePieceProcessor(model_proto=spm)


def test_added_tokens_follow_the_pieces_in_order(tokenizer, sp):
    first = sp.get_piece_size()
    assert tokenizer.convert_tokens_to_ids(list(TASK_TOKENS)) == list(range(first, first + 7))
    assert len(tokenizer) == first + 7
    assert tokenizer.add_tokens(["<boxes>", "<new>", "<new>"]) == 1
    assert tokenizer.convert_tokens_to_ids("<new>") == first + 7
    assert len(tokenizer) == first + 8


def test_special_ids_are_those_of_the_model(tokenizer, sp):
    assert (tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.pad_token_id == sp.unk_id()
    assert tokenizer.convert_tokens_to_ids(["</s>", "no such piece"]) == [2, 0]


def test_each_piece_between_markers_is_encoded_on_its_own(tokenizer, sp):
    boxes = tokenizer.convert_tokens_to_ids("<boxes>")
    assert tokenizer.encode("ball <boxes>. </s>") == [1, *sp.encode("ball "), boxes, *sp.encode(". "), 2]
    assert tokenizer.encode("<boxes><boxes>") == [1, boxes, boxes]
    assert sp.encode(" ball") != sp.encode("ball")
    assert tokenizer.encode(" ball") == [1, *sp.encode(" ball")]


def test_every_fragment_begins_with_bos_or_none_does(tokenizer, spm):
    assert tokenizer.encode("") == [1]
    assert tokenizer.encode("ball") == [1, *tokenizer.encode("ball", bos=False)]
    without = FragmentTokenizer(spm, bos_per_fragment=False)
    assert without.encode("ball") == without("ball")["input_ids"] == tokenizer.encode("ball", bos=False)
    assert without.encode("ball", bos=True)[0] == 1
    assert tokenizer("ball")["input_ids"] == tokenizer.encode("ball")
    assert tokenizer("ball", add_special_tokens=False)["input_ids"] == tokenizer.encode("ball", bos=False)


def test_markers_in_plain_strings_are_mere_letters(tokenizer, sp):
    text = "is <boxes> or </s> or <unk> a <Video>?"
    ids = tokenizer.encode((text,), bos=False)
    assert ids == sp.encode(text)
    assert not {tokenizer.convert_tokens_to_ids("<boxes>"), 0, 1, 2} & set(ids)
    assert tokenizer.decode(ids) == text


def test_plain_strings_side_by_side_are_one_piece(tokenizer, sp):
    given = tokenizer.convert_tokens_to_ids("<track_box>")
    ids = tokenizer.encode((" [INST] ", "Where", " is it at ", Marker("<track_box>"), "?", " [/INST] "), bos=False)
    assert ids == [*sp.encode(" [INST] Where is it at "), given, *sp.encode("? [/INST] ")]


def test_an_unknown_marker_is_an_error(spm):
    with pytest.raises(TpoError, match=r"<boxes> is no token of this tokenizer"):
        FragmentTokenizer(spm).encode((Marker("<boxes>"),))


@pytest.mark.parametrize("text", TEXTS)
def test_decoding_gives_the_text_back(tokenizer, text):
    assert tokenizer.decode(tokenizer.encode(text, bos=False)) == text


def test_decoding_may_leave_special_tokens_out(tokenizer):
    ids = tokenizer.encode("The box is <box_begin><boxes>.</s>")
    assert tokenizer.decode(ids) == "<s>The box is <box_begin><boxes>.</s>"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "The box is <box_begin><boxes>."


def test_the_longest_marker_wins_and_nothing_is_lost():
    parts = marked("a<b><b>c<b", ["<b", "<b>"])
    assert parts == ["a", Marker("<b>"), "", Marker("<b>"), "c", Marker("<b"), ""]
    assert marked("a<b>", []) == ["a<b>"]


@pytest.mark.parametrize("per_fragment", [True, False])
def test_saved_loaded_and_pickled_tokenizers_are_the_same(spm, tmp_path, per_fragment):
    tokenizer = FragmentTokenizer(spm, added=TASK_TOKENS, bos_per_fragment=per_fragment)
    tokenizer.save_pretrained(tmp_path)
    for other in (FragmentTokenizer.from_pretrained(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert [other.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]
        assert (len(other), other.added) == (len(tokenizer), list(TASK_TOKENS))


def test_a_base_model_brings_no_added_tokens(spm, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(spm)
    assert FragmentTokenizer.from_pretrained(tmp_path).added == []


def test_a_folder_without_the_model_file_is_an_error(tmp_path):
    with pytest.raises(TpoError, match=r"has no tokenizer.model: copy the SentencePiece file"):
        FragmentTokenizer.from_pretrained(tmp_path)
