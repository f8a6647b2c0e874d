"""A question about media gives an answer in the units of the media, in Python and on the command line."""

import json

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tests.unit.models.test_generation import make_it_say
from tpo_core.config.schema import FramesConfig
from tpo_core.errors import TpoError
from tpo_core.heads.base import BoxPrediction, MaskPrediction, SpanPrediction
from tpo_core.inference.__main__ import box_of, lines, main
from tpo_core.inference.assistant import Assistant, load, media_kind
from tpo_core.inference.reply import Request, reply_of
from tpo_core.models.task_tokens import TRACK_BOX

SIZE_WH = (64, 48)
BOX = BoxPrediction(torch.tensor([1.0, 2.0, 30.4, 40.0]))
SPANS = SpanPrediction(torch.tensor([[0.5, 1.25], [0.0, 2.0]]), torch.tensor([0.9, 0.2]))


def write_video(path, seed=0):
    """Two seconds of 10 frames, in flat colours of their own."""
    colours = np.random.default_rng(seed).integers(0, 256, (20, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = *SIZE_WH, "yuv420p"
        for colour in colours:
            picture = np.broadcast_to(colour, (SIZE_WH[1], SIZE_WH[0], 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture
def model(make_model):
    model = make_model()
    model.frames = FramesConfig(n_frames=4, short_side_px=24)
    return model


@pytest.mark.parametrize(("token", "part"), [("<box_begin>", "boxes"), ("<time_begin>", "moments")])
def test_a_head_that_is_called_answers_in_pixels_and_seconds(model, clip, token, part):
    make_it_say(model, token)
    reply = Assistant(model).chat(clip, "Where?", max_new_tokens=1)
    assert getattr(reply, part)
    assert reply.frame_index == [2, 7, 12, 17]
    assert reply.times_s == pytest.approx([0.2, 0.7, 1.2, 1.7])
    for box in reply.boxes:
        assert 0 <= box[0] <= box[2] <= SIZE_WH[0]
        assert 0 <= box[1] <= box[3] <= SIZE_WH[1]
    for moment in reply.moments:
        assert 0 <= moment.start_s <= moment.end_s <= 2.0


def test_masks_have_the_size_of_the_media(model, clip):
    make_it_say(model, "<track_begin>")
    (track,) = Assistant(model).chat(clip, "Follow it.", max_new_tokens=1).masks
    assert track.masks_THW.shape == (4, SIZE_WH[1], SIZE_WH[0])
    assert track.boxes_T4.shape == (4, 4)


def test_a_batch_answers_as_one_by_one(model, clip, tmp_path):
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.png")
    other = write_video(tmp_path / "other.mp4", seed=5)
    requests = [
        Request(clip, "Where is it?"),
        Request(other, "Where is it?"),  # the same frames of another video
        Request(tmp_path / "a.png", "What is this?"),
        Request(None, "Who are you?", history=(("Hello.", "Hello."),)),
        Request(np.full((3, 30, 40, 3), 7, np.uint8), "Follow {box}.", box_xyxy=(1.0, 2.0, 20.0, 20.0)),
    ]
    with torch.no_grad():
        model.backbone.vlm.lm_head.base_layer.weight.mul_(20)
    assistant = Assistant(model)
    together = assistant.chat_batch(requests, max_new_tokens=6)
    alone = [assistant.chat_batch([request], max_new_tokens=6)[0] for request in requests]
    assert [reply.text for reply in together] == [reply.text for reply in alone]
    assert together[0].text != together[1].text
    assert assistant.chat_batch([]) == []


def test_one_frame_may_be_asked_about(model, clip):
    reply = Assistant(model).chat(clip, "Where is it?", at_s=1.234, max_new_tokens=1)
    assert reply.frame_index == [12]
    assert reply.times_s == pytest.approx([1.234], abs=0.1)
    with pytest.raises(TpoError, match=r"clip\.mp4: the clip starts at 9 s but the media ends at 2 s"):
        Assistant(model).chat(clip, "Where?", at_s=9)


def test_the_object_of_a_question_is_given_as_a_box_of_the_image(model, clip):
    assistant = Assistant(model)
    for question, expected in (
        ("Follow {box} well.", f"Follow {TRACK_BOX} well."),
        ("Follow.", f"Follow. {TRACK_BOX}"),
    ):
        request = Request(clip, question, box_xyxy=(-5.0, 10.0, 32.0, 90.0))
        ((example, _),) = assistant.shown_and_said([request], max_new_tokens=1)
        assert example.sample.turns[0].text == expected
        assert model.processor.encode(example, train=False).slot_box_4.tolist() == pytest.approx([0, 10 / 48, 0.5, 1])


@pytest.mark.parametrize(
    ("media", "options", "expected"),
    [
        ("nowhere.mp4", {}, r"cannot read nowhere\.mp4: no such file"),
        (np.zeros((0, 4, 4, 3), np.uint8), {}, "the video has no frames"),
        (np.zeros((4, 4, 3), np.float32), {}, "frames are uint8 RGB"),
        (np.zeros((4, 4, 1), np.uint8), {}, "frames are uint8 RGB"),
        (np.zeros((2, 4, 4, 3), np.uint8), {"times_s": [0.0]}, "2 frames but 1 times"),
        (np.zeros((4, 4, 3), np.uint8), {"box_xyxy": (4.0, 0.0, 9.0, 2.0)}, "no area inside the image of 4 x 4"),
        (np.zeros((4, 4, 3), np.uint8), {"box_xyxy": (3.0, 0.0, 1.0, 2.0)}, "no area inside the image"),
        (np.zeros((4, 4, 3), np.uint8), {"box_xyxy": (0.0, 0.0, float("nan"), 2.0)}, "no area inside the image"),
        (None, {"box_xyxy": (0.0, 0.0, 1.0, 1.0)}, "a box needs a video or an image"),
    ],
)
def test_bad_requests_are_told(model, media, options, expected):
    with pytest.raises(TpoError, match=expected):
        Assistant(model).chat(media, "Where?", **options)


def test_a_damaged_video_is_told_in_one_line(model, clip, tmp_path):
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[:300])
    with pytest.raises(TpoError, match=r"cannot read .*cut\.mp4: ") as told:
        Assistant(model).chat(tmp_path / "cut.mp4", "Where?")
    assert "\n" not in str(told.value)


def test_media_are_told_by_name(tmp_path):
    assert media_kind("s3://bucket/a.JPG") == "image"
    assert media_kind("a.mkv") == "video"
    assert media_kind("s3://bucket/frames/") == "frames"
    assert media_kind(str(tmp_path)) == "frames"


def test_a_readable_text_holds_what_the_heads_found():
    mask = MaskPrediction(torch.ones(1, 2, 2, dtype=torch.bool), torch.zeros(1, 4), torch.ones(1))
    text = "The <box_begin><boxes> at <time_begin><temp>: <track_begin><tracking>, <box_begin><boxes> ."
    reply = reply_of(text, [("region", BOX), ("temporal", SPANS), ("mask", mask)])
    assert reply.readable == "The [1, 2, 30, 40] at 0.5 to 1.2: [mask 1], <box_begin><boxes> ."
    assert reply.text == text
    assert [(m.start_s, m.score) for m in reply.moments] == [(0.5, pytest.approx(0.9)), (0.0, pytest.approx(0.2))]


def test_a_reply_becomes_json():
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, 1:3, 2:5] = True
    boxes = torch.tensor([[2.0, 1.0, 5.0, 3.0], [torch.nan] * 4])
    reply = reply_of("", [("mask", MaskPrediction(masks, boxes, torch.tensor([0.5, 0.0])))], times_s=[0.0, 1.0])
    (track,) = json.loads(json.dumps(reply.row()))["masks"]
    assert track["boxes_xyxy"] == [[2.0, 1.0, 5.0, 3.0], None]
    assert track["rle"][0]["size"] == [4, 6]
    assert lines(reply)[1] == "mask    on 1 of 2 frames, 0.00 to 1.00 s"


def test_the_command_prints_and_draws(model, clip, tmp_path, capsys):
    model.save_pretrained(tmp_path / "model")
    assert load(str(tmp_path / "model"), "cpu").model.frames == model.frames
    asked = ["--model", str(tmp_path / "model"), "--video", str(clip), "--max-new-tokens", "2", "Where is it?"]
    assert main([*asked, "--draw", str(tmp_path / "new" / "out.png")]) == 0
    assert Image.open(tmp_path / "new" / "out.png").size[0] > 100
    assert main([*asked, "--json"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert json.loads(printed[-1])["frame_index"] == [2, 7, 12, 17]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--model", "nothing", "Where?"], "no model at 'nothing'"),
        (["--model", "nothing", "--box", "1,2,3", "Where?"], "--box takes x0,y0,x1,y1"),
        (["--model", "nothing", "--draw", "a.png", "Where?"], "--draw needs --video or --image"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, expected, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert expected in told
    assert told.count("\n") == 1


def test_a_box_is_read_from_four_numbers():
    assert box_of("1,2.5,3,4") == (1.0, 2.5, 3.0, 4.0)
