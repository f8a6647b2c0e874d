"""Samples read from mapped buffers: exactly what Arrow's own objects give."""

from dataclasses import replace

import pyarrow as pa
import pytest

from tpo_core.data.record import Clip, Media, Provenance, Rle, Saliency, Sample, Target, TrackEntry, Turn
from tpo_core.data.rows import sample_reader
from tpo_core.data.sample import SCHEMA, from_row, to_table

BARE = Sample("a", "set", "train", "chat", (), (), Provenance("f", 0, "n", "r"))
FULL = Sample(
    sample_id="b/\u00fc\u4e16",
    dataset="other",
    split="val",
    task="track",
    media=(
        Media("v", "video", 640, 480, 29.97, 2**40, 1e-3, Clip(0.5, 2.5), 3, ("0.jpg", "", "\u00e9.jpg")),
        Media("i", "image"),
    ),
    turns=(Turn("user", "Where <track_box>?", (0, 1), (0,)), Turn("assistant", "", (), (1, 2)), Turn("system", "s")),
    provenance=Provenance("f\n", 2**33, "", "r", "CC", "2", 1, '{"a": 1}', ("clipped", "moved")),
    options=("yes", ""),
    answer_index=-1,
    answer_text="no",
    targets=(
        Target("box", "dog", "7", 2, 0, "any_of", box=(-1.5, 0.0, 3.25, 4.0), frame=2),
        Target("span", span_s=(0.1, 0.30000000000000004), saliency=Saliency(2.0, (0, 3), ((1, -2, 3), ()))),
        Target("mask", rle=Rle(4, 5, bytes(range(48, 96))), frame=0),
        Target(
            "track",
            track=(
                TrackEntry(0, True, 0.1, (0.0, 1.0, 2.0, 3.0), Rle(1, 1, b""), False),
                TrackEntry(9, False),
                TrackEntry(2**35, True, None, (4.0, 1.0, 2.0, 3.0)),
            ),
        ),
        Target("track", track=()),
    ),
)


def written(tmp_path, samples):
    """The batches of a file with these samples, mapped."""
    path = tmp_path / "samples.arrow"
    table = to_table(samples)
    with pa.ipc.new_file(path, SCHEMA) as writer:
        writer.write_table(table, max_chunksize=7)
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    return [reader.get_batch(number) for number in range(reader.num_record_batches)]


@pytest.mark.parametrize(
    "samples",
    [
        [BARE],
        [FULL],
        [BARE, FULL, BARE, FULL, FULL],
        [replace(FULL, sample_id=str(k), targets=FULL.targets[k % 5 :], media=FULL.media[: k % 3]) for k in range(40)],
        [replace(BARE, task=task, answer_index=k or None) for k, task in enumerate(["chat", "mcq", "span"] * 6)],
    ],
    ids=["bare", "full", "both", "many", "nulls"],
)
def test_a_sample_is_what_arrow_says_it_is(tmp_path, samples):
    rows = []
    for batch in written(tmp_path, samples):
        read = sample_reader(batch)
        expected = [from_row(row) for row in batch.to_pylist()]
        got = [read(row) for row in range(batch.num_rows)]
        assert got == expected
        assert repr(got) == repr(expected), "types too: tuples, bytes, int and not bool"
        rows += got
    assert [row.sample_id for row in rows] == [sample.sample_id for sample in samples]
    assert rows[0].targets[:1] == samples[0].targets[:1]


def test_rows_may_be_read_in_any_order(tmp_path):
    samples = [replace(FULL, sample_id=str(k), targets=FULL.targets[k % 5 :]) for k in range(7)]
    read = sample_reader(written(tmp_path, samples)[0])
    assert [read(row).sample_id for row in (5, 0, 6, 5)] == ["5", "0", "6", "5"]


def test_a_row_outside_of_the_batch_is_an_error(tmp_path):
    read = sample_reader(written(tmp_path, [BARE])[0])
    with pytest.raises(IndexError):
        read(1)


def test_a_slice_is_refused_since_its_buffers_begin_before_it(tmp_path):
    batch = written(tmp_path, [BARE, FULL])[0]
    with pytest.raises(AssertionError, match="a slice"):
        sample_reader(batch.slice(1))


def test_a_batch_without_rows_is_no_error():
    assert callable(sample_reader(pa.RecordBatch.from_pylist([], SCHEMA)))
