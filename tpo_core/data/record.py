"""Dataclasses and Arrow schema of the canonical record; `tpo_core.data.sample` documents and re-exports them."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 2
Box = tuple[float, float, float, float]
Span = tuple[float, float]


@dataclass(frozen=True)
class Rle:
    """COCO run lengths of one binary mask of `h` x `w` pixels; `counts` is the compressed ASCII form."""

    h: int
    w: int
    counts: bytes


@dataclass(frozen=True)
class Clip:
    """The part of a media file, in seconds of the FILE, that is the sample; target times are relative to `start`."""

    start: float
    end: float


@dataclass(frozen=True)
class Media:
    """One image, video file or folder of frames. `uri` is relative to the root of the source.

    A reader leaves `width`, `height` (pixels), `fps`, `n_frames` and `duration_s` None where the annotation files do
    not tell; preprocessing fills them in after decoding. `frame_names` lists the files of a `frames` folder in order.
    """

    uri: str
    kind: str
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    n_frames: int | None = None
    duration_s: float | None = None
    clip_s: Clip | None = None
    frame_stride: int | None = None
    frame_names: tuple[str, ...] | None = None

    def sample_duration_s(self) -> float | None:
        """Length in seconds of the timeline that target times live on, None when not known yet."""
        return self.duration_s if self.clip_s is None else self.clip_s.end - self.clip_s.start


@dataclass(frozen=True)
class Turn:
    """One turn of the conversation; `media_refs` and `target_refs` index `Sample.media` and `Sample.targets`."""

    role: str
    text: str
    media_refs: tuple[int, ...] = ()
    target_refs: tuple[int, ...] = ()


@dataclass(frozen=True)
class Saliency:
    """Highlight scores: `scores[k]` (one int per annotator) belongs to clip `clip_ids[k]`; clip i covers
    [i, i + 1) * `clip_len_s` (stored as float32). Clips not listed score 0."""

    clip_len_s: float
    clip_ids: tuple[int, ...]
    scores: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class TrackEntry:
    """One object at one frame. `visible` False: absent there. `visible_ratio` in 0..1 (stored as float32)."""

    frame: int
    visible: bool
    visible_ratio: float | None = None
    box: Box | None = None
    rle: Rle | None = None
    scored: bool = True


@dataclass(frozen=True)
class Target:
    """One label. `kind`: span, point, saliency, box, mask or track. `frame`: the frame that `box` or `rle` is on.
    A point is an instant: both ends of its `span_s` are that second.

    `set_rule` says how targets of the same `group` combine: single, any_of, union, all_of.
    """

    kind: str
    label: str | None = None
    object_id: str | None = None
    annotator: int | None = None
    group: int | None = None
    set_rule: str = "single"
    span_s: Span | None = None
    saliency: Saliency | None = None
    box: Box | None = None
    frame: int | None = None
    rle: Rle | None = None
    track: tuple[TrackEntry, ...] | None = None


@dataclass(frozen=True)
class Provenance:
    """Where a sample comes from. `row` is the 0-based record (line, list index) in `source_file`; `origin` is the
    coordinate origin of the native boxes (0 or 1); `raw` is JSON of the native values that were changed."""

    source_file: str
    row: int
    native_id: str
    reader: str
    license: str | None = None
    reader_version: str = "1"
    origin: int = 0
    raw: str = "{}"
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sample:
    """One supervised sample. `sample_id` is "<dataset>/<split>/<native id>", stable over runs."""

    sample_id: str
    dataset: str
    split: str
    task: str
    media: tuple[Media, ...]
    turns: tuple[Turn, ...]
    provenance: Provenance
    options: tuple[str, ...] | None = None
    answer_index: int | None = None
    answer_text: str | None = None
    targets: tuple[Target, ...] = ()


_NAME = pa.dictionary(pa.int32(), pa.string())
_BOX = pa.list_(pa.float64(), 4)
_RLE = pa.struct([("h", pa.int32()), ("w", pa.int32()), ("counts", pa.large_binary())])
_MEDIA = pa.struct(
    [
        ("uri", pa.string()),
        ("kind", _NAME),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("fps", pa.float64()),
        ("n_frames", pa.int64()),
        ("duration_s", pa.float64()),
        ("clip_s", pa.struct([("start", pa.float64()), ("end", pa.float64())])),
        ("frame_stride", pa.int32()),
        ("frame_names", pa.list_(pa.string())),
    ]
)
_TURN = pa.struct(
    [
        ("role", _NAME),
        ("text", pa.string()),
        ("media_refs", pa.list_(pa.int32())),
        ("target_refs", pa.list_(pa.int32())),
    ]
)
_SALIENCY = pa.struct(
    [
        ("clip_len_s", pa.float32()),
        ("clip_ids", pa.list_(pa.int32())),
        ("scores", pa.list_(pa.list_(pa.int8()))),
    ]
)
_TRACK_ENTRY = pa.struct(
    [
        ("frame", pa.int64()),
        ("visible", pa.bool_()),
        ("visible_ratio", pa.float32()),
        ("box", _BOX),
        ("rle", _RLE),
        ("scored", pa.bool_()),
    ]
)
_TARGET = pa.struct(
    [
        ("kind", _NAME),
        ("label", pa.string()),
        ("object_id", pa.string()),
        ("annotator", pa.int16()),
        ("group", pa.int32()),
        ("set_rule", _NAME),
        ("span_s", pa.list_(pa.float64(), 2)),
        ("saliency", _SALIENCY),
        ("box", _BOX),
        ("frame", pa.int64()),
        ("rle", _RLE),
        ("track", pa.list_(_TRACK_ENTRY)),
    ]
)
_PROVENANCE = pa.struct(
    [
        ("source_file", pa.string()),
        ("row", pa.int64()),
        ("native_id", pa.string()),
        ("license", pa.string()),
        ("reader", pa.string()),
        ("reader_version", pa.string()),
        ("origin", pa.int8()),
        ("raw", pa.string()),
        ("flags", pa.list_(pa.string())),
    ]
)
SCHEMA = pa.schema(
    [
        ("sample_id", pa.string()),
        ("dataset", _NAME),
        ("split", _NAME),
        ("task", _NAME),
        ("media", pa.list_(_MEDIA)),
        ("turns", pa.list_(_TURN)),
        ("options", pa.list_(pa.string())),
        ("answer_index", pa.int8()),
        ("answer_text", pa.string()),
        ("targets", pa.list_(_TARGET)),
        ("provenance", _PROVENANCE),
    ]
)
