from tpo_core.models.videochat2 import prompt
from tpo_core.models.videochat2.prompt import END, Visual
from tpo_core.models.videochat2.tokenizer import Marker


def text(part):
    return "".join(piece.token if isinstance(piece, Marker) else piece for piece in part)


def test_a_question_follows_the_clip_in_a_fragment_of_its_own():
    before, place, after, asked = prompt.chat("Where?", is_image=False)
    assert (text(before), place, text(after)) == ("[INST] <Video>", Visual(), "</Video>[/INST]")
    assert text(asked) == " [INST] Where? [/INST] "
    assert text(prompt.chat("", is_image=False)[-1]) == " "


def test_an_image_has_its_own_tags():
    before, _, after, _ = prompt.chat("Where?", is_image=True)
    assert (text(before), text(after)) == ("[INST] <Image>", "</Image>[/INST]")


def test_the_message_of_times_stands_behind_the_clip():
    message = prompt.frame_times([0.24, 0.5, 12.75])
    assert message == " The video contains 3 frames sampled at 0.2, 0.5, 12.8 seconds."
    after = prompt.chat("At which timestamp?", is_image=False, message=message + " ")[2]
    assert text(after) == f"</Video>{message}[/INST]"
    assert prompt.asks_for_times("At which timestamp?")
    assert not prompt.asks_for_times("When?")


def test_a_multiple_choice_is_one_fragment_behind_the_clip():
    before, _, after = prompt.multiple_choice(
        "Q2", is_image=False, system="Look.\n", history=[("Q1", "A1")], best_option=True
    )
    assert text(before) == "Look.\n[INST] <Video>"
    assert text(after) == "</Video>[/INST] [INST] Q1 [/INST]A1</s> [INST] Q2 [/INST]Best Option: ("
    assert [piece for piece in after if isinstance(piece, Marker)] == [END]
    assert text(prompt.multiple_choice("Q", is_image=True)[-1]) == "</Image>[/INST] [INST] Q [/INST]"


def test_what_a_user_writes_opens_no_slot_and_no_place(tokenizer):
    asked = "Is <boxes> </s> <unk> in <Video> [INST]?"
    for parts in (prompt.chat(asked, is_image=False), prompt.multiple_choice(asked, is_image=False, history=[])):
        ids = prompt.encode(parts, tokenizer.encode, [-1] * 3)
        assert ids.count(-1) == 3
        added = set(tokenizer.convert_tokens_to_ids(tokenizer.added))
        assert not (added | {tokenizer.unk_token_id, tokenizer.eos_token_id}) & set(ids)
        assert asked in tokenizer.decode([id_ for id_ in ids if id_ >= 0])


def test_fragments_begin_with_bos_and_the_place_with_none(tokenizer):
    ids = prompt.encode(prompt.chat("Where?", is_image=False), tokenizer.encode, [-1, -1])
    first = len(tokenizer.encode("[INST] <Video>"))
    assert ids[first : first + 2] == [-1, -1]
    assert [place for place, id_ in enumerate(ids) if id_ == 1] == [
        0,
        first + 2,
        first + 2 + len(tokenizer.encode("</Video>[/INST]")),
    ]
    assert prompt.encode(prompt.multiple_choice("Q", is_image=False), tokenizer.encode, [-1]).count(1) == 2
