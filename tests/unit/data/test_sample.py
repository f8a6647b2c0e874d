"""The canonical record: lossless rows, the reading policy, and what makes a sample unusable."""

import dataclasses
import json

import pyarrow as pa
import pytest

from tpo_core.data import rle
from tpo_core.data.sample import (
    SCHEMA,
    Clip,
    Media,
    Provenance,
    Rle,
    Saliency,
    Sample,
    Target,
    TrackEntry,
    Turn,
    answer_targets,
    from_row,
    kind_of,
    prompt_boxes,
    settle,
    to_row,
    to_table,
    validate,
)

PROVENANCE = Provenance(source_file="a.txt", row=0, native_id="1", reader="test")


def span_sample(span_s, duration_s=10.0):
    return Sample(
        sample_id="d/train/1",
        dataset="d",
        split="train",
        task="span",
        media=(Media("v.mp4", "video", width=100, height=50, duration_s=duration_s, n_frames=20),),
        turns=(Turn("user", "When?", (0,)), Turn("assistant", "In <time_begin><temp> seconds.", (), (0,))),
        targets=(Target("span", span_s=span_s),),
        provenance=PROVENANCE,
    )


def highlight_sample(clip_ids, scores):
    """Clips of 2 s in a video of 10 s."""
    sample = span_sample((0.0, 1.0))
    saliency = Target("saliency", saliency=Saliency(2.0, clip_ids, scores))
    return dataclasses.replace(sample, targets=(*sample.targets, saliency))


def dense_sample(*targets):
    turns = (Turn("user", "What happens?", (0,)), Turn("assistant", "3.0 seconds, a.", (), tuple(range(len(targets)))))
    return dataclasses.replace(span_sample((0.0, 1.0)), task="dense_caption", turns=turns, targets=targets)


def box_sample(box, width=100, height=50):
    return dataclasses.replace(
        span_sample((0.0, 1.0)),
        task="box",
        media=(Media("i.jpg", "image", width=width, height=height),),
        turns=(Turn("user", "Where?", (0,)), Turn("assistant", "Answer: <box_begin><boxes> .", (), (0,))),
        targets=(Target("box", box=box),),
    )


def track_sample(entries):
    prompt = Target("box", box=(1.0, 1.0, 5.0, 5.0), frame=0)
    return dataclasses.replace(
        span_sample((0.0, 1.0)),
        task="track",
        turns=(
            Turn("user", "Track <track_box>", (0,), (1,)),
            Turn("assistant", "Answer: <track_begin><tracking> .", (), (0,)),
        ),
        targets=(Target("track", object_id="1", track=tuple(entries)), prompt),
    )


def mask_sample(*masks, width=64, height=48):
    """Masks on frames 0, 1, ...; the media is 64 x 48."""
    media = Media("v.mp4", "video", width=width, height=height, n_frames=20)
    return dataclasses.replace(
        track_sample([TrackEntry(frame, True, rle=mask) for frame, mask in enumerate(masks)]), task="mask",
        media=(media,), turns=(Turn("user", "Where?", (0,)), track_sample(()).turns[1]),
    )  # fmt: skip


def one_mask(mask):
    sample = mask_sample()
    return dataclasses.replace(sample, targets=(Target("mask", frame=3, rle=mask),))


def with_question(sample, text):
    return dataclasses.replace(sample, turns=(dataclasses.replace(sample.turns[0], text=text), sample.turns[1]))


def full_sample():
    entries = (
        TrackEntry(0, True, 0.5, (1.0, 2.0, 3.0, 4.0), Rle(4, 4, b"52203"), False),
        TrackEntry(3, False),
    )
    targets = (
        Target("track", object_id="7", group=0, set_rule="union", track=entries),
        Target("saliency", annotator=2, saliency=Saliency(2.0, (0, 4), ((4, 3, 2), (0, 1, 2)))),
        Target("span", label="x", span_s=(0.5, 1.5), set_rule="all_of"),
        Target("mask", frame=3, rle=Rle(4, 4, b"0@")),
    )
    media = Media("f", "frames", 4, 4, 24.0, 8, 3.5, Clip(1.0, 3.0), 4, ("a.jpg", "b.jpg"))
    return dataclasses.replace(
        track_sample(()),
        media=(media,),
        targets=targets,
        options=("A", "B"),
        answer_index=1,
        answer_text="B",
        provenance=Provenance("a.txt", 3, "9", "test", "CC", "2", 1, '{"x": 1}', ("end_clipped",)),
    )


def test_rows_are_lossless_through_an_arrow_file(tmp_path):
    samples = [full_sample(), span_sample((0.0, 1.0)), box_sample((-3.0, 0.5, 9.25, 7.0))]
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
        writer.write_table(to_table(samples))
    table = pa.ipc.open_file(pa.memory_map(str(tmp_path / "x.arrow"))).read_all()
    assert table.schema.equals(SCHEMA)
    assert [from_row(row) for row in table.to_pylist()] == samples
    assert table.to_pylist() == [to_row(sample) for sample in samples]


def test_the_schema_names_exactly_the_fields_of_the_record():
    assert set(to_row(full_sample())) == set(SCHEMA.names)
    target = SCHEMA.field("targets").type.value_type
    assert {target.field(i).name for i in range(target.num_fields)} == {f.name for f in dataclasses.fields(Target)}


def test_a_row_with_an_unknown_field_is_refused():
    with pytest.raises(ValueError, match="Media has no field 'urii'"):
        from_row({**to_row(span_sample((0.0, 1.0))), "media": [{"urii": "a", "kind": "video"}]})


def test_kinds_and_references():
    assert [kind_of(dataclasses.replace(full_sample(), task=t)) for t in ("box", "highlight", "track", "caption")] == [
        "region",
        "temporal",
        "mask",
        "chat",
    ]
    sample = track_sample([TrackEntry(0, True, box=(1.0, 1.0, 5.0, 5.0))])
    assert [target.kind for target in answer_targets(sample)] == ["track"]
    assert [target.box for target in prompt_boxes(sample)] == [(1.0, 1.0, 5.0, 5.0)]


@pytest.mark.parametrize(
    ("sample", "reasons"),
    [
        (span_sample((0.0, 10.0)), []),
        (span_sample((10.0, 12.0)), ["moment_past_end"]),
        (span_sample((10.0, 12.0), duration_s=None), []),
        (span_sample((3.0, 3.0)), ["moment_empty"]),
        (span_sample((4.0, 3.0)), ["moment_reversed"]),
        (dense_sample(Target("point", span_s=(3.0, 3.0)), Target("span", span_s=(3.0, 4.0))), []),
        (dense_sample(Target("point", span_s=(10.0, 10.0))), ["moment_past_end"]),
        (dense_sample(Target("point", span_s=(-1.0, -1.0))), ["moment_before_start"]),
        (dense_sample(Target("point")), ["no_target"]),
        (span_sample((-1.0, 3.0)), ["moment_before_start"]),
        (span_sample((float("nan"), 3.0)), ["nan"]),
        (box_sample((-5.0, -5.0, 10.0, 10.0)), []),
        (box_sample((100.0, 0.0, 120.0, 20.0)), ["box_outside_image"]),
        (box_sample((-9.0, 0.0, 0.0, 20.0)), ["box_outside_image"]),
        (box_sample((100.0, 0.0, 120.0, 20.0), width=None), []),
        (box_sample((5.0, 5.0, 5.0, 9.0)), ["box_empty"]),
        (box_sample((5.0, float("inf"), 6.0, 9.0)), ["nan"]),
        (track_sample([TrackEntry(0, True, box=(1.0, 1.0, 5.0, 5.0)), TrackEntry(5, False)]), []),
        (track_sample([TrackEntry(0, False)]), ["track_never_visible"]),
        (track_sample([TrackEntry(20, True)]), ["frame_out_of_range"]),
        (dataclasses.replace(span_sample((0.0, 1.0)), targets=()), ["bad_reference", "no_target"]),
        (dataclasses.replace(span_sample((0.0, 1.0)), media=()), ["no_media", "bad_reference"]),
        (dataclasses.replace(span_sample((0.0, 1.0)), task="dance"), ["bad_task"]),
        (dataclasses.replace(span_sample((0.0, 1.0)), turns=()), ["no_answer", "marker_missing", "no_target"]),
        (dataclasses.replace(track_sample([TrackEntry(0, True)]), task="box"), ["marker_missing", "no_target"]),
        (with_question(track_sample([TrackEntry(0, True)]), "Track it."), ["marker_missing", "prompt_mismatch"]),
        (with_question(span_sample((0.0, 1.0)), "When is <track_box>?"), ["prompt_mismatch"]),
        (dataclasses.replace(span_sample((0.0, 1.0)), targets=(Target("saliency"),)), ["no_target"]),
        (span_sample((0.0, 1.0), duration_s=float("nan")), ["nan"]),
        (highlight_sample((0, 4), ((1,), (2,))), []),
        (highlight_sample((0, 5), ((1,), (2,))), []),  # begins where the file ends
        (highlight_sample((0, 6), ((1,), (2,))), ["saliency_past_end"]),
        (highlight_sample((1, 1), ((1,), (2,))), ["bad_saliency"]),
        (highlight_sample((-1,), ((1,),)), ["bad_saliency"]),
        (highlight_sample((1,), ((-1,),)), ["bad_saliency"]),
    ],
)
def test_validate_names_every_defect(sample, reasons):
    assert validate(sample) == reasons


WHOLE, SMALL, NONSENSE = rle.from_runs(48, 64, [0, 3072]), rle.from_runs(5, 5, [20, 5]), Rle(48, 64, b"nonsense")


@pytest.mark.parametrize(
    ("sample", "reasons"),
    [
        (mask_sample(WHOLE), []),
        (mask_sample(WHOLE, NONSENSE), ["mask_unreadable"]),
        (mask_sample(dataclasses.replace(WHOLE, counts=SMALL.counts)), ["mask_unreadable"]),
        (mask_sample(WHOLE, SMALL), ["mask_size_mismatch"]),
        (mask_sample(SMALL, width=None), []),
        (mask_sample(Rle(5, 5, b"nonsense")), ["mask_unreadable", "mask_size_mismatch"]),
        (one_mask(WHOLE), []),
        (one_mask(NONSENSE), ["mask_unreadable"]),
        (one_mask(SMALL), ["mask_size_mismatch"]),
    ],
)
def test_a_mask_fits_its_media(sample, reasons):
    assert validate(sample) == reasons


def test_a_clip_gives_the_timeline():
    sample = span_sample((0.0, 3.0))
    media = dataclasses.replace(sample.media[0], clip_s=Clip(4.0, 6.0))
    assert settle(dataclasses.replace(sample, media=(media,))).targets[0].span_s == (0.0, 2.0)


def test_settle_clips_ends_and_keeps_the_raw_ones():
    sample = settle(span_sample((8.0, 12.0)))
    assert sample.targets[0].span_s == (8.0, 10.0)
    assert sample.provenance.flags == ("end_clipped",)
    assert json.loads(sample.provenance.raw) == {"spans_s": [[8.0, 12.0]]}
    assert settle(sample) == sample


def test_settle_makes_track_entries_outside_the_image_absent():
    inside, outside = (90.0, 40.0, 110.0, 60.0), (120.0, 0.0, 130.0, 9.0)
    sample = settle(track_sample([TrackEntry(0, True, box=inside), TrackEntry(1, True, box=outside)]))
    assert sample.targets[0].track == (TrackEntry(0, True, box=inside), TrackEntry(1, False))
    assert json.loads(sample.provenance.raw) == {"outside_boxes": {"1": list(outside)}}
    assert validate(sample) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"turns": (Turn("human", "When?"), Turn("assistant", "<time_begin><temp>", (), (0,)))}, "bad_role"),
        ({"targets": (Target("span", span_s=(0.0, 1.0)), Target("spam"))}, "bad_target"),
        ({"targets": (Target("span", span_s=(0.0, 1.0), set_rule="none"),)}, "bad_target"),
        ({"options": ("a", "b"), "answer_index": 2}, "bad_option"),
        ({"answer_index": 0}, "bad_option"),
        ({"options": ("a", "b"), "answer_index": 1}, None),
    ],
)
def test_only_words_of_the_record_pass(changes, reason):
    assert validate(dataclasses.replace(span_sample((0.0, 1.0)), **changes)) == ([reason] if reason else [])


def test_an_end_that_is_no_number_of_seconds_is_not_clipped():
    assert validate(settle(span_sample((1.0, float("inf"))))) == ["nan"]


def test_one_alternative_that_cannot_be_does_not_cost_the_others():
    choices = [
        Target("span", annotator=k, group=0, set_rule="any_of", span_s=span) for k, span in enumerate(ANNOTATORS)
    ]
    turns = (Turn("user", "When?", (0,)), Turn("assistant", "In <time_begin><temp> seconds.", (), (0, 1, 2, 3)))
    extra = Target("span", span_s=(1.0, 2.0))
    sample = dataclasses.replace(span_sample((0.0, 1.0)), turns=turns, targets=(*choices[:2], extra, choices[2]))
    settled = settle(sample)
    assert [target.span_s for target in settled.targets] == [(0.0, 5.0), (1.0, 2.0), (5.0, 10.0)]
    assert settled.turns[1].target_refs == (0, 1, 2)
    assert validate(settled) == []
    assert settled.provenance.flags == ("alternative_dropped",)
    assert json.loads(settled.provenance.raw) == {"dropped": ["(10.0, 15.0)"]}
    assert settle(settled) == settled


def test_alternatives_none_of_which_can_be_are_named():
    choices = tuple(Target("span", group=0, set_rule="any_of", span_s=(start, 90.0)) for start in (20.0, 30.0))
    sample = dataclasses.replace(span_sample((0.0, 1.0)), targets=choices)
    assert validate(settle(sample)) == ["moment_past_end"]


ANNOTATORS = [(0.0, 5.0), (10.0, 15.0), (5.0, 10.0)]  # of a video of 10 s
