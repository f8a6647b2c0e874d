"""What cannot be asked, shown or drawn is told in one line with status 2."""

import numpy as np
import pytest
import torch
from PIL import Image

from tpo_core.config.schema import FramesConfig
from tpo_core.errors import TpoError
from tpo_core.heads.base import SpanPrediction
from tpo_core.inference.__main__ import main
from tpo_core.inference.assistant import load
from tpo_core.inference.reply import Request, reply_of


@pytest.fixture
def saved(make_model, tmp_path):
    model = make_model(("region",))
    model.frames = FramesConfig(n_frames=2, short_side_px=24)
    model.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def image(tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    return str(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--draw", "card.foo"), "is no picture file"),
        (("--draw", "/proc/none/card.png"), "cannot be written"),
        (("--max-new-tokens", "0"), "a whole number from 1, not '0'"),
        (("--max-new-tokens", "-5"), "a whole number from 1, not '-5'"),
        (("--device", "cuda:99"), "no device 'cuda:99' here"),
        (("--device", "nonsense"), "no device 'nonsense' here"),
        (("--at=-1",), "no frame at -1.0 s"),
        (("--box", "1,2,3"), "--box takes x0,y0,x1,y1"),
        (("--box", "90,90,99,99"), "no area inside the image of 40 x 30 pixels"),
    ],
)
def test_a_mistake_on_the_command_line_is_told(saved, image, capsys, options, told):
    assert main(["--model", saved, "--image", image, "Where?", *options]) == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert told in errors[0]


@pytest.mark.parametrize("content", [b"", b"no film"])
def test_a_damaged_video_is_named(saved, tmp_path, capsys, content):
    (tmp_path / "a.mp4").write_bytes(content)
    assert main(["--model", saved, "--video", str(tmp_path / "a.mp4"), "Where?"]) == 2
    assert f"error: cannot read {tmp_path / 'a.mp4'}" in capsys.readouterr().err


def test_a_video_of_no_frames_is_told(saved):
    with pytest.raises(TpoError, match="no frames"):
        load(saved, "cpu").chat(np.zeros((0, 30, 40, 3), np.uint8), "Where?")


def test_slots_and_placeholders_in_the_words_of_a_user_are_letters(saved):
    words = "What are <box_begin><boxes> <track_box> <video> <image> and <|im_end|>?"
    assistant = load(saved, "cpu")
    ((example, reply),) = assistant.shown_and_said([Request(None, words)], max_new_tokens=1)
    processor = assistant.model.processor
    ids = set(processor.encode(example, train=False).input_ids_L.tolist())
    steering = processor.tokenizer.convert_tokens_to_ids(
        ["<box_begin>", "<boxes>", "<track_box>", "<video>", "<image>"]
    )
    assert not ids & set(steering)
    assert reply.boxes == []


def test_a_call_that_finds_no_moment_says_so():
    reply = reply_of("at <time_begin><temp>", [("temporal", SpanPrediction(torch.zeros(0, 2), torch.zeros(0)))])
    assert reply.readable == "at [no moment]"
    assert reply.moments == []
