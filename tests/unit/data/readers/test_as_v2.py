"""AS-V2: the boxes in an answer, in pixels, whatever they refer to and wherever the size comes from."""

import json

import pytest

from tpo_core.data.readers import READERS, Reject
from tpo_core.data.readers.as_v2 import named, to_pixels

BUS = "A <ref>bus</ref><box>[[0, 0, 999, 999]]</box> is <pred>on</pred><box>[[0, 0, 999, 999]]</box>"
BUS += "<box>[[0, 333, 333, 666]]</box> a <ref>road</ref><box>[[0, 333, 333, 666], [333, 0, 666, 999]]</box>."


def row(answer=BUS, question="<image>\nDescribe.", **changes):
    talk = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "1", "image": "coco/train2017/1.jpg", "width": 600, "height": 300, "conversations": talk, **changes}


def sizeless(**changes):
    return {key: value for key, value in row(**changes).items() if key not in ("width", "height")}


def read(root, rows, **options):
    (root / "train.json").write_text(json.dumps(rows))
    return list(READERS["as_v2"].read(str(root), "train", options))


def test_a_conversation_keeps_its_text_and_has_the_boxes_as_targets(tmp_path):
    (sample,) = read(tmp_path, [row()])
    assert (sample.sample_id, sample.task) == ("as_v2/train/train-0", "chat")
    assert [turn.text for turn in sample.turns] == ["<image>\nDescribe.", BUS]
    assert [target.label for target in sample.targets] == ["bus", "on", "on", "road", "road"]
    assert [target.group for target in sample.targets] == [0, 1, 1, 2, 2]
    assert [target.object_id for target in sample.targets] == [None, "subject", "object", None, None]
    assert [target.set_rule for target in sample.targets] == ["single", *["all_of"] * 4]
    assert sample.targets[0].box == (0.0, 0.0, 600.0, 300.0)
    assert sample.targets[3].box == pytest.approx((0, 100, 200, 200))
    assert sample.turns[1].target_refs == (0, 1, 2, 3, 4)


def test_an_object_becomes_a_sample_of_its_own(tmp_path):
    bus, road = read(tmp_path, [row()], task="box")
    assert [bus.sample_id, road.sample_id] == ["as_v2/train/train-0-0", "as_v2/train/train-0-1"]
    assert (bus.task, bus.targets[0].label) == ("phrase_box", "bus")
    assert "bus" in bus.turns[0].text
    assert road.turns[1].target_refs == (0, 1)
    assert json.loads(bus.provenance.raw) == {"boxes": [[0, 0, 999, 999]]}


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((600, 300), (0.0, -150.0, 600.0, 450.0)),
        ((300, 600), (-150.0, 0.0, 450.0, 600.0)),
        ((5, 2), (0.0, -1.0, 5.0, 4.0)),
    ],
)
def test_boxes_of_the_image_padded_to_a_square(tmp_path, size, box):
    assert to_pixels((0, 0, 999, 999), *size, padded=True) == box
    assert to_pixels((0, 0, 999, 999), *size, padded=False) == (0.0, 0.0, *size)


def test_the_padded_form_is_an_option(tmp_path):
    answer = "<ref>it</ref><box>[[0, 333, 999, 666]]</box>"
    (sample,) = read(tmp_path, [row(answer, height=200)], boxes="padded", task="box")
    assert sample.targets[0].box == pytest.approx((0, 0, 600, 200))


def test_sizes_come_from_a_file_where_a_row_has_none(tmp_path):
    (tmp_path / "coco.json").write_text(json.dumps({"images": [{"file_name": "1.jpg", "width": 60, "height": 30}]}))
    (sample,) = read(tmp_path, [sizeless()], sizes="coco.json")
    assert sample.targets[0].box == (0.0, 0.0, 60.0, 30.0)
    assert (sample.media[0].width, sample.media[0].height) == (60, 30)


def test_a_conversation_without_a_size_keeps_its_text_only(tmp_path):
    (sample,) = read(tmp_path, [sizeless()])
    assert (sample.targets, sample.provenance.flags) == ((), ("boxes_without_size",))
    (reject,) = read(tmp_path, [sizeless()], task="box")
    assert reject.reason == "no_image_size"


def test_text_without_boxes_gives_a_conversation_and_no_object(tmp_path):
    text = {"conversations": row("A bus.", "What?")["conversations"]}
    (sample,) = read(tmp_path, [text])
    assert (sample.targets, sample.media, sample.provenance.flags) == ((), (), ())
    assert read(tmp_path, [text], task="box") == []


def test_boxes_in_a_question_are_no_answer(tmp_path):
    asked = "<image>\nWhat is <ref>this</ref><box>[[1, 2, 3, 4]]</box>?"
    (sample,) = read(tmp_path, [row("A bus.", asked)])
    assert (sample.targets, sample.turns[0].text) == ((), asked)
    assert read(tmp_path, [row("A bus.", asked)], task="box") == []


def test_a_box_without_area_is_left_out_of_a_conversation(tmp_path):
    answer = "<ref>pole</ref><box>[[5, 5, 5, 90], [5, 5, 9, 90]]</box>"
    (sample,) = read(tmp_path, [row(answer)])
    assert (len(sample.targets), sample.provenance.flags) == (1, ("empty_box_left_out",))
    (reject,) = read(tmp_path, [row(answer)], task="box")
    assert reject.reason == "box_empty"


def test_tags_are_read_over_lines_and_spaces():
    bus, on, two = named(
        "<ref>the\nbus</ref> <box>[[1, 2, 3, 4]]</box><pred>on</pred><box>[]</box><box>[]</box>"
        "<ref>two</ref><box>[[1, 2, 3, 4]]</box><box>[[5, 6, 7, 8]]</box><ref>none</ref>"
    )
    assert (bus.words, bus.boxes) == ("the\nbus", ((None, (1.0, 2.0, 3.0, 4.0)),))
    assert on.boxes == ()
    assert [end for end, _ in two.boxes] == [None, None]


@pytest.mark.parametrize("task", ["chat", "box"])
def test_exactly_the_planted_faults_are_rejected(tmp_path, task):
    good = "<ref>bus</ref><box>[[1, 2, 30, 40]]</box>"
    faults = [
        "<ref>bus</ref><box>[[1, 2, 3]]</box>",
        "<ref>bus</ref><box>[1, 2, 3, 4]</box>",
        "<ref>bus</ref><box>[[1, 2, 3, 4]</box>",
        '<ref>bus</ref><box>[[1, 2, 3, "x"]]</box>',
        "<pred>on</pred><box>[[1, 2, 3, 4]]</box>",
    ]
    rows = [row(good), *map(row, faults), row(good, image=5), row(good, width="wide"), "text", row(good)]
    items = read(tmp_path, rows, task=task)
    rejects = {item.uri: item.reason for item in items if isinstance(item, Reject)}
    assert rejects == {f"train.json:{number}": "bad_record" for number in range(2, 10)}
    assert [item.provenance.row for item in items if not isinstance(item, Reject)] == [0, 9]


def test_items_come_before_the_file_is_read_to_its_end(tmp_path):
    (tmp_path / "train.json").write_text("[" + (json.dumps(row()) + ",") * 2000 + "broken")
    assert len(next(READERS["as_v2"].read(str(tmp_path), "train", {})).targets) == 5
