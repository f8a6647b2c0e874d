"""A model and plain SAM2 answer in the units of the media; SAM2 follows objects through frames that no model saw."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.tiny_sam2 import random_clip, tiny_sam2
from tests.unit.evaluation.conftest import BOX, FakeModel, answer_with, make_example, write_shards
from tests.unit.models.conftest import base, config, make_model  # noqa: F401
from tpo_core.config.model import CgDetrConfig, Sam2MaskConfig
from tpo_core.data import rle
from tpo_core.data.record import Target, Turn
from tpo_core.data.shards import MediaRow, ShardSet
from tpo_core.errors import TpoError
from tpo_core.evaluation.answerers import ModelAnswerer, Sam2Answerer, true_prompt
from tpo_core.evaluation.asking import Ask, Question
from tpo_core.evaluation.following import Prompted, follow_all, prompts_only
from tpo_core.evaluation.looking import Clip, Shown, shown
from tpo_core.evaluation.record import Record, everywhere, plain_box
from tpo_core.heads.base import BoxPrediction, SpanPrediction
from tpo_core.heads.cgdetr.head import CgDetrHead
from tpo_core.heads.sam2.frozen import FrozenSam2
from tpo_core.heads.sam2.head import Sam2MaskHead, follow
from tpo_core.models.tpo import Answer

NAN = float("nan")


def request(task: str, **more) -> Shown:
    return Shown(Ask(0, f"{task}-0", "answer"), task, make_example(task), **more)


@pytest.mark.parametrize(
    ("task", "head", "field", "value"),
    [
        ("region", "region", "box", BOX),
        ("moment", "temporal", "windows", ((2.0, 6.0, pytest.approx(0.9)), (0.0, 8.0, pytest.approx(0.1)))),
        ("track", "mask", "boxes", dict.fromkeys((0, 4, 8, 12), BOX)),
    ],
)
def test_the_first_call_of_the_right_head_is_the_answer(task, head, field, value):
    model = FakeModel(lambda example: answer_with(head, text="Here."))
    (record,) = ModelAnswerer(model).answer([request(task)], 8)
    assert (record.key, record.text, record.activated) == (f"{task}-0", "Here.", (head,))
    assert getattr(record, field) == value
    (other,) = ModelAnswerer(FakeModel(lambda example: answer_with(text="No."))).answer([request(task)], 8)
    assert not getattr(other, field)


def test_masks_are_kept_where_masks_are_asked_for():
    model = FakeModel(lambda example: answer_with("mask"))
    (record,) = ModelAnswerer(model).answer([request("mask")], 8)
    assert sorted(record.masks) == [0, 4, 8, 12]
    assert rle.decode(record.masks[4]).sum() == 12 * 16


def test_a_moment_that_ends_before_it_starts_keeps_its_place():
    """The metric rejects it; without it the next one would be the answer."""
    found = SpanPrediction(torch.tensor([[6.0, 2.0], [NAN, 3.0], [1.0, 3.0]]), torch.tensor([0.75, 0.5, 0.25]))
    model = FakeModel(lambda example: Answer("", [], [("temporal", found)], ["temporal"]))
    (record,) = ModelAnswerer(model).answer([request("moment")], 8)
    expected = ((6.0, 2.0, 0.75), (NAN, 3.0, 0.5), (1.0, 3.0, 0.25))
    assert record.windows == tuple(pytest.approx(window, nan_ok=True) for window in expected)


def test_saliency_is_kept_with_the_clips_that_it_is_of():
    clips = torch.tensor([[0.0, 1.5, -0.25], [1.5, 3.0, 2.0]])
    found = SpanPrediction(torch.tensor([[1.0, 3.0]]), torch.tensor([0.5]), clips)
    model = FakeModel(lambda example: Answer("", [], [("temporal", found)], ["temporal"]))
    (record,) = ModelAnswerer(model).answer([request("moment")], 8)
    assert Record.of_line(record.line()).clips == ((0.0, 1.5, -0.25), (1.5, 3.0, 2.0))


def test_a_head_that_tells_highlights_tells_none_of_a_request_that_it_missed():
    missed = FakeModel(lambda example: answer_with(text="No."))
    missed.heads["temporal"] = CgDetrHead(CgDetrConfig(), 8, 8)
    assert [record.clips for record in ModelAnswerer(missed).answer([request("moment"), request("qa")], 8)] == [
        (),
        None,
    ]
    missed.heads["temporal"] = "another head"
    assert ModelAnswerer(missed).answer([request("moment")], 8)[0].clips is None
    assert Record.of_line(Record("k", clips=()).line()).clips == ()


@pytest.mark.parametrize(
    ("task", "text", "head", "field", "value"),
    [
        ("region", "[0.1, 0.1, 0.5, 0.5]", "region", "box", pytest.approx(BOX)),
        ("moment", "From 2.0 to 6.0 seconds.", "temporal", "windows", ((2.0, 6.0, 1.0),)),
        (
            "track",
            "[0.1, 0.1, 0.5, 0.5] none",
            "mask",
            "boxes",
            {0: pytest.approx(BOX), 4: pytest.approx(BOX), 8: None, 12: None},
        ),
    ],
)
def test_of_a_model_without_the_head_the_text_is_read(task, text, head, field, value):
    def answered(heads):
        model = FakeModel(lambda example: answer_with(text=text), heads=heads)
        return ModelAnswerer(model).answer([request(task)], 8)[0]

    found = answered(())
    assert (getattr(found, field), found.activated) == (value, (head,))
    missed = answered((head,))
    assert (getattr(missed, field) or None, missed.activated) == (None, ())


def test_a_mask_that_is_written_out_is_the_box():
    model = FakeModel(lambda example: answer_with(text="[0.1, 0.1, 0.5, 0.5]"), heads=())
    (record,) = ModelAnswerer(model).answer([request("mask")], 8)
    assert [rle.decode(record.masks[frame]).sum() for frame in (0, 4, 8, 12)] == [12 * 16] * 4


@pytest.mark.parametrize("box", [(20.0, 3.0, 4.0, 15.0), (NAN, 3.0, 20.0, 15.0), (4.0, 3.0, 4.0, 15.0)])
def test_a_box_that_is_none_is_kept_as_it_was_said(box):
    found = BoxPrediction(torch.tensor(box))
    model = FakeModel(lambda example: Answer("", [], [("region", found)], ["region"]))
    (record,) = ModelAnswerer(model).answer([request("region")], 8)
    assert Record.of_line(record.line()).box == pytest.approx(box, nan_ok=True)


def test_one_request_that_cannot_be_put_costs_itself_alone():
    def say(example):
        if example.sample.task == "mask":
            raise TpoError("mask-0: no frame is there to look at")
        return answer_with(text="ok")

    model = FakeModel(say)
    asked = [request("qa"), request("mask"), request("caption")]
    records = ModelAnswerer(model).answer(asked, 8)
    assert [record.text for record in records] == ["ok", "", "ok"]
    assert records[1].failure == "not_asked: mask-0: no frame is there to look at"
    assert model.batches == [3, 1, 1, 1]


def clip_of(frames_T3HW: torch.Tensor) -> Clip:
    """A clip whose frames come from memory, each second frame of the original."""
    count, _, height, width = frames_T3HW.shape

    class Row(MediaRow):
        def frames_THWC(self, rows=None):
            return frames_T3HW[rows].movedim(1, 3).numpy()

    plain = {"kind": "video", "stored_width": width, "stored_height": height, "fps": None, "decoder": "", "jpegs": None}
    times = {"duration_s": 8.0, "media_duration_s": 8.0, "times_s": np.arange(count) * 1.0}
    return Clip(
        Row(uri="v", width=width, height=height, n_frames=2 * count, frame_index=np.arange(count) * 2,
            features_SD=None, **plain, **times)
    )  # fmt: skip


def test_following_frame_by_frame_is_following_the_clip():
    sam, frames = FrozenSam2(tiny_sam2()), random_clip(4)
    prompts = sam.embed_boxes(torch.tensor([[0.1, 0.2, 0.6, 0.7]]))
    boxes, masks = follow_all(sam, clip_of(frames), prompts[0], 1, keep_masks=True)
    (whole,) = follow(sam, frames, prompts, 1, (40, 56))
    assert list(boxes) == [2, 4, 6, 0]
    for place, number in enumerate((0, 2, 4, 6)):
        assert boxes[number] == plain_box(whole.boxes_T4[place].numpy())
        drawn = np.zeros((40, 56), bool) if masks[number] is None else rle.decode(masks[number])
        assert (drawn == whole.masks_THW[place].numpy()).all()
    assert any(mask is not None for mask in masks.values())


def test_plain_sam2_is_prompted_by_the_true_box():
    sam = FrozenSam2(tiny_sam2())
    example = replace(make_example("mask"), width=56, height=40)
    clip = clip_of(random_clip(4))
    clip.row.frame_index[:] = (0, 4, 8, 12)
    assert true_prompt(example.sample, clip) == (0, BOX)  # of the mask, whose labels have no box
    assert true_prompt(make_example("track").sample, clip) == (0, BOX)
    asked = Shown(Ask(0, "m", "answer"), "mask", example, clip)
    (record,) = Sam2Answerer(sam, torch.device("cpu")).answer([asked], 8)
    prompt = sam.embed_boxes(torch.tensor([BOX]) / torch.tensor([56.0, 40.0, 56.0, 40.0]))[0]
    boxes, masks = follow_all(sam, clip, prompt, 0, keep_masks=True)
    assert (record.boxes, record.masks) == (boxes, masks)


def test_plain_sam2_says_where_no_box_is_to_be_had():
    clip = clip_of(random_clip(4))
    clip.row.frame_index[:] = (1, 2, 3, 5)  # none of them labelled
    asked = Shown(Ask(0, "m", "answer"), "mask", make_example("mask"), clip)
    (record,) = Sam2Answerer(FrozenSam2(tiny_sam2()), torch.device("cpu")).answer([asked], 8)
    assert record.failure.startswith("not_asked: tiny/val/mask-0: no stored frame shows")


@pytest.fixture
def sam2_model(make_model):  # noqa: F811
    model = make_model()
    torch.manual_seed(1)
    model.heads["mask"] = Sam2MaskHead(Sam2MaskConfig(), model.backbone.hidden_size, FrozenSam2(tiny_sam2()))
    model.processor.keeps_frames = {True: False, False: True}
    return model


def test_a_model_with_sam2_follows_through_frames_that_it_was_not_shown(sam2_model, monkeypatch):
    prompts = torch.randn(1, 3, 128)
    frames = random_clip(6)

    def chat(examples, max_new_tokens):
        (prompted,) = sam2_model.heads["mask"].track(prompts, None)
        assert isinstance(prompted, Prompted)
        return [Answer("There.", [], [("mask", prompted)], ["mask"]) for _ in examples]

    monkeypatch.setattr(sam2_model, "chat", chat)
    clip = clip_of(frames)
    (record,) = ModelAnswerer(sam2_model).answer([request("track", clip=clip)], 8)
    assert record.boxes == follow_all(sam2_model.heads["mask"].sam, clip, prompts[0], 0, keep_masks=False)[0]
    assert record.masks is None
    assert len(record.boxes) == 6


def test_the_head_follows_again_afterwards(sam2_model):
    before = sam2_model.heads["mask"].track
    with prompts_only(sam2_model):
        assert sam2_model.heads["mask"].track != before
    assert sam2_model.heads["mask"].track == before


def test_a_light_head_is_left_as_it_is(make_model):  # noqa: F811
    model = make_model()
    with prompts_only(model):
        assert "track" not in vars(model.heads["mask"])


def test_what_is_not_said_of_a_frame_is_said_of_the_nearest():
    assert everywhere({2: "a", 6: "b"}, list(range(8))) == dict(enumerate("aaaaabbb"))
    assert everywhere({}, [0, 1]) == {}
    assert everywhere({0: None}, [0, 1]) == {0: None, 1: None}


def test_a_record_comes_back_from_its_line():
    record = Record(
        "k", "text \u00e9", ("mask",), (1.0, 2.0, 3.0, 4.0), ((0.5, 1.0, 0.25),), ((0.0, 1.0, -2.5),),
        {3: None, 4: (0.0, 0.0, 1.5, 1.0)}, {3: None, 4: rle.encode(np.eye(3, dtype=bool))}, 1.5, "not_asked: x",
    )  # fmt: skip
    assert Record.of_line(record.line()) == record
    assert Record.of_line(Record("k").line()) == Record("k")


def test_the_language_model_sees_some_frames_and_the_one_with_the_box(tmp_path):
    sample = make_example("track").sample
    boxed = Turn("user", "Follow <track_box>.", (0,), (1,))
    given = Target("box", box=BOX, frame=12)
    sample = replace(sample, targets=(*sample.targets, given), turns=(boxed, *sample.turns[1:]))
    shards = ShardSet.open(write_shards(tmp_path, {"test": [sample]}))
    few = shown(shards, Ask(0, "k", "answer"), "track", Question(sample, "So ("), 2)
    assert few.example.frame_index.tolist() == [0, 8, 12]
    assert few.example.frames_THWC.shape[0] == 3
    assert (few.sees_a_part, len(few.clip), few.example.answer_prefix) == (True, 4, "So (")
    whole = shown(shards, Ask(0, "k", "answer"), "track", Question(sample), 3)
    assert (whole.sees_a_part, len(whole.example.frame_index)) == (False, 4)
    assert shown(shards, Ask(0, "k", "answer"), "choice", Question(sample), 2).clip is None
